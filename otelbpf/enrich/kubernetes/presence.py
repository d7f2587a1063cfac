"""Whether there is a cluster, by what this process was given; nothing is asked of anybody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.config import Kubernetes

SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def there_is_one(settings: Kubernetes, environ: Mapping[str, str]) -> bool:
    """Whether `enabled: auto` means yes: in a pod, or with a kubeconfig."""
    if settings.enabled != "auto":
        return settings.enabled is True
    if settings.kubeconfig or environ.get("KUBECONFIG"):
        return True
    return bool(environ.get(SERVICE_HOST)) and (SERVICE_ACCOUNT / "token").exists()
