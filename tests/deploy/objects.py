"""Manifests as values, and what the API server says to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from tests.peers.api_server import ApiServer

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "otelbpf"
Object = dict[str, Any]


def parse(text: str) -> list[Object]:
    """The documents of a YAML stream, without empty ones."""
    return [document for document in YAML(typ="safe").load_all(text) if document]


def read(path: Path) -> list[Object]:
    """The objects of a file."""
    return parse(path.read_text())


def of_kind(objects: list[Object], kind: str) -> Object:
    """The only object of *kind*."""
    (found,) = (one for one in objects if one["kind"] == kind)
    return found


def container(objects: list[Object]) -> Object:
    """The agent's container."""
    (found,) = of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def refusal(api: ApiServer, text: str) -> str:
    """Why the server would not take these objects; empty when it would."""
    done = api.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
    return done.stderr if done.returncode else ""
