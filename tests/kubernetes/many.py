"""A cluster of many pods, and what watching all of them costs: run as `python -m tests.kubernetes.many [PODS]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3

from tests.kubernetes.cluster import PODS, owned
from tests.peers.api_server import ADMIN, ApiServer

THREADS = 16
OWN_PODS = 110
MEASURE = """
import json, os, sys, threading, time
from pathlib import Path
from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes.watcher import Watcher
def memory(name):
    return next(int(line.split()[1]) / 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
import urllib3
before, started, cpu = memory("VmRSS:"), time.monotonic(), time.process_time()
settings = Kubernetes(enabled=True, kubeconfig=sys.argv[1], node_name="n0", peers="pods")
with Watcher(settings, {}, "host") as watcher:
    watcher.wait(60)
    own_s = time.monotonic() - started
    while not all(state.answered for state in watcher.states()):
        time.sleep(0.01)
    print(json.dumps({
        "own pods known (s)": round(own_s, 2), "all known (s)": round(time.monotonic() - started, 2),
        "CPU (s)": round(time.process_time() - cpu, 2), "RSS before (MB)": round(before), "RSS (MB)": round(memory("VmRSS:")),
        "peak RSS (MB)": round(memory("VmHWM:")), "objects": {state.name: state.objects for state in watcher.states()}}))
"""


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


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ApiServer(Path(directory)) as server:
        fill(server, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
        for _ in range(3):
            command = [sys.executable, "-c", MEASURE, str(server.kubeconfig())]
            print(
                subprocess.run(
                    command, check=True, capture_output=True, text=True, env=dict(os.environ)
                ).stdout.strip(),
                flush=True,
            )


if __name__ == "__main__":
    main()
