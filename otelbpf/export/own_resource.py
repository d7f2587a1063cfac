"""Who the agent is: the OTLP resource of its own signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otelbpf import __version__
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.config import Config

POD_NAMESPACE, POD_NAME, POD_UID = "POD_NAMESPACE", "POD_NAME", "POD_UID"
"""Variables that the DaemonSet fills from the downward API."""


def own_resource(
    config: Config, host_name: str | None, host_id: str | None, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The attributes; the SDK adds telemetry.sdk.*. *environ* holds what Kubernetes' downward API says of our own pod."""
    environ = environ or {}
    pod_uid = environ.get(POD_UID)
    known = {
        names.HOST_NAME: host_name,
        names.HOST_ID: host_id,
        names.SERVICE_NAME: "otelbpf",
        names.SERVICE_VERSION: __version__,
        names.SERVICE_INSTANCE_ID: pod_uid or host_id or host_name,
        names.TELEMETRY_DISTRO_NAME: "otelbpf",
        names.TELEMETRY_DISTRO_VERSION: __version__,
        names.K8S_CLUSTER_NAME: config.kubernetes.cluster_name,
        names.K8S_NODE_NAME: config.kubernetes.node_name,
        names.K8S_NAMESPACE_NAME: environ.get(POD_NAMESPACE),
        names.K8S_POD_NAME: environ.get(POD_NAME),
        names.K8S_POD_UID: pod_uid,
    }
    return dict(config.resource.attributes) | {str(name): value for name, value in known.items() if value}
