"""Recordings: the bytes that a real kernel sent, with what enrichment asked the machine, in one file.

A file is a header line of JSON, then frames: a u32 length and that much JSON (what it is), a u64 length and that much
payload. Layouts stand in the header, so a recording can be read without the object that made it, and without root.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from otelbpf.errors import OtelbpfError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO, Self

Layouts = dict[tuple[str, str], np.dtype[np.void]]
"""(kind of frame, probe) → what its payload is an array of."""
EVENTS, SNAPSHOT, TOTALS, COLLECT, MACHINE = "events", "snapshot", "totals", "collect", "machine"
MAGIC = "otelbpf-recording"
VERSION = 1
META_BYTES = struct.Struct("<I")
PAYLOAD_BYTES = struct.Struct("<Q")
META_LIMIT_BYTES = 64 << 20


class RecordingError(OtelbpfError):
    """A recording that cannot be written or read."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing that happened: rows of a probe, or a moment at which metrics are due."""

    kind: str
    """EVENTS, SNAPSHOT, TOTALS, COLLECT or MACHINE."""
    time_ns: int
    """Unix time."""
    clock_offset_ns: int = 0
    probe: str = ""
    payload: bytes = b""


class Recorder:
    """Writes a recording. A context manager: opens the file on entry, ends it on exit."""

    def __init__(self, path: Path, layouts: Layouts) -> None:
        self._path = path
        self._layouts = layouts

    def __enter__(self) -> Self:
        try:
            self._file = open(self._path, "wb", opener=_without_waiting)
        except OSError as error:
            raise RecordingError(f"--record {self._path}: {error.strerror}") from error
        header = {
            "format": MAGIC,
            "version": VERSION,
            "layouts": [
                [kind, probe, np.lib.format.dtype_to_descr(layout)] for (kind, probe), layout in self._layouts.items()
            ],
        }
        self._write(json.dumps(header).encode() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()  # writes what is left
        except OSError as error:
            raise RecordingError(f"--record {self._path}: {error.strerror}") from error

    def write(self, frame: Frame) -> None:
        """Appends one frame; raises RecordingError when the disk will not take it."""
        fields = ("kind", "time_ns", "clock_offset_ns", "probe")
        meta = json.dumps({name: getattr(frame, name) for name in fields}).encode()
        self._write(META_BYTES.pack(len(meta)) + meta + PAYLOAD_BYTES.pack(len(frame.payload)) + frame.payload)

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise RecordingError(f"--record {self._path}: {error.strerror}") from error


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody reads is an error and not a wait: the line writes here, and must not stand for a reader."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


class Recording:
    """A recording that is read back. A context manager; raises RecordingError for a file that is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.layouts: Layouts = {}

    def __enter__(self) -> Self:
        try:
            self._file: BinaryIO = self._path.open("rb")
        except OSError as error:
            raise RecordingError(f"{self._path}: {error.strerror}") from error
        self.layouts = self._read_header()
        self._start = self._file.tell()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def frames(self) -> Iterator[Frame]:
        """Every frame from the first on; a file cut short ends with the last whole frame."""
        self._file.seek(self._start)
        while (frame := self._read_frame()) is not None:
            yield frame

    def machine(self) -> dict[str, dict[str, Any]]:
        """What enrichment learnt from the machine that was recorded: question → about what → the last answer."""
        answers: dict[str, dict[str, Any]] = {}
        for frame in self.frames():
            if frame.kind == MACHINE:
                for question, found in self._answers(frame.payload).items():
                    answers.setdefault(question, {}).update(found)
        return answers

    def _answers(self, payload: bytes) -> dict[str, dict[str, Any]]:
        try:
            return msgspec.json.decode(payload, type=dict[str, dict[str, Any]])
        except (msgspec.DecodeError, RecursionError) as error:
            raise RecordingError(f"{self._path}: damaged: what the machine answered cannot be read") from error

    def _read_header(self) -> Layouts:
        try:
            header = _of_our_format(json.loads(self._file.readline(1 << 20)))
            version = header["version"]
            layouts = {
                (kind, probe): np.lib.format.descr_to_dtype(_tuples(descr)) for kind, probe, descr in header["layouts"]
            }
        except (ValueError, KeyError, TypeError) as error:
            self._file.close()
            raise RecordingError(f"{self._path}: not a recording of otelbpf; make one with `run --record`") from error
        if version != VERSION:
            self._file.close()
            raise RecordingError(f"{self._path}: a recording of version {version}; this otelbpf reads {VERSION}")
        return layouts

    def _read_frame(self) -> Frame | None:
        meta_size = self._exactly(META_BYTES.size)
        if meta_size is None:
            return None
        meta_bytes = META_BYTES.unpack(meta_size)[0]
        meta = self._exactly(meta_bytes) if meta_bytes < META_LIMIT_BYTES else None
        payload_size = self._exactly(PAYLOAD_BYTES.size)
        if meta is None or payload_size is None:
            return None
        payload = self._exactly(PAYLOAD_BYTES.unpack(payload_size)[0])
        if payload is None:
            return None
        try:
            return Frame(**json.loads(meta), payload=payload)
        except (ValueError, TypeError) as error:
            raise RecordingError(f"{self._path}: damaged at byte {self._file.tell()}") from error

    def _exactly(self, size: int) -> bytes | None:
        try:
            data = self._file.read(size)
        except (OverflowError, MemoryError):
            return None
        return data if len(data) == size else None


def _of_our_format(header: Any) -> Any:
    if header["format"] != MAGIC:
        raise ValueError(header["format"])
    return header


def _tuples(descr: Any) -> Any:
    """JSON has no tuples and numpy wants them for the members of a layout."""
    if isinstance(descr, list):
        return [tuple(_tuples(part) if isinstance(part, list) else part for part in member) for member in descr]
    return descr
