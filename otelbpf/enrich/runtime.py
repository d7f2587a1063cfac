"""What container runtimes leave on disk about a container: its name and image, without asking their daemons.

Docker writes `config.v2.json`, containerd and CRI-O the OCI bundle (whose annotations hold what the CRI or nerdctl
call it), Podman a list of containers. A file that is not there or not understood is an answer: nothing is known.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_LIMIT_BYTES = 8 << 20
NAME_ANNOTATIONS = ("io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name")
POD_ANNOTATIONS = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
NAMESPACE_ANNOTATIONS = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")
IMAGE_ANNOTATIONS = ("io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image")
BUNDLES = (
    "run/containerd/io.containerd.runtime.v2.task/*/{id}/config.json",
    "run/k3s/containerd/io.containerd.runtime.v2.task/*/{id}/config.json",
    "run/containers/storage/overlay-containers/{id}/userdata/config.json",
    "var/lib/containers/storage/overlay-containers/{id}/userdata/config.json",
)
DOCKER = "var/lib/docker/containers/{id}/config.v2.json"
PODMAN = "var/lib/containers/storage/overlay-containers/containers.json"


class Named(NamedTuple):
    """What the runtime calls a container and its image, and its pod where a kubelet made it; empty when unknown."""

    name: str = ""
    image: str = ""
    pod: str = ""
    namespace: str = ""


def container_named(root: Path, container_id: str) -> Named | None:
    """What the runtime whose files lie below *root* says of a container; None when no file speaks of it."""
    for found in _answers(root, container_id):
        if found.name:
            return found
    return None


def _answers(root: Path, container_id: str) -> Iterator[Named]:
    yield _docker(_json(root / DOCKER.format(id=container_id)))
    yield _podman(_json(root / PODMAN), container_id)
    for pattern in BUNDLES:
        for path in root.glob(pattern.format(id=container_id)):
            yield _bundle(_json(path))


def _docker(document: Any) -> Named:
    config = _mapping(_mapping(document).get("Config"))
    labels = _mapping(config.get("Labels"))
    name = _first(labels, NAME_ANNOTATIONS) or _text(_mapping(document).get("Name")).lstrip("/")
    return Named(name, _text(config.get("Image")), *_pod(labels))


def _podman(document: Any, container_id: str) -> Named:
    for entry in document if isinstance(document, list) else ():
        if _mapping(entry).get("id") == container_id:
            names = entry.get("names")
            name = _text(names[0]) if isinstance(names, list) and names else ""
            return Named(name, _text(_mapping(_parsed(entry.get("metadata"))).get("image-name")))
    return Named()


def _bundle(document: Any) -> Named:
    notes = _mapping(_mapping(document).get("annotations"))
    return Named(_first(notes, NAME_ANNOTATIONS), _first(notes, IMAGE_ANNOTATIONS), *_pod(notes))


def _pod(notes: dict[str, Any]) -> tuple[str, str]:
    return _first(notes, POD_ANNOTATIONS), _first(notes, NAMESPACE_ANNOTATIONS)


def _first(notes: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((_text(notes[key]) for key in keys if notes.get(key)), "")


def _json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _parsed(file.read(FILE_LIMIT_BYTES))
    except OSError:
        return None


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
