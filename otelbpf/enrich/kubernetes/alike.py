"""Who pods at the other end are, worked out once for all that say the same, as the pods of a workload do.

A list of the whole cluster is thousands of pods of some hundred workloads: to decode what each says of its workload, and
to follow the rules for it, would be half of what the list costs.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from otelbpf.enrich.kubernetes import identity

if TYPE_CHECKING:
    from otelbpf.enrich.kubernetes.objects import RawMetadata

WORKLOADS, WORDS_BYTES = 512, 4096
"""Remembered at most, and how many bytes each may have said. A list has the pods of a workload together."""
OF_MANY = ("Deployment", "Rollout", "ReplicaSet", "StatefulSet", "DaemonSet")
"""Workloads whose pods are of them whatever their own names are and whenever they were made."""
SAYS = identity.ATTRIBUTE_ANNOTATION.encode()
UNICODE, SLASH = b"\\u", b"\\/"
"""The two ways of JSON to write the letters of an annotation's name as something else."""


class Who(NamedTuple):
    """What is said of a pod at the other end."""

    workload_kind: str
    workload_name: str
    service_name: str
    service_namespace: str


class Alike:
    """Pods → who they are."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, bytes, bytes], Who] = {}

    def who(self, metadata: RawMetadata) -> Who:
        """Raises one of objects.UNREADABLE."""
        says = metadata.namespace, bytes(metadata.labels), bytes(metadata.owner_references), _that_count(metadata)
        known = self._known.get(says)
        return known if known is not None else self._worked_out(metadata, says)

    def _worked_out(self, metadata: RawMetadata, says: tuple[str, bytes, bytes, bytes]) -> Who:
        workload, service, namespace = identity.peer_of(metadata.read())
        who = Who(intern(workload.kind), intern(workload.name), intern(service), intern(namespace))
        if workload.kind in OF_MANY and sum(map(len, says)) <= WORDS_BYTES:
            if len(self._known) >= WORKLOADS:
                self._known.clear()
            self._known[says] = who
        return who


def _that_count(metadata: RawMetadata) -> bytes:
    """The annotations, if any of them may tell who the pod is; most are notes of network plug-ins, different on each."""
    said = bytes(metadata.annotations)
    return said if SAYS in said or UNICODE in said or SLASH in said else b""
