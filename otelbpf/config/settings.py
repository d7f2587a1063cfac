"""Every setting with its type, default, range and one line of meaning.

This is the only place where a setting is written: reading, errors, `config/otelbpf.yaml`, `docs/configuration.md` and
the JSON schema all follow from these classes. Durations are seconds, sizes bytes. Where the collector has a setting of
the same meaning, the name is the collector's.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

MIB = 2**20


def says(description: str, *, live: bool | None = None, **limits: Any) -> Meta:
    """What a setting means, in one line; *limits* are msgspec's (ge, le, min_length).

    *live* says whether a reload applies a change of it (False: it needs a restart); of a group it holds for all in it
    that do not say otherwise. Who makes a setting live lets its stage follow (`reload.py`).
    """
    return Meta(description=description, extra=None if live is None else {"live": live}, **limits)


def _quantity(name: str) -> Meta:
    return Meta(extra={"quantity": name})


Duration = Annotated[float, _quantity("duration")]
Size = Annotated[int, _quantity("size")]
MAX_LISTED = 512
"""Of ports and of addresses: two such lists fill a map of the kernel half."""
Cores = Annotated[float, Meta(ge=0.01, le=1024)]
RingSize = Annotated[int, _quantity("ring size"), Meta(ge=4096, le=1024 * MIB)]
"""Rounded up to a power of two on reading."""
Network = Annotated[str, _quantity("network")]
Secret = Annotated[str, _quantity("secret")]
"""Hidden wherever settings are shown."""
Port = Annotated[int, Meta(ge=1, le=65535)]
Signal = Literal["logs", "metrics", "traces"]
AttributeValue = str | int | float | bool | list[str]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of settings; nothing in it changes after it was read."""


class Throttle(Settings, frozen=True, kw_only=True):
    rate: Annotated[int, says("Events a second that are told one by one.", ge=1, le=10**7)]
    burst: Annotated[int, says("Events that may come at once.", ge=1, le=10**6)] = 1000


Throttling = Annotated[
    Literal["off"] | Throttle,
    says(
        "Events of one container, or other cgroup, a second and at once; any more are only counted; off: no limit.",
        live=True,
    ),
]


class TcpConnection(Settings, frozen=True, kw_only=True):
    enabled: Annotated[bool, says("Watch TCP connections.")] = True
    ring_size: Annotated[
        RingSize, says("Room for events on their way from the kernel, rounded up to a power of two.")
    ] = 2 * MIB
    throttle: Throttling = Throttle(rate=80_000, burst=40_000)
    max_tracked: Annotated[
        int,
        says(
            "Living connections counted at each snapshot; those beyond it are counted when they end.", ge=1024, le=2**22
        ),
    ] = 65536


class DnsLookup(Settings, frozen=True, kw_only=True):
    enabled: Annotated[bool, says("Watch DNS lookups.")] = True
    ring_size: Annotated[
        RingSize, says("Room for events on their way from the kernel, rounded up to a power of two.")
    ] = 4 * MIB
    throttle: Throttling = Throttle(rate=120_000, burst=60_000)
    ports: Annotated[
        tuple[Port, ...], says("Ports on which DNS is spoken, over UDP and TCP.", min_length=1, max_length=16)
    ] = (53,)
    timeout: Annotated[Duration, says("A lookup without an answer for this long is a timeout.", ge=0.1, le=60)] = 5.0
    max_pending: Annotated[
        int, says("Lookups that may wait for their answer at one time, on the whole node.", ge=64, le=2**20)
    ] = 16384


class Process(Settings, frozen=True, kw_only=True):
    enabled: Annotated[bool, says("Watch processes start and end.")] = True
    ring_size: Annotated[
        RingSize, says("Room for events on their way from the kernel, rounded up to a power of two.")
    ] = 1 * MIB
    throttle: Throttling = Throttle(rate=20_000, burst=1000)


class Probes(Settings, frozen=True, kw_only=True):
    tcp_connection: Annotated[TcpConnection, says("TCP connections: who, to whom, how much, how it ended.")] = (
        TcpConnection()
    )
    dns_lookup: Annotated[DnsLookup, says("DNS lookups: who asked what, the answer, how long it took.")] = DnsLookup()
    process: Annotated[Process, says("Processes: what was started by whom, how it ended.")] = Process()


class Globs(Settings, frozen=True, kw_only=True):
    include: Annotated[
        tuple[str, ...], says("Only these cgroups, by path with * and ?, such as /system.slice/*; empty: all.")
    ] = ()
    exclude: Annotated[tuple[str, ...], says("Never these cgroups.")] = ()


class Ports(Settings, frozen=True, kw_only=True):
    include: Annotated[
        tuple[Port, ...],
        says("Only connections with one of these ports at either end; empty: all.", max_length=MAX_LISTED),
    ] = ()
    exclude: Annotated[tuple[Port, ...], says("Never connections with one of these ports.", max_length=MAX_LISTED)] = ()


class Addresses(Settings, frozen=True, kw_only=True):
    include: Annotated[
        tuple[Network, ...],
        says("Only connections to these addresses, such as 10.0.0.0/8; empty: all.", max_length=MAX_LISTED),
    ] = ()
    exclude: Annotated[tuple[Network, ...], says("Never connections to these addresses.", max_length=MAX_LISTED)] = ()


class Filters(Settings, frozen=True, kw_only=True):
    exclude_self: Annotated[bool, says("Leave out what the agent itself does.", live=False)] = True
    cgroups: Annotated[Globs, says("By cgroup of the process.")] = Globs()
    ports: Annotated[Ports, says("By port, local or remote.")] = Ports()
    addresses: Annotated[Addresses, says("By address of the other end.")] = Addresses()


class Attributes(Settings, frozen=True, kw_only=True):
    legacy: Annotated[
        Literal["dup", "off"],
        says("dup: write net.peer.* and net.transport too, which older dashboards know; off: do not."),
    ] = "dup"


class Metrics(Settings, frozen=True, kw_only=True):
    interval: Annotated[Duration, says("Time between two exports.", live=True, ge=1, le=3600)] = 15.0
    max_series: Annotated[
        int, says("Series that one metric may have; any more are summed as overflow.", ge=1, le=10**7)
    ] = 5000
    series_ttl: Annotated[
        Duration, says("A series that has not changed for this long is forgotten.", live=True, ge=1, le=86400)
    ] = 300.0
    temporality: Annotated[
        Literal["cumulative", "delta"], says("cumulative: totals since the start; delta: since the last export.")
    ] = "cumulative"


class Slow(Settings, frozen=True, kw_only=True):
    slow: Annotated[Duration, says("Records of what failed, or took at least this long.", ge=0)]


LogPolicy = Literal["all", "failed", "off"] | Slow


class Logs(Settings, frozen=True, kw_only=True):
    tcp_connection: Annotated[LogPolicy, says("Records of TCP connections: all, failed, off, or {slow: 100ms}.")] = (
        "all"
    )
    dns_lookup: Annotated[LogPolicy, says("Records of lookups that processes here made.")] = "all"
    dns_server: Annotated[LogPolicy, says("Records of lookups that a DNS server here answered.")] = "off"
    process: Annotated[LogPolicy, says("Records of starts and ends of processes; slow: if they ran this long.")] = "all"
    event_name_attribute: Annotated[
        bool, says("Repeat the event's name as attribute otel.event.name, for stores that drop the field.")
    ] = True


class ConnectionId(Settings, frozen=True, kw_only=True):
    key: Annotated[Secret, says("Secret of the connection id; the same on every node, so that both ends agree.")] = ""


class Resource(Settings, frozen=True, kw_only=True):
    attributes: Annotated[
        dict[str, AttributeValue], says("Attributes of everything observed, such as deployment.environment.name.")
    ] = {}


class Kubernetes(Settings, frozen=True, kw_only=True):
    enabled: Annotated[
        Literal["auto"] | bool, says("Ask the API server for names; auto: in a pod or with a kubeconfig.")
    ] = "auto"
    kubeconfig: Annotated[str, says("The kubeconfig file; empty: the service account, else $KUBECONFIG.")] = ""
    context: Annotated[str, says("The context in the kubeconfig; empty: its current one.")] = ""
    node_name: Annotated[
        str,
        says("Name of this node at the API server; empty: the host's name, else that of our own pod's node."),
        Meta(extra={"variable": "NODE_NAME"}),
    ] = ""
    cluster_name: Annotated[str, says("k8s.cluster.name of everything here; a cluster does not know its own name.")] = (
        ""
    )
    peers: Annotated[
        Literal["auto", "pods", "endpoints", "off"],
        says("Name other ends by all pods, by the EndpointSlices of services, or not; auto: pods while they are few."),
    ] = "auto"
    max_peer_pods: Annotated[int, says("auto: endpoints, if the cluster has more pods than this.", ge=0, le=10**6)] = (
        5000
    )
    hold: Annotated[
        Duration,
        says(
            "How long a row waits for its pod to be known, and the start for the first lists; 0: not at all.",
            ge=0,
            le=60,
        ),
    ] = 2.0
    labels: Annotated[tuple[str, ...], says("Labels of pods to carry, by name with * and ?.")] = ()
    annotations: Annotated[tuple[str, ...], says("Annotations of pods to carry, by name with * and ?.")] = ()


class Tls(Settings, frozen=True, kw_only=True):
    insecure: Annotated[bool, says("true: plain text, without TLS.")] = False
    ca_file: Annotated[str, says("Certificates of the authorities to trust; empty: the system's.")] = ""
    cert_file: Annotated[str, says("Our own certificate, for a server that asks for one.")] = ""
    key_file: Annotated[str, says("The key of our own certificate.")] = ""
    server_name_override: Annotated[
        str, says("The name the server's certificate must bear; empty: the endpoint's.")
    ] = ""


class Retry(Settings, frozen=True, kw_only=True):
    enabled: Annotated[bool, says("Try again after a failure that may pass.")] = True
    initial_interval: Annotated[Duration, says("Wait before the first retry.", ge=0.001, le=3600)] = 5.0
    randomization_factor: Annotated[float, says("Share by which a wait varies at random.", ge=0, le=1)] = 0.5
    multiplier: Annotated[float, says("Growth of the wait from one retry to the next.", ge=1, le=100)] = 1.5
    max_interval: Annotated[Duration, says("Longest wait between two retries.", ge=0.001, le=3600)] = 30.0
    max_elapsed_time: Annotated[
        Duration, says("A request older than this is given up and counted; 0: never.", ge=0, le=86400)
    ] = 300.0


class SendingQueue(Settings, frozen=True, kw_only=True):
    max_bytes: Annotated[
        Size, says("Encoded requests that may wait, of each signal; the oldest is dropped and counted.", ge=4 * MIB)
    ] = 32 * MIB
    num_consumers: Annotated[
        int,
        says(
            "Requests under way at one time; with more than one they may arrive out of order.", live=False, ge=1, le=32
        ),
    ] = 1


class Spool(Settings, frozen=True, kw_only=True):
    directory: Annotated[
        str, says("Where what waits is kept on disk too, to outlive the agent; empty: nowhere.", live=False)
    ] = ""
    max_size: Annotated[
        Size, says("Room on disk of this exporter; the oldest is dropped and counted.", ge=16 * MIB)
    ] = 1024 * MIB
    max_age: Annotated[
        Duration, says("What is older is dropped and counted; replaces max_elapsed_time.", ge=1, le=2592000)
    ] = 86400.0


class Exporter(Settings, frozen=True, kw_only=True):
    """What all exporters have."""

    signals: Annotated[
        tuple[Signal, ...], says("What is sent there, in the words of the collector's pipelines.", min_length=1)
    ] = ("logs", "metrics", "traces")


class Otlp(Exporter, frozen=True, kw_only=True):
    """What both transports of OTLP have."""

    tls: Annotated[Tls, says("TLS; an endpoint with http:// is plain text.")] = Tls()
    headers: Annotated[dict[str, Secret], says("Headers of every request.")] = {}
    header_files: Annotated[
        dict[str, str], says("Headers whose values are in files; read again when they change.")
    ] = {}
    bearer_token_file: Annotated[
        str, says("File with the token of the header Authorization; read again when it changes.")
    ] = ""
    retry_on_failure: Annotated[Retry, says("What happens when the peer is away.")] = Retry()
    sending_queue: Annotated[SendingQueue, says("What may wait for the peer.")] = SendingQueue()
    spool: Annotated[Spool, says("What may wait on disk.")] = Spool()


class OtlpGrpc(Otlp, frozen=True, kw_only=True, tag="otlp_grpc"):
    endpoint: Annotated[str, says("Where to send, such as collector:4317 or http://127.0.0.1:4317.", min_length=1)]
    timeout: Annotated[Duration, says("A request without an answer for this long has failed.", ge=0.1, le=600)] = 5.0
    compression: Annotated[
        Literal["none", "gzip"],
        says("none costs no CPU time and suits a collector on the node; gzip saves bandwidth."),
    ] = "none"


class OtlpHttp(Otlp, frozen=True, kw_only=True, tag="otlp_http"):
    compression: Annotated[
        Literal["none", "gzip", "zstd"],
        says(
            "none costs no CPU time and suits a collector on the node; zstd saves bandwidth cheaply; gzip is understood everywhere."
        ),
    ] = "none"
    endpoint: Annotated[str, says("Where to send; /v1/logs and so on are added, such as https://collector:4318.")] = ""
    logs_endpoint: Annotated[str, says("The whole URL for log records; empty: endpoint with /v1/logs.")] = ""
    metrics_endpoint: Annotated[str, says("The whole URL for metrics; empty: endpoint with /v1/metrics.")] = ""
    traces_endpoint: Annotated[str, says("The whole URL for spans; empty: endpoint with /v1/traces.")] = ""
    timeout: Annotated[Duration, says("A request without an answer for this long has failed.", ge=0.1, le=600)] = 30.0


class Console(Exporter, frozen=True, kw_only=True, tag="console"):
    """One readable line an event on stdout."""

    signals: Annotated[tuple[Signal, ...], says("What is shown.", min_length=1)] = ("logs",)


EXPORTERS: dict[str, type[OtlpGrpc] | type[OtlpHttp] | type[Console]] = {
    "otlp_grpc": OtlpGrpc,
    "otlp_http": OtlpHttp,
    "console": Console,
}
OLDER_NAMES = {"otlp": "otlp_grpc", "otlphttp": "otlp_http"}
"""Names that collectors used before, and that files still hold."""


class Telemetry(Settings, frozen=True, kw_only=True):
    enabled: Annotated[bool, says("Send the agent's own metrics and events to the same endpoint.")] = True
    interval: Annotated[Duration, says("Time between two exports.", ge=1, le=3600)] = 15.0


class Health(Settings, frozen=True, kw_only=True):
    endpoint: Annotated[
        str,
        says("Where /healthz (its threads run) and /readyz (probes are attached) are answered; empty: nowhere."),
    ] = "127.0.0.1:13134"
    stuck_after: Annotated[
        Duration,
        says(
            "A stage at one piece of work for this long is stuck: logged, an event, and /healthz fails.", ge=1, le=3600
        ),
    ] = 60.0


class Config(Settings, frozen=True, kw_only=True):
    """The whole of it; `Config()` is what an empty file gives, before the standard variables are looked at."""

    probes: Annotated[Probes, says("What is watched.")] = Probes()
    filters: Annotated[Filters, says("What is left out; decided in the kernel where it can be.", live=True)] = Filters()
    attributes: Annotated[Attributes, says("How attributes are written.", live=True)] = Attributes()
    metrics: Annotated[Metrics, says("Metrics: made from every event.")] = Metrics()
    logs: Annotated[Logs, says("Log records: all, failed, off, or {slow: 100ms} = failed or slower.", live=True)] = (
        Logs()
    )
    connection_id: Annotated[ConnectionId, says("What both ends of a connection have in common.", live=True)] = (
        ConnectionId()
    )
    resource: Annotated[Resource, says("What is known of everything here.", live=True)] = Resource()
    kubernetes: Annotated[Kubernetes, says("Names of pods, workloads and services, from the API server.")] = (
        Kubernetes()
    )
    exporters: Annotated[
        dict[str, OtlpGrpc | OtlpHttp | Console],
        says("Where it goes; empty: OTLP to what OTEL_EXPORTER_OTLP_ENDPOINT names, else the console.", live=True),
    ] = {}
    telemetry: Annotated[Telemetry, says("The agent's signals about itself.", live=True)] = Telemetry()
    health: Annotated[Health, says("Whether the agent is alive and ready, over HTTP.")] = Health()
    memory_limit: Annotated[
        Literal["auto", "off"] | Annotated[Size, Meta(ge=96 * MIB)],
        says(
            "From 80 % of it queues, then log records are shed; auto: the limit of the agent's cgroup, if it has one."
        ),
        _quantity("size"),
    ] = "auto"
    cpu_limit: Annotated[
        Literal["auto", "off"] | Cores,
        says(
            "Cores, such as 0.2; beyond it records are sampled, then left out; auto: the quota of the agent's cgroup."
        ),
    ] = "auto"
    shutdown_timeout: Annotated[
        Duration, says("Longest time to send what is left when stopping.", live=True, ge=0, le=600)
    ] = 5.0
