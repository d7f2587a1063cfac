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


class Owner(Struct):
    kind: Name = ""
    name: Name = ""
    controller: bool | None = None


class Metadata(Struct, rename="camel"):
    """What every object says of itself. One without a name or a UID is none."""

    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    uid: Annotated[str, Meta(min_length=1, max_length=64)]
    namespace: Name = ""
    resource_version: Name = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Managed(Struct):
    """Whoever wrote some of an object's fields, and when last."""

    time: datetime | None = None


class ManagedMetadata(Metadata, rename="camel"):
    """Also of when the object was changed."""

    managed_fields: list[Managed] | None = None


class ListMetadata(Struct, rename="camel"):
    """What a list, and a bookmark, says of itself."""

    resource_version: Name = ""
    annotations: dict[str, str] | None = None
    remaining_item_count: int | None = None
    continue_: str = msgspec.field(name="continue", default="")


class Ended(Struct):
    container_id: Name = msgspec.field(name="containerID", default="")


class ContainerState(Struct):
    terminated: Ended | None = None


class ContainerStatus(Struct, rename="camel"):
    name: Name = ""
    container_id: Text = msgspec.field(name="containerID", default=None)
    image: Text = None
    restart_count: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class ContainerSpec(Struct):
    name: Name = ""
    image: Text = None


class PodSpec(Struct, rename="camel"):
    node_name: Text = None
    host_network: bool | None = None
    containers: list[ContainerSpec] | None = None
    init_containers: list[ContainerSpec] | None = None
    ephemeral_containers: list[ContainerSpec] | None = None


class Address(Struct):
    ip: Text = None
    hostname: Text = None


class PodStatus(Struct, rename="camel"):
    phase: Text = None
    pod_ip: Text = msgspec.field(name="podIP", default=None)
    pod_ips: list[Address] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class PodObject(Struct):
    metadata: Metadata
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class PeerPodSpec(Struct, rename="camel"):
    node_name: Text = None
    host_network: bool | None = None


class PeerPodStatus(Struct, rename="camel"):
    phase: Text = None
    pod_ip: Text = msgspec.field(name="podIP", default=None)
    pod_ips: list[Address] | None = msgspec.field(name="podIPs", default=None)


class PeerPodObject(Struct):
    """A pod somewhere in the cluster: its containers do not matter."""

    metadata: Metadata
    spec: PeerPodSpec = msgspec.field(default_factory=PeerPodSpec)
    status: PeerPodStatus = msgspec.field(default_factory=PeerPodStatus)


class ServicePort(Struct, rename="camel"):
    port: Port = 0
    node_port: Port | None = None


class ServiceSpec(Struct, rename="camel"):
    type: Name = ""
    cluster_ip: Text = msgspec.field(name="clusterIP", default=None)
    cluster_ips: list[Name] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[Name] | None = msgspec.field(name="externalIPs", default=None)
    external_name: Text = None
    ports: list[ServicePort] | None = None


class LoadBalancer(Struct):
    ingress: list[Address] | None = None


class ServiceStatus(Struct, rename="camel"):
    load_balancer: LoadBalancer | None = None


class ServiceObject(Struct):
    metadata: Metadata
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class NodeAddress(Struct):
    type: Name = ""
    address: Name = ""


class NodeStatus(Struct):
    addresses: list[NodeAddress] | None = None


class NodeSpec(Struct):
    pod_cidr: Text = msgspec.field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class NodeObject(Struct):
    metadata: Metadata
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class TargetRef(Struct):
    kind: Name = ""
    name: Name = ""
    namespace: Name = ""
    uid: Name = ""


class Endpoint(Struct, rename="camel"):
    addresses: list[Name] | None = None
    node_name: Text = None
    target_ref: TargetRef | None = None


class EndpointPort(Struct):
    port: int | None = None


class SliceObject(Struct):
    """An EndpointSlice."""

    metadata: ManagedMetadata
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Told(Struct, Generic[Kind]):
    """One line of a watch."""

    type: Name
    object: Kind


class Mark(Struct):
    """What a BOOKMARK holds."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)


class AnyObject(Struct):
    """What every object has."""

    metadata: Metadata


class Refusal(Struct):
    """A Status object: what the API server says when it will not."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Page(Struct):
    """A list, or a part of one. Its objects are decoded one by one: if one is garbage, the others are not."""

    metadata: ListMetadata = msgspec.field(default_factory=ListMetadata)
    items: list[Raw] | None = None


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Reads one kind of object from JSON."""
    return msgspec.json.Decoder(kind)
