"""What the signals give to export: one encoded request."""

from typing import NamedTuple


class Request(NamedTuple):
    """A whole Export…ServiceRequest as it goes over the wire, smaller than 4 MiB. Encoded once, retried as it is."""

    signal: str
    """`logs`, `metrics` or `traces`."""
    body: bytes
    items: int
    """Log records, metric data points or spans in it."""
    oldest_ns: int
    """Unix time of the oldest of them."""
