"""Every name that leaves the agent, once: attributes, events, metrics, scopes.

A constant is its name in capitals with dots as underscores; events begin with EVENT_, metrics with METRIC_. Whatever
is not here is refused when a declaration is compiled; the documentation's tables are generated from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.signals.name import AttributeName, EventName, MetricName

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AttributeName", "EventName", "MetricName", "find"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

SCOPE_TCP = "otelbpf.tcp"
SCOPE_DNS = "otelbpf.dns"
SCOPE_PROCESS = "otelbpf.process"
SCOPE_AGENT = "otelbpf.agent"

# Who and where it is: the resource
HOST_NAME = AttributeName("host.name", "str", registry=True)
HOST_ID = AttributeName("host.id", "str", "machine-id", registry=True)
SERVICE_NAME = AttributeName("service.name", "str", registry=True, stability="stable")
SERVICE_NAMESPACE = AttributeName("service.namespace", "str", registry=True, stability="stable")
SERVICE_VERSION = AttributeName("service.version", "str", registry=True, stability="stable")
SERVICE_INSTANCE_ID = AttributeName(
    "service.instance.id",
    "str",
    "never random: the same thing keeps it over a restart",
    registry=True,
    stability="stable",
)
TELEMETRY_DISTRO_NAME = AttributeName("telemetry.distro.name", "str", "otelbpf", registry=True, stability="stable")
TELEMETRY_DISTRO_VERSION = AttributeName("telemetry.distro.version", "str", registry=True, stability="stable")
K8S_CLUSTER_NAME = AttributeName("k8s.cluster.name", "str", registry=True, stability="stable")
K8S_NODE_NAME = AttributeName("k8s.node.name", "str", registry=True, stability="stable")
K8S_NAMESPACE_NAME = AttributeName("k8s.namespace.name", "str", registry=True, stability="stable")
K8S_POD_NAME = AttributeName("k8s.pod.name", "str", registry=True, stability="stable")
K8S_POD_UID = AttributeName("k8s.pod.uid", "str", registry=True, stability="stable")
K8S_CONTAINER_NAME = AttributeName("k8s.container.name", "str", registry=True, stability="stable")
K8S_CONTAINER_RESTART_COUNT = AttributeName(
    "k8s.container.restart_count", "int", "log records and spans only", registry=True, stability="stable"
)
K8S_DEPLOYMENT_NAME = AttributeName("k8s.deployment.name", "str", registry=True, stability="stable")
K8S_STATEFULSET_NAME = AttributeName("k8s.statefulset.name", "str", registry=True, stability="stable")
K8S_DAEMONSET_NAME = AttributeName("k8s.daemonset.name", "str", registry=True, stability="stable")
K8S_REPLICASET_NAME = AttributeName("k8s.replicaset.name", "str", registry=True, stability="stable")
K8S_JOB_NAME = AttributeName("k8s.job.name", "str", registry=True, stability="stable")
K8S_CRONJOB_NAME = AttributeName("k8s.cronjob.name", "str", registry=True, stability="stable")
K8S_POD_LABEL = AttributeName(
    "k8s.pod.label", "str", "labels chosen in the configuration", registry=True, stability="stable", template=True
)
K8S_POD_ANNOTATION = AttributeName(
    "k8s.pod.annotation",
    "str",
    "annotations chosen in the configuration",
    registry=True,
    stability="stable",
    template=True,
)
CONTAINER_IMAGE_NAME = AttributeName("container.image.name", "str", registry=True, stability="stable")
CONTAINER_IMAGE_TAGS = AttributeName("container.image.tags", "str[]", registry=True, stability="stable")
CONTAINER_ID = AttributeName(
    "container.id",
    "str",
    "log records and spans only: a restart must not split a metric series",
    registry=True,
    stability="stable",
)
CONTAINER_RUNTIME_NAME = AttributeName("container.runtime.name", "str", "log records and spans only", registry=True)
SYSTEMD_UNIT_NAME = AttributeName("systemd.unit.name", "str", "the unit of a service")

# The process
PROCESS_PID = AttributeName(
    "process.pid", "int", "in the initial pid namespace", registry=True, stability="release_candidate"
)
PROCESS_PARENT_PID = AttributeName("process.parent_pid", "int", registry=True, stability="release_candidate")
PROCESS_EXECUTABLE_NAME = AttributeName("process.executable.name", "str", registry=True, stability="release_candidate")
PROCESS_EXECUTABLE_PATH = AttributeName("process.executable.path", "str", registry=True, stability="release_candidate")
PROCESS_COMMAND = AttributeName("process.command", "str", "argv[0]", registry=True, stability="release_candidate")
PROCESS_USER_ID = AttributeName("process.user.id", "int", "effective", registry=True, stability="release_candidate")
PROCESS_CREATION_TIME = AttributeName(
    "process.creation.time", "str", "ISO 8601", registry=True, stability="release_candidate"
)
PROCESS_EXIT_CODE = AttributeName(
    "process.exit.code", "int", "absent after a signal", registry=True, stability="release_candidate"
)
OTELBPF_PARENT_EXECUTABLE_NAME = AttributeName("otelbpf.parent.executable.name", "str")
OTELBPF_PROCESS_EXIT_SIGNAL = AttributeName("otelbpf.process.exit.signal", "str", "such as SIGKILL")
OTELBPF_PROCESS_EXIT_CLASS = AttributeName("otelbpf.process.exit.class", "str", "ok, error, signal, oom")
OTELBPF_PROCESS_DURATION = AttributeName("otelbpf.process.duration", "double", "since creation", unit="s")

# The connection and both its ends
NETWORK_TRANSPORT = AttributeName("network.transport", "str", "tcp, udp", registry=True, stability="stable")
NETWORK_TYPE = AttributeName(
    "network.type", "str", "ipv4, ipv6; an IPv4-mapped address is ipv4", registry=True, stability="stable"
)
NETWORK_LOCAL_ADDRESS = AttributeName(
    "network.local.address", "str", "the own end, as the socket sees it", registry=True, stability="stable"
)
NETWORK_LOCAL_PORT = AttributeName("network.local.port", "int", registry=True, stability="stable")
NETWORK_PEER_ADDRESS = AttributeName(
    "network.peer.address", "str", "what the socket sees", registry=True, stability="stable"
)
NETWORK_PEER_PORT = AttributeName("network.peer.port", "int", registry=True, stability="stable")
NETWORK_IO_DIRECTION = AttributeName(
    "network.io.direction", "str", "transmit, receive", registry=True, stability="release_candidate"
)
SERVER_ADDRESS = AttributeName(
    "server.address",
    "str",
    "client side: the observed host name of the peer, else its address; server side: the own address",
    registry=True,
    stability="stable",
)
SERVER_PORT = AttributeName(
    "server.port",
    "int",
    "on metrics of a client only below 32768 or a known service port",
    registry=True,
    stability="stable",
)
CLIENT_ADDRESS = AttributeName("client.address", "str", "server side: the peer", registry=True, stability="stable")
CLIENT_PORT = AttributeName("client.port", "int", "server side", registry=True, stability="stable")
ERROR_TYPE = AttributeName("error.type", "str", "not on success", registry=True, stability="stable")
SERVICE_PEER_NAME = AttributeName("service.peer.name", "str", registry=True)
SERVICE_PEER_NAMESPACE = AttributeName("service.peer.namespace", "str", registry=True)
OTELBPF_NETNS = AttributeName("otelbpf.netns", "int", "inode of the network namespace")
OTELBPF_PEER_TYPE = AttributeName("otelbpf.peer.type", "str", "pod, service, node, host, loopback, external")
OTELBPF_PEER_NAMES = AttributeName(
    "otelbpf.peer.names", "str[]", "when several names were observed for the address: all of them"
)
OTELBPF_PEER_K8S_NAMESPACE_NAME = AttributeName("otelbpf.peer.k8s.namespace.name", "str")
OTELBPF_PEER_K8S_WORKLOAD_NAME = AttributeName("otelbpf.peer.k8s.workload.name", "str")
OTELBPF_PEER_K8S_WORKLOAD_KIND = AttributeName("otelbpf.peer.k8s.workload.kind", "str")
OTELBPF_PEER_K8S_POD_NAME = AttributeName("otelbpf.peer.k8s.pod.name", "str")
OTELBPF_PEER_K8S_POD_UID = AttributeName("otelbpf.peer.k8s.pod.uid", "str")
OTELBPF_PEER_K8S_NODE_NAME = AttributeName("otelbpf.peer.k8s.node.name", "str")
OTELBPF_PEER_K8S_SERVICE_NAME = AttributeName("otelbpf.peer.k8s.service.name", "str")
OTELBPF_NAT_PEER_ADDRESS = AttributeName(
    "otelbpf.nat.peer.address",
    "str",
    "the true other end, where NAT is known: of a client the backend, of a server the client before masquerade",
)
OTELBPF_NAT_PEER_PORT = AttributeName("otelbpf.nat.peer.port", "int")

# TCP
NETWORK_TCP_HANDSHAKE_ROLE = AttributeName(
    "network.tcp.handshake.role", "str", "client, server, unknown; proposed for the registry under this name"
)
OTELBPF_TCP_IO_TRANSMIT = AttributeName(
    "otelbpf.tcp.io.transmit", "int", "payload over the whole life, without retransmits", unit="By"
)
OTELBPF_TCP_IO_RECEIVE = AttributeName("otelbpf.tcp.io.receive", "int", "payload over the whole life", unit="By")
OTELBPF_TCP_SEGMENTS_TRANSMIT = AttributeName("otelbpf.tcp.segments.transmit", "int")
OTELBPF_TCP_SEGMENTS_RECEIVE = AttributeName("otelbpf.tcp.segments.receive", "int")
OTELBPF_TCP_RETRANSMITS = AttributeName("otelbpf.tcp.retransmits", "int")
OTELBPF_TCP_RTT_SMOOTHED = AttributeName("otelbpf.tcp.rtt.smoothed", "double", unit="s")
OTELBPF_TCP_RTT_MIN = AttributeName("otelbpf.tcp.rtt.min", "double", unit="s")
OTELBPF_TCP_HANDSHAKE_DURATION = AttributeName(
    "otelbpf.tcp.handshake.duration", "double", "absent where the start was not seen", unit="s"
)
OTELBPF_TCP_CONNECTION_DURATION = AttributeName(
    "otelbpf.tcp.connection.duration", "double", "absent where the start was not seen", unit="s"
)
OTELBPF_TCP_CLOSE_REASON = AttributeName(
    "otelbpf.tcp.close.reason",
    "str",
    "fin_local, fin_remote, reset_local, reset_remote, timeout, unknown: which end ended it first",
)
OTELBPF_CONNECTION_ID = AttributeName(
    "otelbpf.connection.id", "str", "32 hex digits, the same at both ends and equal to the trace id"
)
OTELBPF_CONNECTION_ADOPTED = AttributeName("otelbpf.connection.adopted", "bool", "only when true: older than the agent")

# DNS
DNS_QUESTION_NAME = AttributeName("dns.question.name", "str", "as asked, without the trailing dot", registry=True)
DNS_ANSWERS = AttributeName("dns.answers", "str[]", "addresses only", registry=True)
OTELBPF_DNS_QUESTION_TYPE = AttributeName("otelbpf.dns.question.type", "str", "A, AAAA, …, TYPE65280")
OTELBPF_DNS_RESPONSE_CODE = AttributeName(
    "otelbpf.dns.response.code", "str", "NOERROR, NXDOMAIN, …, RCODE3841; absent on timeout"
)
OTELBPF_DNS_CNAMES = AttributeName("otelbpf.dns.cnames", "str[]", "the chain in order")
OTELBPF_DNS_RECORDS = AttributeName("otelbpf.dns.records", "str[]", "other types, as MX 10 mx.example.org")
OTELBPF_DNS_ANSWER_COUNT = AttributeName("otelbpf.dns.answer.count", "int")
OTELBPF_DNS_TTL = AttributeName("otelbpf.dns.ttl", "int", "the smallest", unit="s")
OTELBPF_DNS_LOOKUP_DURATION = AttributeName(
    "otelbpf.dns.lookup.duration", "double", "first query to answer, or the time waited", unit="s"
)
OTELBPF_DNS_RETRIES = AttributeName("otelbpf.dns.retries", "int", "absent when 0")
OTELBPF_DNS_TRUNCATED = AttributeName("otelbpf.dns.truncated", "bool", "only when true")
OTELBPF_DNS_ROLE = AttributeName("otelbpf.dns.role", "str", "client, server")

# Older names, on log records and spans only
NET_PEER_NAME = AttributeName("net.peer.name", "str", "a host name", registry=True, stability="deprecated")
NET_PEER_IP = AttributeName("net.peer.ip", "str", "as network.peer.address", registry=True, stability="deprecated")
NET_PEER_PORT = AttributeName("net.peer.port", "int", "as network.peer.port", registry=True, stability="deprecated")
NET_TRANSPORT = AttributeName("net.transport", "str", "ip_tcp, ip_udp", registry=True, stability="deprecated")

# OpenTelemetry's own
OTEL_EVENT_NAME = AttributeName(
    "otel.event.name",
    "str",
    "the record's event_name, for receivers that do not know that field",
    registry=True,
    stability="stable",
)
OTEL_METRIC_OVERFLOW = AttributeName(
    "otel.metric.overflow", "bool", "true on the point that takes what is beyond a cap; from the metrics specification"
)
OTELBPF_SAMPLE_WEIGHT = AttributeName(
    "otelbpf.sample.weight", "int", "the events that this record stands for, itself included; absent when it is alone"
)
OTEL_COMPONENT_TYPE = AttributeName("otel.component.type", "str", registry=True)
OTEL_COMPONENT_NAME = AttributeName("otel.component.name", "str", registry=True)

# The agent about itself
OTELBPF_PROBE_NAME = AttributeName("otelbpf.probe.name", "str")
OTELBPF_PROBE_WAY = AttributeName("otelbpf.probe.way", "str")
OTELBPF_PROBE_STATE = AttributeName("otelbpf.probe.state", "str", "attached, degraded, failed, off")
OTELBPF_EVENT_OUTCOME = AttributeName(
    "otelbpf.event.outcome",
    "str",
    "of the agent's events: processed, filtered, throttled, lost, undecodable; on a point of a counter: throttled",
)
OTELBPF_QUEUE_NAME = AttributeName("otelbpf.queue.name", "str")
OTELBPF_MAP_NAME = AttributeName("otelbpf.map.name", "str", "dns_lookup.pending, tcp_connection.tracked")
OTELBPF_CACHE_NAME = AttributeName("otelbpf.cache.name", "str")
OTELBPF_CACHE_RESULT = AttributeName("otelbpf.cache.result", "str", "hit, miss, evicted")
OTELBPF_METRIC_NAME = AttributeName("otelbpf.metric.name", "str")
OTELBPF_WATCH_NAME = AttributeName("otelbpf.watch.name", "str", "pods, services, nodes, peer_pods, endpoint_slices")
OTELBPF_WATCH_STATE = AttributeName("otelbpf.watch.state", "str", "answered, unanswered")
OTELBPF_HOLD_OUTCOME = AttributeName(
    "otelbpf.hold.outcome", "str", "named, nameless (the time was over), displaced (there was no room)"
)
OTELBPF_RECORD_OUTCOME = AttributeName("otelbpf.record.outcome", "str", "made, shed (error.type says for which limit)")
OTELBPF_GUARD_NAME = AttributeName("otelbpf.guard.name", "str", "memory_limit, cpu_limit")
OTELBPF_GUARD_STEP = AttributeName("otelbpf.guard.step", "str", "what holds now")
OTELBPF_GUARD_DIRECTION = AttributeName("otelbpf.guard.direction", "str", "down: less is kept, up: more again")
OTELBPF_CONFIG_APPLIED = AttributeName("otelbpf.config.applied", "str[]", "key paths of the settings that changed")
OTELBPF_CONFIG_RESTART = AttributeName(
    "otelbpf.config.restart", "str[]", "key paths of settings that are different in the file and need a restart"
)
OTELBPF_STAGE_NAME = AttributeName(
    "otelbpf.stage.name", "str", "drain, line, export NAME, spool NAME, kubernetes, guards"
)
OTELBPF_STAGE_STATE = AttributeName("otelbpf.stage.state", "str", "runs, stuck, ended")
CPU_MODE = AttributeName("cpu.mode", "str", "user, system", registry=True)

EVENT_TCP_CONNECTION_CLOSED = EventName("otelbpf.tcp.connection.closed", "a TCP connection that was established ended")
EVENT_TCP_CONNECTION_FAILED = EventName("otelbpf.tcp.connection.failed", "a connect did not succeed")
EVENT_DNS_LOOKUP = EventName("otelbpf.dns.lookup", "a DNS question was answered, or timed out")
EVENT_PROCESS_EXEC = EventName("otelbpf.process.exec", "a process started to run another program")
EVENT_PROCESS_EXIT = EventName("otelbpf.process.exit", "a process ended")
EVENT_AGENT_STARTED = EventName("otelbpf.agent.started", "all probes that can be attached are attached")
EVENT_AGENT_STOPPED = EventName("otelbpf.agent.stopped", "the agent has flushed its queues and ends")
EVENT_AGENT_CONFIG_RELOADED = EventName(
    "otelbpf.agent.config_reloaded", "another configuration is in force from now on"
)
EVENT_AGENT_CONFIG_REFUSED = EventName(
    "otelbpf.agent.config_refused",
    "a configuration cannot be used and the previous one stays in force; with the reason",
)
EVENT_AGENT_PROBE_FAILED = EventName("otelbpf.agent.probe_failed", "a probe could not be attached")
EVENT_AGENT_DATA_LOST = EventName("otelbpf.agent.data_lost", "events or records were lost; with the reason")
EVENT_AGENT_EXPORTER_DOWN = EventName("otelbpf.agent.exporter_down", "a peer no longer takes data; with the reason")
EVENT_AGENT_KUBERNETES_DOWN = EventName(
    "otelbpf.agent.kubernetes_down", "the API server no longer answers a watch; with the reason"
)
EVENT_AGENT_KUBERNETES_UP = EventName("otelbpf.agent.kubernetes_up", "the API server answers a watch again")
EVENT_AGENT_EXPORTER_UP = EventName("otelbpf.agent.exporter_up", "the peer takes data again")
EVENT_AGENT_DETAIL_REDUCED = EventName(
    "otelbpf.agent.detail_reduced",
    "less is kept from now on, because of one of the agent's own limits; counters stay exact",
)
EVENT_AGENT_DETAIL_RESTORED = EventName("otelbpf.agent.detail_restored", "more is kept again, as a limit allows it")
EVENT_AGENT_STAGE_STUCK = EventName(
    "otelbpf.agent.stage_stuck", "a stage has been at one piece of work for too long, or has ended; with where it hangs"
)
EVENT_AGENT_STAGE_MOVES = EventName("otelbpf.agent.stage_moves", "a stage that was stuck moves again")

HANDSHAKE_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0)
RTT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CONNECTION_BOUNDS = (0.01, 0.1, 1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
# The registry's bounds, with three in front: lookups inside a cluster take less than a millisecond.
LOOKUP_BOUNDS = (
    *(0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
LAG_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

# Of what is observed
METRIC_OTELBPF_TCP_CONNECTIONS = MetricName(
    "otelbpf.tcp.connections", "Counter", "{connection}", "Connections established or failed, each once"
)
METRIC_OTELBPF_TCP_CLOSES = MetricName(
    "otelbpf.tcp.closes", "Counter", "{connection}", "Connections that ended, by what ended them"
)
METRIC_OTELBPF_TCP_CONNECTION_ACTIVE = MetricName(
    "otelbpf.tcp.connection.active", "UpDownCounter", "{connection}", "Connections that are established now"
)
METRIC_OTELBPF_TCP_IO = MetricName("otelbpf.tcp.io", "Counter", "By", "Payload bytes, counted while connections live")
METRIC_OTELBPF_TCP_RETRANSMITS = MetricName(
    "otelbpf.tcp.retransmits", "Counter", "{segment}", "Segments sent again, counted while connections live"
)
METRIC_OTELBPF_TCP_RESETS = MetricName(
    "otelbpf.tcp.resets", "Counter", "{segment}", "Resets sent and received, without those that fail a connect"
)
METRIC_OTELBPF_TCP_HANDSHAKE_DURATION = MetricName(
    "otelbpf.tcp.handshake.duration", "Histogram", "s", "Time to establish a connection", bounds=HANDSHAKE_BOUNDS
)
METRIC_OTELBPF_TCP_RTT = MetricName(
    "otelbpf.tcp.rtt", "Histogram", "s", "Smoothed round-trip time, at close and each minute", bounds=RTT_BOUNDS
)
METRIC_OTELBPF_TCP_CONNECTION_DURATION = MetricName(
    "otelbpf.tcp.connection.duration", "Histogram", "s", "How long connections lived", bounds=CONNECTION_BOUNDS
)
METRIC_DNS_LOOKUP_DURATION = MetricName(
    "dns.lookup.duration",
    "Histogram",
    "s",
    "Measures the time taken to perform a DNS lookup.",
    bounds=LOOKUP_BOUNDS,
    registry=True,
)
METRIC_OTELBPF_DNS_QUERIES = MetricName("otelbpf.dns.queries", "Counter", "{query}", "Questions asked and answered")
METRIC_OTELBPF_PROCESS_EXECS = MetricName("otelbpf.process.execs", "Counter", "{process}", "Programs started")
METRIC_OTELBPF_PROCESS_EXITS = MetricName("otelbpf.process.exits", "Counter", "{process}", "Processes that ended")

# Of the agent itself
METRIC_OTELBPF_AGENT_KERNEL_EVENTS = MetricName(
    "otelbpf.agent.kernel.events", "Counter", "{event}", "Events seen by the kernel programs"
)
METRIC_OTELBPF_AGENT_EVENTS = MetricName(
    "otelbpf.agent.events", "Counter", "{event}", "What became of the events, with the reason where it is a loss"
)
METRIC_OTELBPF_AGENT_PENDING = MetricName(
    "otelbpf.agent.pending", "UpDownCounter", "{event}", "Events on their way through the line"
)
METRIC_OTEL_SDK_EXPORTER_LOG_EXPORTED = MetricName(
    "otel.sdk.exporter.log.exported", "Counter", "{log_record}", "Log records whose export has ended", registry=True
)
METRIC_OTEL_SDK_EXPORTER_LOG_INFLIGHT = MetricName(
    "otel.sdk.exporter.log.inflight", "UpDownCounter", "{log_record}", "Log records not yet answered for", registry=True
)
METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED = MetricName(
    "otel.sdk.exporter.metric_data_point.exported",
    "Counter",
    "{data_point}",
    "Metric points whose export has ended",
    registry=True,
)
METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT = MetricName(
    "otel.sdk.exporter.metric_data_point.inflight",
    "UpDownCounter",
    "{data_point}",
    "Metric points not yet answered for",
    registry=True,
)
METRIC_OTEL_SDK_EXPORTER_SPAN_EXPORTED = MetricName(
    "otel.sdk.exporter.span.exported", "Counter", "{span}", "Spans whose export has ended", registry=True
)
METRIC_OTEL_SDK_EXPORTER_SPAN_INFLIGHT = MetricName(
    "otel.sdk.exporter.span.inflight", "UpDownCounter", "{span}", "Spans not yet answered for", registry=True
)
METRIC_OTELBPF_AGENT_QUEUE_SIZE = MetricName(
    "otelbpf.agent.queue.size", "UpDownCounter", "By", "Encoded requests that wait for an exporter"
)
METRIC_OTELBPF_AGENT_QUEUE_CAPACITY = MetricName(
    "otelbpf.agent.queue.capacity", "UpDownCounter", "By", "What may wait at most"
)
METRIC_OTELBPF_AGENT_QUEUE_AGE = MetricName(
    "otelbpf.agent.queue.age", "Gauge", "s", "Age of the oldest that waits in memory"
)
METRIC_OTELBPF_AGENT_SPOOL_SIZE = MetricName(
    "otelbpf.agent.spool.size", "UpDownCounter", "By", "Requests that wait on disk"
)
METRIC_OTELBPF_AGENT_SPOOL_CAPACITY = MetricName(
    "otelbpf.agent.spool.capacity", "UpDownCounter", "By", "What may wait on disk at most"
)
METRIC_OTELBPF_AGENT_SPOOL_AGE = MetricName("otelbpf.agent.spool.age", "Gauge", "s", "Age of the oldest on disk")
METRIC_OTELBPF_AGENT_EVENT_LAG = MetricName(
    "otelbpf.agent.event.lag", "Histogram", "s", "From the event in the kernel to the peer's answer", bounds=LAG_BOUNDS
)
METRIC_OTELBPF_AGENT_PROBE_STATUS = MetricName(
    "otelbpf.agent.probe.status", "UpDownCounter", "{probe}", "1 for each probe, by its state"
)
METRIC_OTELBPF_AGENT_PROBE_RUN_TIME = MetricName(
    "otelbpf.agent.probe.run.time", "Counter", "s", "Time spent in the kernel programs, while bpf_stats is enabled"
)
METRIC_OTELBPF_AGENT_PROBE_RUNS = MetricName(
    "otelbpf.agent.probe.runs", "Counter", "{run}", "Runs of the kernel programs, while bpf_stats is enabled"
)
METRIC_OTELBPF_AGENT_MAP_ENTRIES = MetricName(
    "otelbpf.agent.map.entries", "UpDownCounter", "{entry}", "Entries in a bounded table of a probe"
)
METRIC_OTELBPF_AGENT_MAP_CAPACITY = MetricName(
    "otelbpf.agent.map.capacity", "UpDownCounter", "{entry}", "Entries that fit in it"
)
METRIC_OTELBPF_AGENT_MAP_OVERFLOWS = MetricName(
    "otelbpf.agent.map.overflows",
    "Counter",
    "{event}",
    "Events that shared an entry in it, as there was none left for them",
)
METRIC_OTELBPF_AGENT_ENRICHMENT_LOOKUPS = MetricName(
    "otelbpf.agent.enrichment.lookups", "Counter", "{lookup}", "Look-ups in the caches of enrichment"
)
METRIC_OTELBPF_AGENT_SERIES = MetricName(
    "otelbpf.agent.series", "UpDownCounter", "{series}", "Series kept for a metric"
)
METRIC_OTELBPF_AGENT_SERIES_OVERFLOW = MetricName(
    "otelbpf.agent.series.overflow",
    "UpDownCounter",
    "{series}",
    "Series among them that take what is beyond metrics.max_series; 0: every series stands for itself",
)
METRIC_OTELBPF_AGENT_LOG_RECORDS = MetricName(
    "otelbpf.agent.log.records",
    "Counter",
    "{log_record}",
    "Log records that were due by the settings: made, or shed with the limit that asked for it",
)
METRIC_OTELBPF_AGENT_GUARD_STEP = MetricName(
    "otelbpf.agent.guard.step", "UpDownCounter", "{step}", "Steps down that hold now for a limit; 0: nothing is shed"
)
METRIC_OTELBPF_AGENT_GUARD_STEPS = MetricName(
    "otelbpf.agent.guard.steps", "Counter", "{step}", "Steps taken so far for a limit"
)
METRIC_OTELBPF_AGENT_GUARD_USAGE = MetricName(
    "otelbpf.agent.guard.usage", "Gauge", "1", "Share of a limit that is used"
)
METRIC_OTELBPF_AGENT_STAGE_STATUS = MetricName(
    "otelbpf.agent.stage.status", "UpDownCounter", "{stage}", "1 for each thread of a stage, by its state"
)
METRIC_OTELBPF_AGENT_STAGE_OVERDUE = MetricName(
    "otelbpf.agent.stage.overdue", "Gauge", "s", "Time that a stage takes more than it may for its piece of work"
)
METRIC_OTELBPF_AGENT_HOLD_ROWS = MetricName(
    "otelbpf.agent.hold.rows", "Counter", "{row}", "Rows that waited for their pod to be known, by what came of it"
)
METRIC_OTELBPF_AGENT_WATCH_STATUS = MetricName(
    "otelbpf.agent.watch.status", "UpDownCounter", "{watch}", "1 for each watch of the API server, by its state"
)
METRIC_OTELBPF_AGENT_WATCH_OUTAGE = MetricName(
    "otelbpf.agent.watch.outage", "Gauge", "s", "How long a watch of the API server has not been answered; 0: it is"
)
METRIC_OTELBPF_AGENT_WATCH_OBJECTS = MetricName(
    "otelbpf.agent.watch.objects", "UpDownCounter", "{object}", "Objects that a watch of the API server has brought"
)
METRIC_OTELBPF_AGENT_WATCH_UNDECODABLE = MetricName(
    "otelbpf.agent.watch.undecodable", "Counter", "{object}", "Objects of the API server that could not be read"
)
METRIC_OTELBPF_AGENT_NAT_ENTRIES = MetricName(
    "otelbpf.agent.nat.entries", "UpDownCounter", "{entry}", "Translated connections that are remembered"
)
METRIC_OTELBPF_AGENT_NAT_OVERFLOWS = MetricName(
    "otelbpf.agent.nat.overflows", "Counter", "{overflow}", "Times that the kernel reported more than was read in time"
)
METRIC_OTELBPF_AGENT_CONFIG_RELOADS = MetricName(
    "otelbpf.agent.config.reloads",
    "Counter",
    "{reload}",
    "Configurations that were read again, with error.type `refused` where one could not be used",
)
METRIC_PROCESS_CPU_TIME = MetricName(
    "process.cpu.time", "Counter", "s", "Total CPU seconds broken down by different CPU modes.", registry=True
)
METRIC_PROCESS_MEMORY_USAGE = MetricName(
    "process.memory.usage", "UpDownCounter", "By", "The amount of physical memory in use.", registry=True
)
METRIC_PROCESS_UNIX_FILE_DESCRIPTOR_COUNT = MetricName(
    "process.unix.file_descriptor.count",
    "UpDownCounter",
    "{file_descriptor}",
    "Number of unix file descriptors in use by the process.",
    registry=True,
)

LEGACY: Mapping[AttributeName, AttributeName] = {
    NETWORK_PEER_ADDRESS: NET_PEER_IP,
    NETWORK_PEER_PORT: NET_PEER_PORT,
    NETWORK_TRANSPORT: NET_TRANSPORT,
}
"""Attribute → the older name that `attributes.legacy: dup` adds beside it on log records and spans."""

LEGACY_VALUES: Mapping[AttributeName, Mapping[str, str]] = {NET_TRANSPORT: {"tcp": "ip_tcp", "udp": "ip_udp"}}
"""Where the older name has other words for the same."""

LEGACY_ONLY: frozenset[AttributeName] = frozenset({NET_PEER_NAME})
"""Older names that stages give themselves; left out when `attributes.legacy` is off."""

RUN_ONLY: frozenset[AttributeName] = frozenset({CONTAINER_ID, CONTAINER_RUNTIME_NAME, K8S_CONTAINER_RESTART_COUNT})
"""Resource attributes that change with each run of the same thing: on log records and spans, never on metrics."""

RESOURCE: tuple[AttributeName, ...] = (
    *(HOST_NAME, HOST_ID, SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION, SERVICE_INSTANCE_ID),
    *(TELEMETRY_DISTRO_NAME, TELEMETRY_DISTRO_VERSION, SYSTEMD_UNIT_NAME),
    *(CONTAINER_ID, CONTAINER_RUNTIME_NAME, CONTAINER_IMAGE_NAME, CONTAINER_IMAGE_TAGS),
    *(K8S_CLUSTER_NAME, K8S_NODE_NAME, K8S_NAMESPACE_NAME, K8S_POD_NAME, K8S_POD_UID, K8S_CONTAINER_NAME),
    K8S_CONTAINER_RESTART_COUNT,
    *(K8S_DEPLOYMENT_NAME, K8S_STATEFULSET_NAME, K8S_DAEMONSET_NAME, K8S_REPLICASET_NAME, K8S_JOB_NAME),
    *(K8S_CRONJOB_NAME, K8S_POD_LABEL, K8S_POD_ANNOTATION),
)
"""What the resource of a thing observed may have; those set in the configuration are added."""

ATTRIBUTES: Mapping[str, AttributeName] = {
    str(name): name for name in tuple(globals().values()) if isinstance(name, AttributeName)
}
EVENTS: Mapping[str, EventName] = {str(name): name for name in tuple(globals().values()) if isinstance(name, EventName)}
METRICS: Mapping[str, MetricName] = {
    str(name): name for name in tuple(globals().values()) if isinstance(name, MetricName)
}


def find(name: str) -> AttributeName | None:
    """The entry of attribute *name*, that of its template included (k8s.pod.label.app)."""
    known = ATTRIBUTES.get(name)
    if known is not None:
        return known
    template = ATTRIBUTES.get(".".join(name.split(".", 3)[:3]))
    return template if template is not None and template.template else None
