"""A compiled BPF object in this kernel: open, set constants and sizes, load, attach, run, read; all of it released."""

from __future__ import annotations

import ctypes
import os
from contextlib import ExitStack
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from otelbpf.errors import CannotRun, Unsupported
from otelbpf.kernel.btf import Btf
from otelbpf.kernel.features import cgroup2_mount
from otelbpf.kernel.libbpf import IteratorTarget, TestRun, libbpf
from otelbpf.kernel.maps import Map
from otelbpf.kernel.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from types import TracebackType

_READ_BYTES = 1 << 20
_PER_CPU = (5, 6, 10)
"""BPF_MAP_TYPE_PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH."""


class Object:
    """A loaded object; a context manager that holds its programs, maps and links.

    Entering raises VerifierError or Unsupported, whose `what` names the program, when the kernel refuses it, and
    CannotRun when the object file or libbpf is not what it should be.
    """

    def __init__(
        self,
        path: Path,
        *,
        constants: Mapping[str, int],
        map_sizes: Mapping[str, int],
        programs: Collection[str],
        custom_btf: Path | None = None,
    ) -> None:
        """*constants* are the values of `const volatile` variables, *map_sizes* the max_entries of maps (bytes of a
        ring), *programs* those to load; *custom_btf* describes a kernel that does not do so itself."""
        self.path = path
        self._constants, self._map_sizes = constants, map_sizes
        self._programs_to_load, self._custom_btf = programs, custom_btf
        self._programs: dict[str, int] = {}
        self._iterators: dict[tuple[str, str | None], int] = {}

    def __enter__(self) -> Self:
        self.btf = Btf.read(self.path)
        with ExitStack() as undo:
            self._handle = self._open()
            undo.callback(libbpf().bpf_object__close, self._handle)
            self._choose_programs()
            self._set_constants()
            self._set_map_sizes()
            self._load()
            self._links = undo.enter_context(ExitStack())
            self._release = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives back links, then programs and maps; the same as leaving the context."""
        self._release.close()

    def _open(self) -> int:
        with libbpf().messages() as messages:
            handle = libbpf().bpf_object__open_file(os.fsencode(self.path), self._open_options())
        if not handle:
            raise refusal(self.path.name, libbpf().error(), messages)
        return int(handle)

    def _open_options(self) -> Any:
        if self._custom_btf is None:
            return None
        # struct bpf_object_open_opts: size, object_name, relaxed_maps, pin_root_path, a stub, kconfig, btf_custom_path
        options = (ctypes.c_void_p * 7)()
        options[0] = ctypes.sizeof(options)
        self._custom_btf_path = ctypes.create_string_buffer(os.fsencode(self._custom_btf))
        options[6] = ctypes.addressof(self._custom_btf_path)
        return options

    def _choose_programs(self) -> None:
        program = None
        while program := libbpf().bpf_object__next_program(self._handle, program):
            name = libbpf().bpf_program__name(program).decode()
            self._programs[name] = program
            libbpf().bpf_program__set_autoload(program, name in self._programs_to_load)
        unknown = sorted(set(self._programs_to_load) - set(self._programs))
        if unknown:
            raise CannotRun(f"{self.path.name}: no program {', '.join(unknown)} in it")

    def _set_constants(self) -> None:
        for name, value in self._constants.items():
            offset, kind = self.btf.variable(name, ".rodata")
            try:
                content = np.array(value, kind.base).tobytes()
            except (OverflowError, ValueError) as wrong:
                raise CannotRun(f"{self.path.name}: constant {name} cannot be {value!r}: {wrong}") from wrong
            size = ctypes.c_size_t()
            start = libbpf().bpf_map__initial_value(self._map_handle(".rodata"), ctypes.byref(size))
            if len(content) != kind.itemsize or not start:
                raise CannotRun(f"{self.path.name}: constant {name} takes {kind.itemsize} bytes, not {len(content)}")
            ctypes.memmove(start + offset, content, len(content))

    def _set_map_sizes(self) -> None:
        for name, max_entries in self._map_sizes.items():
            error = libbpf().bpf_map__set_max_entries(self._map_handle(name), max_entries)
            if error:
                raise CannotRun(f"{self.path.name}: map {name} cannot have size {max_entries}: {os.strerror(-error)}")

    def _load(self) -> None:
        with libbpf().messages() as messages:
            error = libbpf().bpf_object__load(self._handle)
        if error:
            raise refusal(self.path.name, -error, messages)

    # -- programs

    @property
    def programs(self) -> list[str]:
        """The programs that are loaded."""
        return [name for name in self._programs if name in self._programs_to_load]

    def attach(self, program: str) -> None:
        """Attaches a loaded program as its section says; raises Unsupported. `syscall` programs need none."""
        handle = self._programs[program]
        section = libbpf().bpf_program__section_name(handle).decode()
        if section == "syscall":
            return
        with libbpf().messages() as messages:
            if section.startswith("cgroup"):
                link = self._attach_to_cgroup_root(program, handle)
            else:
                link = libbpf().bpf_program__attach(handle)
            error = libbpf().error()
        if not link:
            raise refusal(program, error, messages)
        self._links.callback(libbpf().bpf_link__destroy, link)

    def detach(self) -> None:
        """No program runs on events any more; maps and iterators stay. May be called twice."""
        self._links.close()

    def _attach_to_cgroup_root(self, program: str, handle: int) -> int | None:
        mount = cgroup2_mount()
        if mount is None:
            raise Unsupported(program, "no cgroup2 file system is mounted")
        try:
            directory = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:  # listed, but hidden by another mount
            raise Unsupported(program, f"the cgroup2 file system at {mount}: {error.strerror}") from error
        try:
            link: int | None = libbpf().bpf_program__attach_cgroup(handle, directory)
            return link
        finally:
            os.close(directory)

    def run(self, program: str) -> int:
        """Runs a `syscall` program once and gives what it returned."""
        run = TestRun(size=ctypes.sizeof(TestRun))
        error = libbpf().bpf_prog_test_run_opts(self._program_fd(program), ctypes.byref(run))
        if error:
            raise Unsupported(program, f"cannot be run: {os.strerror(-error)}")
        return int(run.retval)

    def iterate(self, program: str, map: str | None = None) -> bytes:  # noqa: A002 - its name in the kernel
        """All that an iterator program writes, over the elements of *map* where its kind needs one."""
        link = self._iterators.get((program, map)) or self._link_iterator(program, map)
        fd = libbpf().bpf_iter_create(libbpf().bpf_link__fd(link))
        if fd < 0:
            raise Unsupported(program, f"cannot iterate: {os.strerror(-fd)}")
        try:
            return b"".join(_chunks(fd))
        except OSError as error:
            raise Unsupported(program, f"cannot iterate: {error.strerror}") from error
        finally:
            os.close(fd)

    def _link_iterator(self, program: str, over: str | None) -> int:
        target = None
        if over is not None:
            map_fd = ctypes.c_uint32(self.map_fd(over))
            target = ctypes.byref(
                IteratorTarget(ctypes.sizeof(IteratorTarget), ctypes.addressof(map_fd), ctypes.sizeof(map_fd))
            )
        with libbpf().messages() as messages:
            link = libbpf().bpf_program__attach_iter(self._programs[program], target)
            error = libbpf().error()
        if not link:
            raise refusal(program, error, messages)
        self._release.callback(libbpf().bpf_link__destroy, link)
        self._iterators[program, over] = link
        return int(link)

    # -- maps and variables

    def layout(self, struct: str) -> np.dtype[np.void]:
        """The dtype of a C struct of the object."""
        return self.btf.layout(struct)

    def map_fd(self, name: str) -> int:
        """The file descriptor of a map; the object keeps it."""
        return int(libbpf().bpf_map__fd(self._map_handle(name)))

    def map(self, name: str) -> Map:
        """A map by name."""
        handle = self._map_handle(name)
        value_bytes = libbpf().bpf_map__value_size(handle)
        if libbpf().bpf_map__type(handle) in _PER_CPU:
            value_bytes = -(-value_bytes // 8) * 8 * libbpf().libbpf_num_possible_cpus()
        return Map(
            name,
            libbpf().bpf_map__fd(handle),
            libbpf().bpf_map__key_size(handle),
            value_bytes,
            libbpf().bpf_map__max_entries(handle),
        )

    def has_map(self, name: str) -> bool:
        """Whether the object has a map *name*."""
        return bool(libbpf().bpf_object__find_map_by_name(self._handle, name.encode()))

    def bss(self, variable: str) -> Any:
        """A live, read-only view of a zero-initialised global: a structured scalar (`["seen"]` reads a member), or a
        0-d array (`int()` reads it). It stays readable, with its last value, after the object is released."""
        view = self._mapped(variable, ".bss", PROT_READ)
        return view[0] if view.dtype.names else view.reshape(())

    def data(self, variable: str) -> Any:
        """The same of a global of `.data`, which may be written while programs run."""
        view = self._mapped(variable, ".data", PROT_READ | PROT_WRITE)
        return view[0] if view.dtype.names else view.reshape(())

    def set(self, variable: str, value: int) -> None:
        """Sets a global of `.data`, which running programs read each time. Atomic: no integer is written in parts."""
        self._mapped(variable, ".data", PROT_READ | PROT_WRITE)[0] = value

    def _mapped(self, variable: str, section: str, protection: int) -> np.ndarray[Any, Any]:
        offset, kind = self.btf.variable(variable, section)
        handle = self._map_handle(section)
        length = -(-libbpf().bpf_map__value_size(handle) // PAGESIZE) * PAGESIZE
        memory = mmap(libbpf().bpf_map__fd(handle), length, MAP_SHARED, protection)
        return np.frombuffer(memory, kind, 1, offset)

    def _map_handle(self, name: str) -> int:
        handle = libbpf().bpf_object__find_map_by_name(self._handle, name.encode())
        if not handle:
            raise CannotRun(f"{self.path.name}: no map {name} in it")
        return int(handle)

    # -- what it costs

    def run_stats(self) -> dict[str, tuple[int, int]]:
        """Program → (nanoseconds, runs), which the kernel counts while bpf_stats are enabled."""
        stats = {name: _fdinfo(self._program_fd(name)) for name in self.programs}
        return {name: (found.get("run_time_ns", 0), found.get("run_cnt", 0)) for name, found in stats.items()}

    def memory_bytes(self) -> int:
        """Kernel memory of the object's maps and programs."""
        fds = [self._program_fd(name) for name in self.programs]
        handle = None
        while handle := libbpf().bpf_object__next_map(self._handle, handle):
            fds.append(libbpf().bpf_map__fd(handle))
        return sum(_fdinfo(fd).get("memlock", 0) for fd in fds if fd >= 0)

    def _program_fd(self, program: str) -> int:
        return int(libbpf().bpf_program__fd(self._programs[program]))


def _chunks(fd: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(fd, _READ_BYTES)
        except BlockingIOError:  # the kernel pauses after a million elements for which nothing was written: go on
            continue
        if not chunk:
            return
        yield chunk


def _fdinfo(fd: int) -> dict[str, int]:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(value) for name, value in pairs if value.strip().isdigit()}
