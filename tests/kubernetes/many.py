"""A cluster of many pods, of the size that deployments make them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3

from tests.kubernetes.cluster import PODS, owned
from tests.peers.api_server import ADMIN, ApiServer

THREADS = 16
OWN_PODS = 110


def pod(number: int) -> dict[str, Any]:
    """A pod of some 6 KB of JSON, as deployments make them."""
    labels = {"pod-template-hash": "7d9f", "app.kubernetes.io/name": f"app-{number % 300}"}
    metadata = owned("ReplicaSet", f"app-{number % 300}-7d9f", **labels)
    variables = [{"name": f"VARIABLE_{index}", "value": f"value-{index}-" + "x" * 60} for index in range(20)]
    containers = [
        {"name": name, "image": f"registry.example.org/{name}:1.2", "env": variables} for name in ("app", "proxy")
    ]
    return {
        "metadata": {"name": f"app-{number}", **metadata},
        "spec": {"nodeName": f"n{number * OWN_PODS // 12_100}", "containers": containers},
    }


def fill(server: ApiServer, count: int) -> None:
    """Makes *count* running pods."""
    pool = urllib3.PoolManager(maxsize=THREADS, ca_certs=str(server.authority))
    headers = {"Authorization": f"Bearer {ADMIN}"}

    def call(method: str, path: str, body: Any, kind: str) -> None:
        answer = pool.request(
            method, server.url + path, body=json.dumps(body), headers={**headers, "Content-Type": kind}
        )
        assert answer.status < 300, answer.data

    def make(number: int) -> None:
        call("POST", PODS.format("default"), pod(number), "application/json")
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        call(
            "PATCH", f"{PODS.format('default')}/app-{number}/status", {"status": status}, "application/merge-patch+json"
        )

    with ThreadPoolExecutor(THREADS) as workers:
        list(workers.map(make, range(count)))
