"""What the user does not want to see, on its two sides: lists that the kernel looks at, and cgroups by their path.

Ports, addresses and the agent itself are decided in the kernel, and so are the excluded cgroups that exist when the
agent starts. A cgroup that comes later, or a list of those to include, is decided in the line: the kernel would lose
the first events of a new cgroup that should be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from otelbpf.probes.filters import EXCLUDE, INCLUDE, cgroup_verdict, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otelbpf.batch import Batch
    from otelbpf.config import Config
    from otelbpf.enrich.machine import Answers
    from otelbpf.kernel.object import Object

REMEMBERED_CGROUPS = 16384
CGROUP_PROBE = "cgroup"


def kernel_filters(config: Config, machine: Answers) -> Callable[[Object], None]:
    """What makes the filters of a loaded object those of *config*; it passes over an object that has none, and raises
    OtelbpfError when the kernel does not take an entry. The cgroups are those there are now."""
    cgroups = machine.cgroup_walk() if config.filters.cgroups.exclude else ()

    def fill_filters(loaded: Object) -> None:
        if loaded.has_map("filter_ports"):
            fill(loaded, config, cgroups)

    return fill_filters


class CgroupFilter:
    """Drops the rows whose cgroup the user does not want. Learns from the kernel's feed, else asks the machine."""

    def __init__(self, config: Config, machine: Answers) -> None:
        self._machine = machine
        self._wanted: LRUCache[int, bool] = LRUCache(REMEMBERED_CGROUPS)
        self._walked = False
        self._use(config)

    def follow(self, config: Config) -> None:
        """Other lists from now on, for the cgroups that there are and for new ones."""
        if config.filters.cgroups == self._config.filters.cgroups:
            return
        self._use(config)
        self._wanted.clear()
        self._walk()

    def learn(self, batches: Iterable[Batch]) -> None:
        """Takes in the cgroups that were made; the first time also those that exist, as the kernel then reports new ones."""
        if self._in_use and not self._walked:
            self._walk()
        for batch in batches if self._in_use else ():
            if batch.probe == CGROUP_PROBE:
                for cgroup_id, path in zip(batch.rows["cgroup_id"].tolist(), batch.rows["path"].tolist(), strict=True):
                    self._wanted[cgroup_id] = self._is_wanted_path(path.decode(errors="replace"))

    def keep(self, batch: Batch) -> Batch:
        """The wanted rows of *batch*; the same batch where no list is set or the rows have no owner."""
        if not self._in_use or batch.probe == CGROUP_PROBE:
            return batch
        ids, first, codes = np.unique(batch.number("cgroup_id"), return_index=True, return_inverse=True)
        pids = batch.number("pid")[first]
        wanted = np.fromiter(map(self._is_wanted, ids.tolist(), pids.tolist()), np.bool_, len(ids))
        return batch if wanted.all() else batch.select(wanted[codes])

    def _walk(self) -> None:
        self._walked = self._in_use
        for cgroup_id, path in self._machine.cgroup_walk() if self._in_use else ():
            self._wanted[cgroup_id] = self._is_wanted_path(path)

    def _use(self, config: Config) -> None:
        self._config = config
        self._includes = bool(config.filters.cgroups.include)
        self._in_use = self._includes or bool(config.filters.cgroups.exclude)

    def _is_wanted(self, cgroup_id: int, pid: int) -> bool:
        known = self._wanted.get(cgroup_id)
        if known is None:
            path = self._machine.cgroup_path(cgroup_id, pid)
            if path is None:
                return not self._includes
            known = self._wanted[cgroup_id] = self._is_wanted_path(path)
        return known

    def _is_wanted_path(self, path: str) -> bool:
        verdict = cgroup_verdict(self._config, path)
        return verdict == INCLUDE if self._includes else verdict != EXCLUDE
