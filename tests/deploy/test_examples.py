"""deploy/examples: taken by a real API server, and by a real collector."""

from __future__ import annotations

import subprocess

import pytest
from ruamel.yaml import YAML

from tests.deploy.objects import DEPLOY, of_kind, read, refusal
from tests.peers.program import binary

COLLECTORS = sorted((DEPLOY / "examples").glob("*/collector.yaml"))
NOT_IN_OURS = "kafka"
"""The one component of the examples that the tests' collector is built without."""


@pytest.mark.parametrize("path", COLLECTORS, ids=lambda path: path.parent.name)
def test_the_server_takes_it(api, path):
    api.kubectl("create", "namespace", "observability")
    assert refusal(api, path.read_text()) == ""


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("path", COLLECTORS, ids=lambda path: path.parent.name)
def test_the_collector_takes_its_configuration(path, address, tmp_path):
    settings = YAML(typ="safe").load(of_kind(read(path), "ConfigMap")["data"]["config.yaml"])
    if NOT_IN_OURS in settings["exporters"]:
        settings["exporters"]["debug"] = {}
        del settings["exporters"][NOT_IN_OURS]
        for pipeline in settings["service"]["pipelines"].values():
            assert pipeline["exporters"] == [NOT_IN_OURS]
            pipeline["exporters"] = ["debug"]
    file = tmp_path / "config.yaml"
    with file.open("w") as output:
        YAML(typ="safe").dump(settings, output)
    done = subprocess.run(
        [binary("otelcol"), "validate", "--config", str(file)],
        capture_output=True, text=True, check=False, env={"POD_IP": address},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
