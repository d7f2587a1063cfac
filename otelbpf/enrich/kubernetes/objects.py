"""What is read of the API server's objects: only these fields are decoded, the rest of the JSON is skipped over."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the types
from typing import Any

import msgspec
from msgspec import Raw, Struct

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
Text = str | None
"""The API writes null, an empty text or nothing for the same."""


class Owner(Struct):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class Metadata(Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None
    remaining_item_count: int | None = None
    continue_: str = msgspec.field(name="continue", default="")


class Ended(Struct):
    container_id: str = msgspec.field(name="containerID", default="")


class ContainerState(Struct):
    terminated: Ended | None = None


class ContainerStatus(Struct, rename="camel"):
    name: str = ""
    container_id: Text = msgspec.field(name="containerID", default=None)
    image: Text = None
    restart_count: int | None = None
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class ContainerSpec(Struct):
    name: str = ""
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
    metadata: Metadata = msgspec.field(default_factory=Metadata)
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

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PeerPodSpec = msgspec.field(default_factory=PeerPodSpec)
    status: PeerPodStatus = msgspec.field(default_factory=PeerPodStatus)


class ServicePort(Struct, rename="camel"):
    port: int = 0
    node_port: int | None = None


class ServiceSpec(Struct, rename="camel"):
    type: str = ""
    cluster_ip: Text = msgspec.field(name="clusterIP", default=None)
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    external_name: Text = None
    health_check_node_port: int | None = None
    ports: list[ServicePort] | None = None


class LoadBalancer(Struct):
    ingress: list[Address] | None = None


class ServiceStatus(Struct, rename="camel"):
    load_balancer: LoadBalancer | None = None


class ServiceObject(Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class NodeAddress(Struct):
    type: str = ""
    address: str = ""


class NodeStatus(Struct):
    addresses: list[NodeAddress] | None = None


class NodeSpec(Struct):
    pod_cidr: Text = msgspec.field(name="podCIDR", default=None)
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class NodeObject(Struct):
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class TargetRef(Struct):
    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""


class Endpoint(Struct, rename="camel"):
    addresses: list[str] | None = None
    node_name: Text = None
    target_ref: TargetRef | None = None


class SliceObject(Struct):
    """An EndpointSlice."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    endpoints: list[Endpoint] | None = None


class Told(Struct):
    """One line of a watch; the object is decoded when its type is known."""

    type: str = ""
    object: Raw = Raw(b"{}")


class Mark(Struct):
    """What a BOOKMARK holds."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)


class Refusal(Struct):
    """A Status object: what the API server says when it will not."""

    code: int = 0
    reason: str = ""
    message: str = ""


class Page(Struct):
    """A list, or a part of one."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    items: list[Raw] | None = None


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Reads one kind of object from JSON."""
    return msgspec.json.Decoder(kind)
