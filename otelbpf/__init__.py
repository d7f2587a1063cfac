"""eBPF to OpenTelemetry: a node agent that sees every TCP connection, DNS lookup and process."""

__version__ = "0.1.0"
