"""Durations, sizes and address ranges as people write them, and back."""

from __future__ import annotations

import re
from ipaddress import ip_network

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|KB|MB|GB|KiB|MiB|GiB)", re.ASCII)
_DIGITS = 15
"""More digits than any sensible quantity has; keeps an absurd one from becoming an infinity."""


def parse_duration(text: str) -> float:
    """`10s`, `500ms`, `1m30s` as seconds; ValueError says what is wrong."""
    if text == "0":
        return 0.0
    if len(text) > 4 * _DIGITS or not _DURATION.fullmatch(text):
        raise ValueError("is not a duration; write a number with a unit, such as 10s, 500ms or 1m30s")
    return sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(text))


def parse_size(text: str) -> int:
    """`4MiB`, `2MB`, `512KiB` as bytes; ValueError says what is wrong."""
    match = _SIZE.fullmatch(text)
    if match is None or len(text) > 2 * _DIGITS:
        raise ValueError("is not a size; write a number with a unit, such as 4MiB, 2MB or 512KiB")
    return round(float(match[1]) * BYTES[match[2]])


def power_of_two(size: int) -> int:
    """The least power of two that is not below *size*: what the kernel takes for a ring."""
    return 1 << max(0, size - 1).bit_length()


def network(text: str) -> str:
    """An address or CIDR in its usual form (host bits are cleared); ValueError says what is wrong."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError("is not an address or CIDR; write it such as 10.0.0.0/8, 192.0.2.1 or fd00::/8") from None


def duration_text(value: float) -> str:
    """The shortest way to write *value* seconds that `parse_duration` reads back."""
    if value == int(value):
        hours, rest = divmod(int(value), 3600)
        parts = ((hours, "h"), (rest // 60, "m"), (rest % 60, "s"))
        return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
    for unit in ("ms", "us", "ns"):
        count = round(value / SECONDS[unit])
        if count and abs(count * SECONDS[unit] - value) < 1e-10:
            return f"{count}{unit}"
    return f"{value:.9f}".rstrip("0") + "s"


def size_text(value: int) -> str:
    """The shortest way to write *value* bytes that `parse_size` reads back."""
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "kB"):
        if value and value % BYTES[unit] == 0:
            return f"{value // BYTES[unit]}{unit}"
    return f"{value}B"


def quantity_text(value: float, quantity: str) -> str:
    """*value* as a person writes it, by the kind of setting (see `settings`)."""
    if quantity == "duration":
        return duration_text(value)
    return size_text(int(value)) if "size" in quantity else f"{value:g}" if value % 1 else str(int(value))
