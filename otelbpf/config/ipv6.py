"""IPv6 addresses in endpoints. In Kubernetes a variable with a node's address stands before the port, without brackets."""

from __future__ import annotations

import socket


def in_brackets(endpoint: str) -> str:
    """*endpoint* as it is, but with an IPv6 address in brackets. What may be a port behind the address is one."""
    scheme, separator, rest = endpoint.partition("://") if "://" in endpoint else ("", "", endpoint)
    authority, slash, path = rest.partition("/")
    host, _, port = authority.rpartition(":")
    if port.isdecimal() and _is_ipv6(host):
        authority = f"[{host}]:{port}"
    elif _is_ipv6(authority):
        authority = f"[{authority}]"
    return f"{scheme}{separator}{authority}{slash}{path}"


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a zero in it
        return False
    return True
