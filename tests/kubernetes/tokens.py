"""Tokens of service accounts: asked of the API server, and made to end when a test wants it."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.cluster import Objects
    from tests.peers.api_server import ApiServer

ACCOUNTS = "/api/v1/namespaces/{}/serviceaccounts"
LEEWAY_S = 60
"""A server takes a token for so long after its end."""
INTEGER_BYTES = 32
"""Of the two that a signature on the curve P-256 has."""


def make_account(objects: Objects, namespace: str, name: str) -> None:
    objects.call("POST", ACCOUNTS.format(namespace), {"metadata": {"name": name}})


def delete_account(objects: Objects, namespace: str, name: str) -> None:
    """Its tokens are worth nothing from now on, also if one of the same name is made."""
    objects.call("DELETE", f"{ACCOUNTS.format(namespace)}/{name}")


def ask_token(objects: Objects, namespace: str, name: str) -> str:
    asked = {"spec": {"audiences": [], "expirationSeconds": 3600}}
    answer = objects.call("POST", f"{ACCOUNTS.format(namespace)}/{name}/token", asked)
    return str(answer["status"]["token"])


def ending_in(server: ApiServer, token: str, seconds: float) -> str:
    """The same token, but the server takes it for so long only."""
    head, claims, _ = token.split(".")
    said: dict[str, Any] = json.loads(_decoded(claims))
    now = int(time.time())
    said |= {"exp": int(now - LEEWAY_S + seconds), "iat": now - 3600, "nbf": now - 3600}
    message = f"{head}.{_encoded(json.dumps(said).encode())}"
    return f"{message}.{_encoded(_signature(server.directory / 'sa.key', message.encode()))}"


def _signature(key: Path, message: bytes) -> bytes:
    """ES256: openssl writes the two integers in DER, a token has them one behind the other."""
    der = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(key)], input=message, capture_output=True, check=True
    ).stdout
    first_end = 4 + der[3]
    integers = der[4:first_end], der[first_end + 2 :]
    return b"".join(int.from_bytes(one, "big").to_bytes(INTEGER_BYTES, "big") for one in integers)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
