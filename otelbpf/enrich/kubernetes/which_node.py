"""Which node this is, as the API server calls it, where nobody has said so (`kubernetes.node_name`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.refusals import FORBIDDEN, NOT_FOUND, ApiError

if TYPE_CHECKING:
    from otelbpf.enrich.kubernetes.api import Api

POD = objects.decoder(objects.PodObject)


def asked_node(api: Api, host_name: str, namespace: str, pod: str) -> str:
    """The host's name if a node has it, else the node that holds our own *pod*, else the host's name all the same.

    Raises ApiError, and objects.UNREADABLE.
    """
    name = host_name.lower()
    if name and _asked(api, f"/api/v1/nodes/{name}") is not None:
        return name
    found = _asked(api, f"/api/v1/namespaces/{namespace}/pods/{pod}") if namespace and pod else None
    return (POD.decode(found).spec.node_name if found is not None else "") or name


def _asked(api: Api, path: str) -> bytes | None:
    """The object there; None where there is none, or none for us."""
    try:
        return api.get(path, {})
    except ApiError as error:
        if error.status in (FORBIDDEN, NOT_FOUND):
            return None
        raise
