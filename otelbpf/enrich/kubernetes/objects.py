"""What is read of the API server's objects: only these fields are decoded, the rest of the JSON is skipped over.

Values have bounds where the API has some, so that a server that is none cannot make us keep what it likes.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for what is no JSON, or not of that kind: arrays in arrays without end among them."""

Name = Annotated[str, Meta(max_length=1024)]
"""The API's own names have at most 253 characters; images and host names may have more."""
Text = Name | None
"""The API writes null, an empty text or nothing for the same."""
Port = Annotated[int, Meta(ge=0, le=65_535)]
Kind = TypeVar("Kind")


class Part(Struct, gc=False):
    """What is decoded is a tree that lives for a moment: there is no cycle in it to collect."""


class Owner(Part):
    kind: Name = ""
    name: Name = ""
    controller: bool | None = None


class Identified(Part, rename="camel"):
    """What every object says of itself. One without a name or a UID is none."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    uid: Annotated[str, Meta(min_length=1, max_length=64)]
    namespace: Name = ""
    resource_version: Name = ""
    creation_timestamp: datetime | None = None


class Metadata(Identified, rename="camel"):
    """What an object says of itself, all of it."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class RawMetadata(Identified, rename="camel"):
    """What tells the workload of a pod as JSON still: most pods of a workload say the same."""

    labels: Raw = Raw(b"null")
    annotations: Raw = Raw(b"null")
    owner_references: Raw = Raw(b"null")

    def read(self) -> Metadata:
        """All that it says. Raises one of UNREADABLE."""
        return Metadata(
            self.name,
            self.uid,
            self.namespace,
            self.resource_version,
            self.creation_timestamp,
            _TEXTS.decode(self.labels),
            _TEXTS.decode(self.annotations),
            _OWNERS.decode(self.owner_references),
        )


class Managed(Part):
    """Whoever wrote some of an object's fields, and when last."""

    time: datetime | None = None


class ManagedMetadata(Metadata, rename="camel"):
    """Also of when the object was changed."""

    managed_fields: list[Managed] | None = None


class ListMetadata(Part, rename="camel"):
    """What a list, and a bookmark, says of itself."""

    resource_version: Name = ""
    annotations: dict[str, str] | None = None
    remaining_item_count: int | None = None
    continue_: str = msgspec.field(name="continue", default="")


class Ended(Part):
    container_id: Name = msgspec.field(name="containerID", default="")


class ContainerState(Part):
    terminated: Ended | None = None


class ContainerStatus(Part, rename="camel"):
    name: Name = ""
    container_id: Text = msgspec.field(name="containerID", default=None)
    image: Text = None
    restart_count: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class ContainerSpec(Part):
    name: Name = ""
    image: Text = None


class PodSpec(Part, rename="camel"):
    node_name: Text = None
    host_network: bool | None = None
    containers: list[ContainerSpec] | None = None
    init_containers: list[ContainerSpec] | None = None
    ephemeral_containers: list[ContainerSpec] | None = None


class Address(Part):
    ip: Text = None
    hostname: Text = None


class PodStatus(Part, rename="camel"):
    phase: Text = None
    pod_ip: Text = msgspec.field(name="podIP", default=None)
    pod_ips: list[Address] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class PodObject(Part):
    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class PeerPodSpec(Part, rename="camel"):
    node_name: Text = None
    host_network: bool | None = None


class PeerPodStatus(Part, rename="camel"):
    phase: Text = None
    start_time: datetime | None = None
    pod_ip: Text = msgspec.field(name="podIP", default=None)
    pod_ips: list[Address] | None = msgspec.field(name="podIPs", default=None)


class PeerPodObject(Part):
    """A pod somewhere in the cluster: its containers do not matter."""

    metadata: RawMetadata
    spec: PeerPodSpec = msgspec.field(default_factory=PeerPodSpec)
    status: PeerPodStatus = msgspec.field(default_factory=PeerPodStatus)


class ServicePort(Part, rename="camel"):
    port: Port = 0
    node_port: Port | None = None


class ServiceSpec(Part, rename="camel"):
    type: Name = ""
    cluster_ip: Text = msgspec.field(name="clusterIP", default=None)
    cluster_ips: list[Name] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[Name] | None = msgspec.field(name="externalIPs", default=None)
    external_name: Text = None
    ports: list[ServicePort] | None = None


class LoadBalancer(Part):
    ingress: list[Address] | None = None


class ServiceStatus(Part, rename="camel"):
    load_balancer: LoadBalancer | None = None


class ServiceObject(Part):
    metadata: Metadata
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class NodeAddress(Part):
    type: Name = ""
    address: Name = ""


class NodeStatus(Part):
    addresses: list[NodeAddress] | None = None


class NodeSpec(Part):
    pod_cidr: Text = msgspec.field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class NodeObject(Part):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class TargetRef(Part):
    kind: Name = ""
    name: Name = ""
    namespace: Name = ""
    uid: Name = ""


class Endpoint(Part, rename="camel"):
    addresses: list[Name] | None = None
    node_name: Text = None
    target_ref: TargetRef | None = None


class EndpointPort(Part):
    port: int | None = None


class SliceObject(Part):
    """An EndpointSlice."""

    metadata: ManagedMetadata
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Told(Part, Generic[Kind]):
    """One line of a watch."""

    type: Name
    object: Kind


class Mark(Part):
    """What a BOOKMARK holds."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)


class AnyObject(Part):
    """What every object has."""

    metadata: Metadata


class Refusal(Part):
    """A Status object: what the API server says when it will not."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Page(Part):
    """A list, or a part of one. Its objects are decoded one by one: if one is garbage, the others are not."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)
    items: list[Raw] | None = None


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Reads one kind of object from JSON."""
    return msgspec.json.Decoder(kind)


_TEXTS = decoder(dict[str, str] | None)
_OWNERS = decoder(list[Owner] | None)
