"""Pods that come and go: made, given an address, deleted, and the next one has the address; by many hands at once."""

from __future__ import annotations

import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import urllib3

from tests.kubernetes.cluster import PODS, owned
from tests.peers.api_server import ADMIN

if TYPE_CHECKING:
    from tests.peers.api_server import ApiServer

THREADS = 24
SETTLES_S = 0.5
"""Between a pod's scheduling and its address, and again until something happens in it: a node needs far longer."""


class Lived(NamedTuple):
    """A pod that is gone, and a moment at which it was there."""

    name: str
    uid: str
    address: str
    container_id: str
    at_ns: int


class Churn:
    """Makes pods on *node* in *namespace*."""

    def __init__(self, server: ApiServer, namespace: str, node: str, network: str, addresses: int) -> None:
        """Addresses are the first so many of *network*, such as ``10.9``."""
        self._server = server
        self._namespace = namespace
        self._node = node
        self._free: queue.Queue[str] = queue.Queue()
        for number in range(addresses):
            self._free.put(f"{network}.{number >> 8}.{number & 255}")
        self._pool = urllib3.PoolManager(maxsize=THREADS, ca_certs=str(server.authority))

    def run(self, count: int) -> list[Lived]:
        """*count* pods, one after the other in each of some threads; gives those that have lived."""
        lock = threading.Lock()
        found: list[Lived] = []

        def one(number: int) -> None:
            lived = self._live(number)
            with lock:
                found.append(lived)

        with ThreadPoolExecutor(THREADS) as workers:
            list(workers.map(one, range(count)))
        return found

    def _live(self, number: int) -> Lived:
        name, container_id = f"app-{number % 7}-7d9f-{number}", f"{number:064x}"
        metadata = owned("ReplicaSet", f"app-{number % 7}-7d9f", **{"pod-template-hash": "7d9f"})
        pod = {
            "metadata": {"name": name, **metadata},
            "spec": {"nodeName": self._node, "containers": [{"name": "app", "image": "shop/app:1.2"}]},
        }
        path = PODS.format(self._namespace)
        uid = self._call("POST", path, pod)["metadata"]["uid"]
        address = self._free.get()
        time.sleep(SETTLES_S)
        container = {"name": "app", "containerID": f"containerd://{container_id}", "restartCount": 0,
                     "image": "shop/app:1.2", "imageID": "", "ready": True, "state": {"running": {}}}  # fmt: skip
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [container]}
        self._call("PATCH", f"{path}/{name}/status", {"status": status}, "application/merge-patch+json")
        time.sleep(SETTLES_S)
        at_ns = time.time_ns()
        self._call("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
        self._free.put(address)
        return Lived(name, uid, address, container_id, at_ns)

    def _call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        content = None if body is None else json.dumps(body)
        answer = self._pool.request(method, self._server.url + path, body=content, headers=headers)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.data!r}")
        return answer.json()
