"""Cgroups: which path an id stands for, from the moment it is made. A source that only teaches: no signal of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.probes.probe import Probe, Way

if TYPE_CHECKING:
    from otelbpf.batch import Batch
    from otelbpf.config import Config


class Prepare:
    """Rows are taken as they are."""

    undecodable = 0

    def __init__(self, _config: Config | None = None) -> None:
        pass

    def follow(self, config: Config) -> None:
        """It has no settings."""

    def __call__(self, batch: Batch) -> Batch:
        return batch


PROBE = Probe(
    name="cgroup",
    struct="cgroup_path",
    scope="otelbpf.cgroup",
    summary="which container or unit a cgroup belongs to, for all other probes",
    ways=(
        Way(
            "tp_btf",
            ("cgroup_made", "cgroup_removed"),
            optional=("cgroup_renamed",),
            lost={"cgroup_renamed": "new names of cgroups that are renamed (v1 only)"},
        ),
    ),
    prepare=Prepare,
    constants=lambda _config: {},
)
