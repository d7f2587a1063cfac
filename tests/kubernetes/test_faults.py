"""An API server that is slow, hangs, is full, or is none: what is known stays, what is told is right, the rest waits."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.config import Kubernetes, Retry
from otelbpf.enrich.kubernetes import api, pace, watch
from otelbpf.enrich.kubernetes import watcher as watcher_module
from otelbpf.enrich.kubernetes.watcher import Watcher, WatchState
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import Objects
from tests.peers.api_server import ApiServer
from tests.peers.scripted_api import ScriptedApi, answer, bookmark, streamed, told
from tests.peers.slow_proxy import SlowProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POD = {"metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}, "spec": {}, "status": {}}
END = bookmark(of_list=True)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test has no time for the waits of a node among many."""
    monkeypatch.setattr(pace, "BACKOFF", Retry(initial_interval=0.1, max_interval=0.5))


def state(watcher: Watcher) -> WatchState:
    """Of this node's pods, which are watched as soon as it is known which node it is."""
    none = WatchState("pods", answered=False, since_ns=0, reason="")
    return next((one for one in watcher.states() if one.name == "pods"), none)


def scripted(directory: Path, server: ScriptedApi, **chosen: Any) -> Watcher:
    return Watcher(
        Kubernetes(enabled=True, kubeconfig=server.kubeconfig(directory), node_name="n1", peers="off", **chosen),
        {},
        "host",
    )


def name_of(watcher: Watcher, uid: str) -> str:
    pod = watcher.known.pod(uid)
    return "" if pod is None else pod.facts["k8s.pod.name"]


def changed(**metadata: Any) -> dict[str, Any]:
    return {**POD, "metadata": {**POD["metadata"], **metadata}}


NOT_AN_API = "is not what an API server says"
GARBAGE = [
    (b"", ""),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""),
    (b"HTTP/1.1 what\r\n\r\n", ""),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "no length"),
    (answer(b""), "in the middle"),
    (answer(b"<html>Bad gateway</html>", kind="text/html"), "(text/html) is not what"),
    (answer(b"<html>Bad gateway</html>", "502 Bad Gateway", "text/html"), "HTTP 502: no reason given"),
    (answer(b'{"message":"etcd\\nis away"}', "500 Internal Server Error"), "HTTP 500: etcd is away"),
    (answer(b"x" * 100_000, "500 Internal Server Error"), "HTTP 500"),
    (answer(b"", "301 Moved", "text/html", "Location: http://127.0.0.1:1/"), "HTTP 301"),
    (answer(b"", "429 Too Many Requests", "text/plain", "Retry-After: 1"), "HTTP 429"),
    (answer(b"", "503 Unavailable", "text/plain", "Retry-After: soon"), "HTTP 503"),
    (answer(b"[" * 200_000), NOT_AN_API),
    (streamed(b"not JSON"), NOT_AN_API),
    (streamed(told("ADDED", POD)[:50]), NOT_AN_API),
    (streamed(b"null"), NOT_AN_API),
    (streamed(b'{"type": 5}'), NOT_AN_API),
    (streamed(told("ERROR", None)), NOT_AN_API),
    (streamed(told("BOOKMARK", [])), NOT_AN_API),
    (streamed(told("DELETED", {})), NOT_AN_API),
    (streamed(told("ERROR", {"code": 500, "message": "watch cache is full"})), "watch cache is full"),
    (streamed(told("ERROR", {"code": 410, "message": "too old"})), "too old"),
    (streamed(told("ADDED", POD)), "in the middle"),
    (streamed(b"x" * (17 << 20)), "longer than 16 MiB"),
]


@pytest.mark.parametrize(("said", "reason"), GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_told_and_asked_again(tmp_path, said, reason):
    with ScriptedApi([POD]) as server:
        server.script.extend([said] * 2)
        with scripted(tmp_path, server) as watcher:
            wait_for(lambda: name_of(watcher, "u1") == "web" and state(watcher).answered, "the pod at last")
            assert watcher.failure is None
    told_of_pods = [sentence for sentence in watcher.sentences if sentence.startswith("kubernetes: pods:")]
    first, last = [sentence for sentence in told_of_pods if "answered" in sentence]
    assert reason in first
    assert "\n" not in first
    assert last == "kubernetes: pods: answered again"


HARMLESS = [
    told("ADDED", {}),
    told("ADDED", 5),
    told("NEW", POD),
    told("ADDED", changed(uid="")),
    told("ADDED", changed(uid="u2", name=5)),
    told("ADDED", {**changed(uid="u3"), "status": {"containerStatuses": [{"restartCount": -1}]}}),
    told("MODIFIED", {**POD, "spec": "none"}),
    told("BOOKMARK", {}),
]


@pytest.mark.parametrize("said", HARMLESS, ids=range(len(HARMLESS)))
def test_one_object_that_is_none_costs_that_object_only(tmp_path, said):
    with ScriptedApi([]) as server:
        server.script.append(streamed(told("ADDED", POD), said, told("ADDED", changed(uid="u9", name="other")), END))
        with scripted(tmp_path, server) as watcher:
            wait_for(lambda: name_of(watcher, "u9") == "other", "the next pod")
            assert name_of(watcher, "u1") == "web"
            assert watcher.failure is None


def test_a_server_that_asks_for_time_gets_it(tmp_path):
    with ScriptedApi([POD]) as server:
        server.script.append(answer(b"", "429 Too Many Requests", "text/plain", "Retry-After: 3"))
        with scripted(tmp_path, server) as watcher:
            watcher.wait(20)
            wait_for(lambda: state(watcher).answered, "the pod at last")
        assert len([path for path in server.asked if path.startswith("/api/v1/pods?watch")]) == 2


def test_a_list_that_is_plain_text_is_a_list_all_the_same(tmp_path):
    body = b"\n".join([told("ADDED", POD), END])
    with ScriptedApi([]) as server:
        server.script.append(answer(body + b"\n", kind="text/plain"))
        with scripted(tmp_path, server) as watcher:
            wait_for(lambda: name_of(watcher, "u1") == "web", "the pod")


def test_a_server_without_streaming_that_says_garbage(tmp_path, monkeypatch):
    monkeypatch.setattr(watcher_module, "SWEEP_S", 0.1)
    refused = answer(b'{"message":"no such parameter"}', "422 Unprocessable Entity")
    unreadable = {"metadata": {"name": "other", "uid": "u2"}, "spec": 5}
    with ScriptedApi([POD, unreadable]) as server:
        server.script.append(refused)
        with scripted(tmp_path, server) as watcher:
            wait_for(lambda: state(watcher).answered, "the list")
            assert name_of(watcher, "u1") == "web"
            assert state(watcher).undecodable == 1
            wait_for(
                lambda: "kubernetes: pods: something that was told could not be read" in str(watcher.sentences), "that"
            )
        assert [path for path in server.asked if path.startswith("/api/v1/pods?") and "resourceVersion=0" in path]


def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "BODY_LIMIT_BYTES", 100)
    with ScriptedApi([POD]) as server:
        server.script.append(answer(b"{}", "400 Bad Request"))
        with scripted(tmp_path, server) as watcher:
            assert not watcher.wait(20)
            assert "an answer of more than" in state(watcher).reason
            monkeypatch.setattr(api, "BODY_LIMIT_BYTES", 1 << 20)
            wait_for(lambda: state(watcher).answered, "the list")
        limits = [path.partition("limit=")[2].partition("&")[0] for path in server.asked if "limit=" in path]
    assert limits[:5] == ["500", "125", "31", "7", "1"]


def test_a_list_that_trickles_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "BODY_S", 0.2)
    with ScriptedApi([POD]) as server:
        server.script.append(answer(b"{}", "400 Bad Request"))
        server.trickle_s = 0.1
        with scripted(tmp_path, server) as watcher:
            wait_for(lambda: "not whole" in state(watcher).reason, "its reason")
            server.trickle_s = 0.0
            wait_for(lambda: state(watcher).answered, "the list")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, Objects]]:
    """A server that tests may stop for a while."""
    with ApiServer(tmp_path_factory.mktemp("faults")) as running:
        objects = Objects(running)
        objects.namespace("shop")
        yield running, objects


def test_a_slow_network_tells_all_in_the_end_and_changes_after_it(own):
    server, objects = own
    uids = [objects.pod("shop", f"slow-{number}", "slow") for number in range(20)]
    with SlowProxy(server.port, 400, 0.01) as proxy:
        file = server.kubeconfig_of("slow", {"token": "admin-token"}, server=f"https://127.0.0.1:{proxy.port}")
        settings = Kubernetes(enabled=True, kubeconfig=str(file), node_name="slow", peers="pods")
        with Watcher(settings, {}, "host") as watcher:
            assert not watcher.wait(0.1)
            assert watcher.known.pod(uids[0]) is None  # asked while it trickles: nothing waits
            wait_for(lambda: all(one.answered for one in watcher.states()), "the lists", 60)
            assert [name_of(watcher, uid) for uid in uids] == [f"slow-{number}" for number in range(20)]
            later = objects.pod("shop", "later", "slow")
            wait_for(lambda: name_of(watcher, later), "a change")


def test_a_server_that_hangs_is_told_and_goes_on_where_it_was(own, monkeypatch):
    server, objects = own
    monkeypatch.setattr(watch, "SILENT_S", 3.0)
    monkeypatch.setattr(api, "CONNECT_S", 1.0)
    monkeypatch.setattr(api, "ANSWER_S", 1.0)
    uid = objects.pod("shop", "hangs", "hangs")
    settings = Kubernetes(enabled=True, kubeconfig=str(server.kubeconfig()), node_name="hangs", peers="off")
    with Watcher(settings, {}, "host") as watcher:
        wait_for(lambda: all(one.answered for one in watcher.states()), "the lists")
        lists = watcher._own_watch.health.lists
        server.server.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: not any(one.answered for one in watcher.states()), "its silence")
            wait_for(lambda: "no answer within" in state(watcher).reason, "its reason")
            assert name_of(watcher, uid) == "hangs"
        finally:
            server.server.process.send_signal(signal.SIGCONT)
        monkeypatch.setattr(watch, "SILENT_S", 100.0)
        later = objects.pod("shop", "after", "hangs")
        wait_for(lambda: name_of(watcher, later), "a change")
        wait_for(lambda: all(one.answered for one in watcher.states()), "its being back")
        assert watcher._own_watch.health.lists == lists


def test_a_large_object_is_one_like_any_other(own):
    server, objects = own
    notes = {f"note-{number}": "x" * 10_000 for number in range(20)}
    uid = objects.pod("shop", "large", "large", metadata={"annotations": notes})
    settings = Kubernetes(enabled=True, kubeconfig=str(server.kubeconfig()), node_name="large", peers="pods")
    with Watcher(settings, {}, "host") as watcher:
        wait_for(lambda: name_of(watcher, uid), "the pod")
        assert "x" * 10_000 not in json.dumps(watcher.known.pod(uid).facts)
