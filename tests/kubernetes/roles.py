"""What the agent's role allows it, given to whoever a test wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kubernetes.cluster import Objects

GROUP = "rbac.authorization.k8s.io"
ROLES = f"/apis/{GROUP}/v1/clusterroles"
BINDINGS = f"/apis/{GROUP}/v1/clusterrolebindings"
WATCH = ["list", "watch"]


def let_in(objects: Objects, *subjects: dict[str, str]) -> None:
    """Gives the role to *subjects*, in RBAC's own words."""
    rules = [
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", *WATCH]},
        {"apiGroups": [""], "resources": ["services"], "verbs": WATCH},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": WATCH},
    ]
    objects.call("POST", ROLES, {"metadata": {"name": "otelbpf"}, "rules": rules})
    bind(objects, *subjects)


def bind(objects: Objects, *subjects: dict[str, str]) -> None:
    """Gives the role, which is there already, to *subjects*."""
    groups = [{"apiGroup": GROUP if one["kind"] == "User" else "", **one} for one in subjects]
    role = {"kind": "ClusterRole", "name": "otelbpf", "apiGroup": GROUP}
    objects.call("POST", BINDINGS, {"metadata": {"name": "otelbpf"}, "subjects": groups, "roleRef": role})


def unbind(objects: Objects) -> None:
    """Takes the role from whoever had it."""
    objects.call("DELETE", f"{BINDINGS}/otelbpf")
