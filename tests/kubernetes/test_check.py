"""What a person and a collector are told of an API server that does not answer: since when, and why."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf import doctor
from otelbpf.config import Config, Kubernetes
from otelbpf.config.settings import Health
from tests.e2e.agent import Agent
from tests.e2e.collector import Collector, free_ports
from tests.e2e.polling import wait_for
from tests.kubernetes.roles import let_in
from tests.peers.api_server import AGENT, ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.findings import Row
    from tests.kubernetes.cluster import Objects

KINDS = ["node", "pods", "services", "nodes", "peer_pods"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server that a test may stop."""
    with ApiServer(tmp_path_factory.mktemp("check")) as running:
        yield running


def rows(config: Config) -> list[Row]:
    return list(doctor._kubernetes_rows(config))


def configured(file: Any, endpoint: str = "") -> Config:
    found = Kubernetes(enabled=True, kubeconfig=str(file), node_name="n1", peers="pods")
    return Config(kubernetes=found, health=Health(endpoint=endpoint))


def test_rows_of_a_server_that_allows_nothing_and_then_all(server, objects: Objects):
    config = configured(server.kubeconfig(AGENT))
    denied = rows(config)
    assert [(row.subject, row.state) for row in denied] == [
        ("kubernetes node", "ok"), *((f"kubernetes {kind}", "degraded") for kind in KINDS[1:]),
        ("connection tracking", "ok"),
    ]  # fmt: skip
    assert 'HTTP 403: pods is forbidden: User "agent" cannot list resource "pods"' in denied[1].what
    assert "ClusterRole" in denied[1].todo
    let_in(objects, {"kind": "User", "name": "agent"})
    wait_for(lambda: {row.state for row in rows(config)} == {"ok"}, "the role")
    assert "spec.nodeName=n1" in rows(config)[1].what


def test_rows_of_a_server_that_is_not_there(server):
    away = server.kubeconfig_of("away", {"token": AGENT}, server="https://127.0.0.1:1")
    assert [(row.subject, row.what.partition(";")[0]) for row in rows(configured(away))[1:]] == [
        ("kubernetes pods", "Connection refused"), ("connection tracking", "tells of connections to services"),
    ]  # fmt: skip


def test_a_row_of_connections_that_the_kernel_does_not_tell_of():
    """To whoever has no CAP_NET_ADMIN."""
    bare = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-all", sys.executable, "-c"]
    code = "from otelbpf import doctor; print(doctor._tracking_row())"
    done = subprocess.run([*bare, code], capture_output=True, text=True, check=True)
    assert "state='degraded', what='Operation not permitted; services are named" in done.stdout
    assert "CAP_NET_ADMIN" in done.stdout


def test_an_agent_that_is_not_answered_any_more_tells_a_person_and_a_collector(tmp_path, own):
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    settings = {
        "telemetry": {"interval": "1s"},
        "health": {"endpoint": endpoint},
        "kubernetes": {"enabled": True, "kubeconfig": str(own.kubeconfig()), "node_name": "n1", "peers": "off"},
    }
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, {"exporters": collector.exporters("grpc"), **settings}) as agent:
            config = configured(own.kubeconfig(), endpoint)
            assert {row.state for row in rows(config)} == {"ok"}
            own.server.kill()
            wait_for(lambda: "kubernetes: pods: not answered" in agent.text, "its sentence")
            found = [row for row in rows(config) if row.subject == "agent's pods"]
            assert [row.state for row in found] == ["degraded"]
            assert "has had no answer since 20" in found[0].what
            assert "Connection refused" in found[0].what or "the connection " in found[0].what
            wait_for(lambda: states(collector, "unanswered") >= {"pods"}, "the metric")
            own.server.start()
            wait_for(lambda: "kubernetes: pods: answered again" in agent.text, "its return", 90)
        outages = [point for point in collector.own_points() if point.metric == "otelbpf.agent.watch.outage"]
    assert max(point.value for point in outages if point.attributes["otelbpf.watch.name"] == "pods") > 0
    events = {record.event_name for record in collector.own_records()}
    assert {"otelbpf.agent.kubernetes_down", "otelbpf.agent.kubernetes_up"} <= events


def test_an_agent_starts_while_the_server_hangs(tmp_path, own):
    settings = {
        "exporters": {"console": {}},
        "kubernetes": {"enabled": True, "kubeconfig": str(own.kubeconfig()), "node_name": "n1"},
    }
    own.server.process.send_signal(signal.SIGSTOP)
    try:
        with Agent(tmp_path, settings) as agent:
            wait_for(lambda: "kubernetes: pods: not answered: no answer within" in agent.text, "its sentence", 40)
    finally:
        own.server.process.send_signal(signal.SIGCONT)
    assert "Traceback" not in agent.text


def states(collector: Collector, state: str) -> set[Any]:
    points = [point for point in collector.own_points() if point.metric == "otelbpf.agent.watch.status"]
    return {
        point.attributes["otelbpf.watch.name"] for point in points if point.attributes["otelbpf.watch.state"] == state
    }


def test_what_another_program_says_at_that_endpoint_is_not_ours():
    from otelbpf.enrich.kubernetes import read_told  # noqa: PLC0415

    assert read_told("<html>") == read_told("") == read_told(json.dumps({"a": 1})) == []
