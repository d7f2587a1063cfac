"""Objects that cannot be read are counted in the agent's own signals, each at the watch that brought it."""

from __future__ import annotations

from tests.e2e.agent import Agent
from tests.e2e.polling import wait_for
from tests.kubernetes.test_names import collector, settings
from tests.peers.scripted_api import ScriptedApi, bookmark, streamed, told

__all__ = ["collector"]
POD = {"metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}, "spec": {}, "status": {}}


def test_objects_that_cannot_be_read_are_counted(tmp_path, server, collector):
    unreadable = [
        told("ADDED", POD | {"metadata": {"name": f"bad-{number}", "uid": f"b{number}"}, "spec": number})
        for number in range(3)
    ]
    with ScriptedApi([POD]) as scripted:
        scripted.script.append(streamed(told("ADDED", POD), *unreadable, bookmark(of_list=True)))
        chosen = settings(collector, server, "n1", kubeconfig=scripted.kubeconfig(tmp_path), peers="off")
        with Agent(tmp_path, chosen):
            wait_for(lambda: counted(collector).get("pods"), "its count")
            assert counted(collector) == {"pods": 3, "services": 0, "nodes": 0}


def counted(collector):
    points = [point for point in collector.own_points() if point.metric == "otelbpf.agent.watch.undecodable"]
    assert {(point.kind, point.unit) for point in points} <= {("sum", "{object}")}
    return {point.attributes["otelbpf.watch.name"]: point.value for point in points}
