"""An image's reference, such as registry:5000/nginx:1.25@sha256:…, as attributes."""

from __future__ import annotations

from typing import Any

from otelbpf.signals import names


def image_facts(reference: str) -> dict[str, Any]:
    """registry:5000/nginx:1.25@sha256:… → name registry:5000/nginx, tags 1.25; an id instead of a name says nothing."""
    name, tag, _ = _parts(reference)
    if not name:
        return {}
    return {names.CONTAINER_IMAGE_NAME: name, **({names.CONTAINER_IMAGE_TAGS: [tag]} if tag else {})}


def image_version(reference: str) -> str:
    """service.version, as an image tells it: its tag and digest."""
    _, tag, digest = _parts(reference)
    return "@".join(part for part in (tag, digest) if part)


def _parts(reference: str) -> tuple[str, str, str]:
    reference, _, digest = reference.partition("@")
    if not reference or reference.startswith("sha256:"):
        return "", "", digest
    name, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        return reference, "", digest
    return name, tag, digest
