"""Requests on disk: what one exporter has not had an answer for survives the agent's end, whatever ends it.

One SQLite file in WAL mode. Nothing is ever synced: a killed process leaves its writes to the page cache, so only a
power cut can lose or damage the file, and a damaged file is set aside. What a row needs to be chosen is in an index,
so that no body is read before it is sent.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from otelbpf.export.request import Request

FILE = "spool.db"
ASIDE = ".corrupt"
FRESH = ".new"
FORMAT = 1
PAGE_BYTES = 16384
"""A request fills pages of its own; larger pages mean fewer steps for the usual hundreds of kilobytes."""
LOG_PAGES = 256
"""The write-ahead log is copied into the file, and begun again, when it is so long: 4 MiB."""
CACHE_KIB = 1024
VACUUM_PAGES = 1024
"""Free pages that are given back to the disk when nothing is left; fewer are kept for what comes next."""

_SETUP = (
    f"PRAGMA page_size={PAGE_BYTES}",
    "PRAGMA auto_vacuum=INCREMENTAL",
    "PRAGMA locking_mode=EXCLUSIVE",  # one agent; and the log needs no shared memory
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=OFF",
    f"PRAGMA cache_size=-{CACHE_KIB}",
    f"PRAGMA wal_autocheckpoint={LOG_PAGES}",
    f"PRAGMA journal_size_limit={LOG_PAGES * PAGE_BYTES}",
)
_TABLES = (
    """CREATE TABLE request(
        id INTEGER PRIMARY KEY AUTOINCREMENT, signal TEXT NOT NULL, items INTEGER NOT NULL, oldest_ns INTEGER NOT NULL,
        size INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL)""",
    "CREATE INDEX waiting ON request(signal, id, items, oldest_ns, size)",
    f"PRAGMA user_version={FORMAT}",
)
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SpoolError(Exception):
    """The disk cannot be used now; the text is why."""


class SpoolCorruptError(SpoolError):
    """The file is not what was written."""


class Row(NamedTuple):
    """A request on disk, without its body."""

    id: int
    items: int
    oldest_ns: int
    size: int


class Kept(NamedTuple):
    """The requests of one signal that are on disk."""

    rows: int
    items: int
    size_bytes: int
    oldest_ns: int


class Spool:
    """The requests of one exporter in *directory*. A context manager; its methods may be called from any thread.

    Every method raises SpoolError when the disk does not do what it should, and has then changed nothing.
    """

    def __init__(self, directory: Path, exporter: str) -> None:
        self.directory = directory / quote(exporter, safe="")
        self.path = self.directory / FILE
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._identity = (0, 0)
        """Device and inode of the file that is open."""

    def __enter__(self) -> Self:
        made = self._made(self.path)
        with self._lock, self._told():
            self._database = self._connected()
        self._identity = made
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._database is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._database.close()
            self._database = None

    def is_there(self) -> bool:
        """Whether the file still has its name. Without it nobody finds what it holds when it is closed."""
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # nothing is known
            return True
        return (found.st_dev, found.st_ino) == self._identity

    def put_back(self) -> None:
        """Writes what the open file holds to a file with its name, which somebody has removed."""
        fresh = self.path.with_name(FILE + FRESH)
        try:
            if self.path.exists():
                raise SpoolError(f"{self.path}: another file is in its place")
            fresh.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(f"{self.directory}: {error.strerror}") from None
        made = self._made(fresh)
        with self._lock, self._told():
            try:
                self._copy(fresh)
            except BaseException:
                with contextlib.suppress(OSError):
                    fresh.unlink()  # what it takes is wanted on a full disk
                raise
            self._open.close()  # it removes the log by its name, which is that of the next one
            self._database = None
            try:
                Path(f"{self.path}-wal").unlink(missing_ok=True)
                fresh.replace(self.path)
            except OSError as error:
                raise SpoolCorruptError(f"{self.path}: {error.strerror}") from None
            self._database = self._connected()
        self._identity = made

    def set_aside(self) -> Path:
        """Closes the file and puts it out of the way, replacing one that was put there before."""
        self.__exit__()
        aside = self.path.with_name(FILE + ASIDE)
        try:
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        except OSError as error:
            raise SpoolError(f"{self.path}: {error.strerror}") from None
        return aside

    def write(self, requests: Sequence[Request], forget: Collection[int] = ()) -> list[int]:
        """Keeps *requests* and forgets those with the numbers *forget*, all or nothing; gives the numbers of the new."""
        with self._transaction() as database:
            database.executemany("DELETE FROM request WHERE id=?", ((number,) for number in forget))
            return [self._insert(database, request) for request in requests]

    def read(self, number: int) -> bytes | None:
        """The body of request *number*; None when it is not there, or not as it was written."""
        with self._lock, self._told():
            found = self._open.execute("SELECT body, checksum FROM request WHERE id=?", (number,)).fetchone()
        if found is None or zlib.crc32(found[0]) != found[1]:
            return None
        body: bytes = found[0]
        return body

    def rows(self, signal: str, after: int, limit: int) -> list[Row]:
        """The next *limit* requests of *signal* with numbers above *after*, the oldest first."""
        query = "SELECT id, items, oldest_ns, size FROM request WHERE signal=? AND id>? ORDER BY id LIMIT ?"
        with self._lock, self._told():
            return [Row(*found) for found in self._open.execute(query, (signal, after, limit))]

    def kept(self) -> dict[str, Kept]:
        """Signal → what is on disk."""
        query = "SELECT signal, count(*), sum(items), sum(size), min(oldest_ns) FROM request GROUP BY signal"
        with self._lock, self._told():
            return {signal: Kept(*numbers) for signal, *numbers in self._open.execute(query)}

    def size_bytes(self) -> int:
        """What the requests take on disk; the write-ahead log comes on top, with some MiB."""
        with self._lock, self._told():
            return (self._number("page_count") - self._number("freelist_count")) * PAGE_BYTES

    def shrink(self) -> None:
        """Gives unused room back to the disk, if there is much of it. Quick only when nothing is kept."""
        with self._lock, self._told():
            if self._number("freelist_count") > VACUUM_PAGES:
                # A script, as `execute` stops after the first page: each is a step without a row.
                self._open.executescript("PRAGMA incremental_vacuum")
                self._open.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def empty_log(self) -> None:
        """Copies the log into the file, so that its room on disk can be written again: the last on a full disk."""
        with self._lock, self._told():
            self._open.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    @property
    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            raise SpoolError(f"{self.path}: closed")
        return self._database

    def _number(self, pragma: str) -> int:
        return int(self._open.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _made(self, path: Path) -> tuple[int, int]:
        """Device and inode of the file at *path*, of which nobody else can read what is written."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SpoolError(f"{self.directory}: {error.strerror}") from None
        return status.st_dev, status.st_ino

    def _copy(self, path: Path) -> None:
        """Copies the open file to *path*."""
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as copy:
            for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF"):
                copy.execute(statement).fetchall()
            self._open.backup(copy)

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for statement in _SETUP:
                database.execute(statement).fetchall()
            self._create(database)
        except BaseException:
            database.close()
            raise
        return database

    def _create(self, database: sqlite3.Connection) -> None:
        """Makes the tables where there are none, and takes the file for this process alone."""
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        if version not in (0, FORMAT):
            raise SpoolCorruptError(f"{self.path}: format {version} is not known")
        database.execute("BEGIN IMMEDIATE")
        for statement in _TABLES if version == 0 else ():
            database.execute(statement)
        database.execute("COMMIT")

    @staticmethod
    def _insert(database: sqlite3.Connection, request: Request) -> int:
        body = request.body
        added = database.execute(
            "INSERT INTO request(signal, items, oldest_ns, size, checksum, body) VALUES(?, ?, ?, ?, ?, ?)",
            (request.signal, request.items, request.oldest_ns, len(body), zlib.crc32(body), body),
        )
        return added.lastrowid or 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            database = self._open
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR)
            damaged = code & 0xFF in _CORRUPT or code == sqlite3.SQLITE_IOERR_SHORT_READ
            kind = SpoolCorruptError if damaged else SpoolError
            raise kind(f"{self.path}: {_REASONS.get(code & 0xFF, str(error))}") from None


_REASONS = {
    sqlite3.SQLITE_BUSY: "another process has it",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is damaged",
}
