"""The other end of every way into, through and out of a cluster, whole, at both ends where both are here."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.collector import Collector
from tests.e2e.netns import ip
from tests.e2e.polling import wait_for
from tests.e2e.processes import dnsmasq
from tests.kubernetes.cluster import NODES, SERVICES, SLICES, Objects, owned
from tests.kubernetes.node import NodeAgent, NodeNetwork, Place
from tests.kubernetes.pods import Container
from tests.kubernetes.test_names import WATCHES, answered, settings
from tests.peers.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.otlp_json import Record

NODE, OTHER = "peers-node", "other-peers-node"
PORT, NODE_PORT, HOST_PORT, ON_HOST = 8080, 30080, 8081, 9100
OUTSIDE, BALANCER, UNKNOWN = "198.51.100.1", "198.51.100.2", "198.51.100.3"
EXTERNAL_IP, BALANCER_IP = "203.0.113.50", "203.0.113.51"
OTHER_NODE, OTHER_POD = "172.31.77.2", "10.252.7.9"
BY_KUBE_PROXY = """
table ip kube {{
  chain services {{
    ip daddr {{ {cluster4}, {external}, {balancer} }} tcp dport 80 dnat to {cart4}:{port}
    ip daddr {host4} tcp dport {{ {node_port}, {host_port} }} dnat to {cart4}:{port}
    ip daddr {by_hand4} tcp dport 80 dnat to {outside}:443
  }}
  chain before {{ type nat hook prerouting priority dstnat; jump services; }}
  chain here {{ type nat hook output priority -100; jump services; }}
  chain after {{
    type nat hook postrouting priority srcnat
    ct original ip daddr {host4} ct status dnat masquerade
    ip saddr {cart4} ip daddr {cart4} masquerade
  }}
}}
table ip6 kube {{
  chain before {{
    type nat hook prerouting priority dstnat
    ip6 daddr {cluster6} tcp dport 80 dnat to [{cart6}]:{port}
  }}
}}
"""


class World(NamedTuple):
    """What the ways lead through."""

    namespace: str
    front: Place
    cart: Place
    host: Place
    cluster4: str
    cluster6: str
    by_hand4: str
    """Of a service without a selector, whose EndpointSlice a person has written: what is behind it is outside."""
    uids: dict[str, str]
    peers: str

    def pod(self, name: str) -> dict[str, Any]:
        """All that is said of one of our pods."""
        if self.peers == "endpoints":
            return self.endpoint(name)
        return {
            "otelbpf.peer.type": "pod",
            "otelbpf.peer.k8s.namespace.name": self.namespace,
            "otelbpf.peer.k8s.workload.name": name,
            "otelbpf.peer.k8s.workload.kind": "Deployment",
            "otelbpf.peer.k8s.pod.name": f"{name}-7d9f-a",
            "otelbpf.peer.k8s.pod.uid": self.uids[name],
            "otelbpf.peer.k8s.node.name": NODE,
            "service.peer.name": name,
            "service.peer.namespace": self.namespace,
        }

    def endpoint(self, name: str) -> dict[str, Any]:
        """The same where only EndpointSlices tell of pods: of one behind no service that it is one of that node's."""
        network = {"otelbpf.peer.type": "pod", "otelbpf.peer.k8s.node.name": NODE}
        if name != "cart":
            return network
        return network | {
            "otelbpf.peer.k8s.namespace.name": self.namespace,
            "otelbpf.peer.k8s.service.name": "basket",
            "otelbpf.peer.k8s.pod.name": f"{name}-7d9f-a",
            "otelbpf.peer.k8s.pod.uid": self.uids[name],
            "service.peer.name": "basket",
            "service.peer.namespace": self.namespace,
        }

    def alias(self, name: str) -> dict[str, Any]:
        """All that is said of a service of which nobody tells who is behind it."""
        return {
            "otelbpf.peer.type": "service",
            "otelbpf.peer.k8s.namespace.name": self.namespace,
            "otelbpf.peer.k8s.service.name": name,
            "service.peer.name": name,
            "service.peer.namespace": self.namespace,
        }

    def service(self, backend: str) -> dict[str, Any]:
        """The service with the pod behind it."""
        return {**self.pod("cart"), **self.alias("basket"), **through(backend, PORT)}


def through(address: str, port: int) -> dict[str, Any]:
    return {"otelbpf.nat.peer.address": address, "otelbpf.nat.peer.port": port}


ON_NODE = {"otelbpf.peer.type": "host", "otelbpf.peer.k8s.node.name": NODE}


class Way(NamedTuple):
    """A connection: who dials what, and what both ends then say of each other, without the address that they see."""

    client: str
    host: str
    port: int
    at_client: dict[str, Any]
    at_server: dict[str, Any] | None = None
    sees: str = ""
    """The address that the client sees, if it dials a name."""


def ways(world: World) -> dict[str, Way]:
    cart, host = world.cart, world.host
    by_service = world.service(cart.ipv4)
    masked = world.pod("front")
    # A private address, which a pod that no service selects may have: then nobody tells of it.
    stranger = {"otelbpf.peer.type": "external"} if world.peers == "pods" else {}
    alias = f"partner.{world.namespace}.svc.cluster.local"
    return {
        "pod, IPv4": Way("front", cart.ipv4, PORT, world.pod("cart"), world.pod("front")),
        "pod, IPv6": Way("front", cart.ipv6, PORT, world.pod("cart"), world.pod("front")),
        "headless service": Way("front", "cart-0.example.com", PORT, world.pod("cart"), world.pod("front"), cart.ipv4),
        "cluster IP, IPv4": Way("front", world.cluster4, 80, by_service, world.pod("front")),
        "cluster IP, IPv6": Way("front", world.cluster6, 80, world.service(cart.ipv6), world.pod("front")),
        "external IP": Way("front", EXTERNAL_IP, 80, by_service, world.pod("front")),
        "load balancer's IP": Way("front", BALANCER_IP, 80, by_service, world.pod("front")),
        "load balancer's name": Way("front", "lb.example.com", 443, world.alias("basket"), None, BALANCER),
        "node port": Way("front", host.ipv4, NODE_PORT, by_service, masked | {"port": "client"}),
        "node port, from outside": Way("outside", host.ipv4, NODE_PORT, by_service, stranger | {"port": "client"}),
        "host port": Way(
            "front", host.ipv4, HOST_PORT, world.pod("cart") | through(cart.ipv4, PORT), masked | {"port": "client"}
        ),
        "service without a selector": Way(
            "front", world.by_hand4, 80, world.alias("by-hand") | through(OUTSIDE, 443), None
        ),
        "hairpin": Way("cart", world.cluster4, 80, by_service, world.pod("cart") | {"port": "client"}),
        "external name": Way("front", alias, 443, world.alias("partner"), None, OUTSIDE),
        "from the host": Way("on-host", cart.ipv4, PORT, world.pod("cart"), ON_NODE),
        "from the host, cluster IP": Way("on-host", world.cluster4, 80, by_service, ON_NODE),
        "to a pod on the host's network": Way("front", host.ipv4, ON_HOST, ON_NODE, world.pod("front")),
        "another node": Way(
            "front", OTHER_NODE, 443, {"otelbpf.peer.type": "node", "otelbpf.peer.k8s.node.name": OTHER}
        ),
        "a pod there that nobody tells of": Way(
            "front", OTHER_POD, 443, {"otelbpf.peer.type": "pod", "otelbpf.peer.k8s.node.name": OTHER}
        ),
        "outside": Way("front", UNKNOWN, 443, {"otelbpf.peer.type": "external"}),
        "loopback, the number of a node port": Way("front", "127.0.0.1", NODE_PORT, {"otelbpf.peer.type": "loopback"}),
    }


NOWHERE = Place("", "", "")
WAYS = tuple(ways(World("", NOWHERE, NOWHERE, NOWHERE, "", "", "", {"front": "", "cart": ""}, "pods")))
KINDS = ("otelbpf.peer.", "service.peer.", "otelbpf.nat.")


class Session(NamedTuple):
    """What was done, by name of the way, with the port that each connection came from; and who heard of it."""

    collector: Collector
    gone: dict[str, tuple[Way, int]]


@pytest.fixture(scope="module", params=["pods", "endpoints"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Each way is gone once."""
    directory = tmp_path_factory.mktemp("peers")
    with ExitStack() as open_:
        server = open_.enter_context(ApiServer(directory))
        objects = Objects(server)
        network = open_.enter_context(NodeNetwork())
        collector = open_.enter_context(Collector(directory))
        for port in (collector.ports["grpc"], server.port):
            network.lead(port)
        world, containers = built(request.param, network, objects, directory, open_)
        told = settings(collector, server, NODE, peers=request.param)
        open_.enter_context(NodeAgent(directory, told, network))
        wanted = {"pods", "services", "nodes", WATCHES[request.param]}
        wait_for(lambda: answered(collector) >= wanted, "the first lists")
        gone = {name: (way, containers[way.client].talk(way.host, way.port)) for name, way in ways(world).items()}
        yield Session(collector, gone)


def built(
    peers: str, network: NodeNetwork, objects: Objects, directory: Any, open_: ExitStack
) -> tuple[World, dict[str, Container]]:
    """The cluster as the API server has it, and as it runs."""
    namespace = "peers"
    objects.namespace(namespace)
    for node, addresses, networks in (
        (NODE, (network.host.ipv4, network.host.ipv6), network.of_two_pods),
        (OTHER, (OTHER_NODE,), ["10.252.7.0/24"]),
    ):
        objects.node(node, *addresses)
        spec = {"podCIDR": networks[0], "podCIDRs": networks}
        objects.call("PATCH", f"{NODES}/{node}", {"spec": spec}, "application/merge-patch+json")
    front, cart = network.pod(), network.pod()
    away = network.pod(OUTSIDE, BALANCER, UNKNOWN, OTHER_NODE, OTHER_POD)
    ip("-n", network.host.namespace, "route", "add", "default", "via", away.ipv4)
    uids, containers = {}, {}
    for name, place in (("front", front), ("cart", cart)):
        metadata = owned("ReplicaSet", f"{name}-7d9f", **{"pod-template-hash": "7d9f"})
        uids[name] = objects.pod(namespace, f"{name}-7d9f-a", NODE, metadata=metadata)
        containers[name] = open_.enter_context(Container(uids[name], place.namespace))
        addresses = [{"ip": place.ipv4}, {"ip": place.ipv6}]
        objects.running(namespace, f"{name}-7d9f-a", place.ipv4, {"app": containers[name].id}, podIPs=addresses)
    for name, place in (("on-host", network.host), ("outside", away)):
        uid = objects.pod(namespace, name, NODE, hostNetwork=True)
        containers[name] = open_.enter_context(Container(uid, place.namespace))
        objects.running(namespace, name, network.host.ipv4, {"app": containers[name].id})
    world = World(namespace, front, cart, network.host, *services(objects, namespace), uids, peers)
    slices(objects, world)
    network.rules(
        BY_KUBE_PROXY.format(
            cluster4=world.cluster4, cluster6=world.cluster6, external=EXTERNAL_IP, balancer=BALANCER_IP,
            cart4=cart.ipv4, cart6=cart.ipv6, host4=network.host.ipv4, port=PORT, node_port=NODE_PORT,
            host_port=HOST_PORT, by_hand4=world.by_hand4, outside=OUTSIDE,
        ),
        directory,
    )  # fmt: skip
    for address in (cart.ipv4, cart.ipv6):
        containers["cart"].serve(address, PORT)
    for address in (OUTSIDE, BALANCER, UNKNOWN, OTHER_NODE, OTHER_POD):
        containers["outside"].serve(address, 443)
    containers["on-host"].serve(network.host.ipv4, ON_HOST)
    containers["front"].serve("127.0.0.1", NODE_PORT)
    words = (
        f"listen-address={network.host.ipv4}", "bind-interfaces", f"host-record=partner.example.com,{OUTSIDE}",
        f"host-record=lb.example.com,{BALANCER}", f"host-record=cart-0.example.com,{cart.ipv4}",
        f"cname=partner.{namespace}.svc.cluster.local,partner.example.com",
    )  # fmt: skip
    open_.enter_context(dnsmasq(network.host.namespace, directory, *words))
    return world, containers


def services(objects: Objects, namespace: str) -> tuple[str, str, str]:
    """All services; gives the two cluster IPs of the one with a backend, and that of the one without a selector."""
    made = objects.service(
        namespace, "basket", type="LoadBalancer", externalIPs=[EXTERNAL_IP], ipFamilyPolicy="RequireDualStack",
        ports=[{"port": 80, "targetPort": PORT, "nodePort": NODE_PORT}],
    )  # fmt: skip
    ingress = [{"ip": BALANCER_IP, "ipMode": "VIP"}, {"hostname": "lb.example.com"}]
    objects.patch_status(f"{SERVICES.format(namespace)}/basket", {"loadBalancer": {"ingress": ingress}})
    objects.service(namespace, "cart-headless", clusterIP="None")
    objects.service(namespace, "partner", type="ExternalName", externalName="partner.example.com", ports=[])
    objects.namespace(f"other-{namespace}")  # another that stands for the same host
    objects.service(f"other-{namespace}", "partner", type="ExternalName", externalName="partner.example.com", ports=[])
    cluster4, cluster6 = sorted(made["spec"]["clusterIPs"], key=lambda address: ":" in address)
    by_hand = objects.service(namespace, "by-hand")
    return cluster4, cluster6, by_hand["spec"]["clusterIP"]


def slices(objects: Objects, world: World) -> None:
    """What the controller makes of services: the pod behind ours, and one on the host's network behind another."""
    for service, family, address, pod in (
        ("basket", "IPv4", world.cart.ipv4, "cart-7d9f-a"), ("basket", "IPv6", world.cart.ipv6, "cart-7d9f-a"),
        ("exporter", "IPv4", world.host.ipv4, "on-host"),
    ):  # fmt: skip
        target = {
            "kind": "Pod", "namespace": world.namespace, "name": pod, "uid": world.uids.get(pod.partition("-")[0], "0"),
        }  # fmt: skip
        endpoint = {"addresses": [address], "nodeName": NODE, "targetRef": target, "conditions": {"ready": True}}
        metadata = {"name": f"{service}-{family.lower()}", "labels": {"kubernetes.io/service-name": service}}
        body = {"metadata": metadata, "addressType": family, "endpoints": [endpoint], "ports": []}
        objects.call("POST", SLICES.format(world.namespace), body)
    by_hand = {"metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "by-hand"}}, "ports": []}
    by_hand |= {"addressType": "IPv4", "endpoints": [{"addresses": [OUTSIDE]}]}
    objects.call("POST", SLICES.format(world.namespace), by_hand)


def ends(collector: Collector, way: Way, port: int) -> tuple[Record, Record | None]:
    """The records of the client's and, if it is one of ours, of the server's end."""
    pod_name = {"front": "front-7d9f-a", "cart": "cart-7d9f-a"}.get(way.client, way.client)
    wanted = {"network.tcp.handshake.role": "client", "network.local.port": port, "network.peer.port": way.port}

    def is_client(record: Record) -> bool:
        return record.resource.get("k8s.pod.name") == pod_name and wanted.items() <= record.attributes.items()

    (client,) = collector.wait_for_records(is_client, 1)
    if way.at_server is None:
        return client, None
    both = {"network.tcp.handshake.role": "server", "otelbpf.connection.id": client["otelbpf.connection.id"]}
    (server,) = collector.wait_for_records(lambda record: both.items() <= record.attributes.items(), 1)
    return client, server


def about_peer(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.attributes.items() if name.startswith(KINDS)}


@pytest.mark.parametrize("name", WAYS)
def test_the_way(seen, name):
    way, port = seen.gone[name]
    client, server = ends(seen.collector, way, port)
    assert about_peer(client) == way.at_client
    assert client["network.peer.address"] == (way.sees or way.host)
    if server is None:
        return
    wanted = dict(way.at_server)
    if wanted.pop("port", "") or server["client.port"] != port:  # masked: the true client and its port
        wanted |= through(str(client["network.local.address"]), port)
    assert about_peer(server) == wanted
