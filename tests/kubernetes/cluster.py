"""The cluster's objects as kubelets and controllers would make them, against a real API server."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from tests.peers.api_server import ADMIN

if TYPE_CHECKING:
    from tests.peers.api_server import ApiServer

PODS, SERVICES, NODES = "/api/v1/namespaces/{}/pods", "/api/v1/namespaces/{}/services", "/api/v1/nodes"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"


class Objects:
    """Makes, changes and deletes objects as admin."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._tls = ssl.create_default_context(cafile=str(server.authority))

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """What the server answers; raises with its words when it refuses."""
        request = urllib.request.Request(
            self._server.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error

    def namespace(self, name: str) -> None:
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def node(self, name: str, *addresses: str) -> None:
        self.call("POST", NODES, {"metadata": {"name": name}})
        status = {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]}
        self.patch_status(f"{NODES}/{name}", status)

    def service(self, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
        return dict(self.call("POST", SERVICES.format(namespace), body))

    def pod(self, namespace: str, name: str, node: str, **more: Any) -> str:
        """Creates a pod of one container `app`, as its controller and the scheduler would; returns its uid."""
        metadata = {"name": name, **more.pop("metadata", {})}
        spec = {"nodeName": node, "containers": [{"name": "app", "image": "shop/app:1.2"}], **more}
        return str(self.call("POST", PODS.format(namespace), {"metadata": metadata, "spec": spec})["metadata"]["uid"])

    def running(self, namespace: str, name: str, address: str, containers: dict[str, str], **more: Any) -> None:
        """What a kubelet writes when the containers (name → id) of a pod run; *kind* is where their statuses stand."""
        kind = more.pop("kind", "containerStatuses")
        statuses = [
            {"name": container, "containerID": f"containerd://{run}", "restartCount": 0, "image": "shop/app:1.2",
             "imageID": "", "ready": True, "started": True, "state": {"running": {}}}
            for container, run in containers.items()
        ]  # fmt: skip
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], kind: statuses}
        self.patch_status(f"{PODS.format(namespace)}/{name}", status | more)

    def ephemeral(self, namespace: str, name: str, container: dict[str, Any]) -> None:
        """What `kubectl debug` does: one more container in a pod that runs."""
        change = {"spec": {"ephemeralContainers": [container]}}
        path = f"{PODS.format(namespace)}/{name}/ephemeralcontainers"
        self.call("PATCH", path, change, "application/strategic-merge-patch+json")

    def delete_pod(self, namespace: str, name: str) -> None:
        self.call("DELETE", f"{PODS.format(namespace)}/{name}?gracePeriodSeconds=0")

    def patch_status(self, path: str, status: Any) -> None:
        self.call("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")


def owned(kind: str, name: str, **labels: str) -> dict[str, Any]:
    """The metadata of a pod that a controller made."""
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "0", "controller": True}
    return {"ownerReferences": [owner], "labels": labels}
