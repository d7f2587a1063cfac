"""A real collector whose k8s_attributes processor looks at the same pods as the agent does.

What the agent sends comes out twice: as it came ("grpc"), and behind the processor as docs/kubernetes.md sets it
("http"). What `ask` sends comes out as the processor alone names it.
"""

from __future__ import annotations

import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tests.deploy.objects import ROOT
from tests.e2e.collector import Collector
from tests.e2e.otlp_json import records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.e2e.otlp_json import Attributes

DOCUMENTED = re.compile(r"```yaml\n(processors:\n  k8s_attributes:.*?)```", re.DOTALL)
OWNERS = ("deployment", "replicaset", "statefulset", "daemonset", "job", "cronjob")
EVERYTHING = [
    "k8s.namespace.name", "k8s.node.name", "k8s.pod.name", "k8s.pod.uid", "k8s.container.name",
    *(f"k8s.{kind}.name" for kind in OWNERS),
    "container.id", "container.image.name", "container.image.tag",
    "service.name", "service.namespace", "service.version", "service.instance.id",
]  # fmt: skip


class Processor(Collector):
    """A collector with the processor, which asks the API server that *kubeconfig* names."""

    def __init__(self, directory: Path, kubeconfig: Path) -> None:
        super().__init__(directory)
        self.environment["KUBECONFIG"] = str(kubeconfig)

    def ask(self, resources: Iterable[Attributes]) -> None:
        """Sends a record of each resource, past the agent."""
        told = [
            {
                "resource": {
                    "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in one.items()]
                },
                "scopeLogs": [{"logRecords": [{"body": {"stringValue": "who is this?"}}]}],
            }
            for one in resources
        ]
        request = urllib.request.Request(
            f"{self.http_endpoint}/v1/logs",
            json.dumps({"resourceLogs": told}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def answers(self) -> dict[str, Attributes]:
        """What the processor has said until now, by the pod's uid."""
        found = [record.resource for request in self._requests("logs", "asked") for record in records(request)]
        return {str(resource["k8s.pod.uid"]): resource for resource in found}

    def _configuration(self) -> dict[str, Any]:
        made = super()._configuration()
        access = {"auth_type": "kubeConfig"}
        full = {
            **access,
            "pod_association": [{"sources": [{"from": "resource_attribute", "name": "k8s.pod.uid"}]}],
            "extract": {
                "metadata": EVERYTHING, "otel_annotations": True, "deployment_name_from_replicaset": True,
                "labels": [{"tag_name": "k8s.pod.label.tier", "key": "tier", "from": "pod"}],
                "annotations": [{"tag_name": "k8s.pod.annotation.note/a", "key": "note/a", "from": "pod"}],
            },
        }  # fmt: skip
        made["processors"] = {"k8s_attributes": {**access, **documented()}, "k8s_attributes/full": full}
        for kind in ("logs", "metrics", "traces"):
            behind = made["service"]["pipelines"][f"{kind}/http"]
            behind |= {"receivers": ["otlp/grpc"], "processors": ["k8s_attributes"]}
        file = {"path": str(self.directory / "logs-asked.jsonl"), "flush_interval": "200ms"}
        made["exporters"]["file/asked"] = file
        made["service"]["pipelines"]["logs/asked"] = {
            "receivers": ["otlp/http"], "processors": ["k8s_attributes/full"], "exporters": ["file/asked"],
        }  # fmt: skip
        return made


def documented() -> dict[str, Any]:
    """The processor's settings as docs/kubernetes.md has them."""
    match = DOCUMENTED.search((ROOT / "docs" / "kubernetes.md").read_text())
    assert match is not None
    found: dict[str, Any] = YAML(typ="safe").load(match[1])["processors"]["k8s_attributes"]
    return found
