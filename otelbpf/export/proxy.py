"""Which proxy the environment names for a peer; the same answer for both transports."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from otelbpf.export.endpoint import Endpoint


def proxy_of(endpoint: Endpoint) -> str:
    """The URL of the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY (or the same in small letters) name for *endpoint*,
    with its credentials; empty for none."""
    from urllib.request import getproxies_environment, proxy_bypass  # 2 MB, with what it needs of HTTP

    proxies = getproxies_environment()
    if proxy_bypass(endpoint.authority):
        return ""
    proxy = proxies.get("https" if endpoint.secure else "http", proxies.get("all", ""))
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def proxy_named(endpoint: Endpoint) -> str:
    """``HOST:PORT`` of the proxy, to be shown; empty for none."""
    return urlsplit(proxy_of(endpoint)).netloc.rpartition("@")[2]
