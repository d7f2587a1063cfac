"""What runtimes leave on disk about a container."""

from __future__ import annotations

import json

import pytest

from otelbpf.enrich.runtime import Named, container_named

ID = "0123456789abcdef" * 4
CASES = {
    "docker": (
        f"var/lib/docker/containers/{ID}/config.v2.json",
        {"Name": "/web", "Config": {"Image": "nginx:1.25"}},
        Named("web", "nginx:1.25"),
    ),
    "containerd for a kubelet": (
        f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json",
        {
            "annotations": {
                "io.kubernetes.cri.container-name": "app",
                "io.kubernetes.cri.image-name": "docker.io/library/nginx:1.25",
            }
        },
        Named("app", "docker.io/library/nginx:1.25"),
    ),
    "nerdctl": (
        f"run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json",
        {"annotations": {"nerdctl/name": "web"}},
        Named("web"),
    ),
    "cri-o": (
        f"run/containers/storage/overlay-containers/{ID}/userdata/config.json",
        {"annotations": {"io.kubernetes.container.name": "app", "io.kubernetes.cri-o.ImageName": "quay.io/app:2"}},
        Named("app", "quay.io/app:2"),
    ),
    "podman": (
        "var/lib/containers/storage/overlay-containers/containers.json",
        [
            {"id": "0" * 64, "names": ["other"]},
            {"id": ID, "names": ["web"], "metadata": json.dumps({"image-name": "docker.io/library/nginx:latest"})},
        ],
        Named("web", "docker.io/library/nginx:latest"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_container_has_the_name_that_its_runtime_wrote_down(tmp_path, case):
    path, document, wanted = CASES[case]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(json.dumps(document))
    assert container_named(tmp_path, ID) == wanted
    assert container_named(tmp_path, ID[::-1]) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '{"Name": 3}', '{"Config": []}', '{"annotations": 1}', '[{"id": 1}]', "[" * 9999],
)
@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_not_understood_says_nothing(tmp_path, case, content):
    path, _, _ = CASES[case]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    assert container_named(tmp_path, ID) is None
