"""A watch that was away while the server forgot: etcd compacted, the server's own history begun anew."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.config import Kubernetes, Retry
from otelbpf.enrich.kubernetes import pace
from otelbpf.enrich.kubernetes.holders import SKEW_NS, held_by, packed
from otelbpf.enrich.kubernetes.watcher import Watcher
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import Objects
from tests.peers.api_server import ApiServer
from tests.peers.slow_proxy import SlowProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

CHURNED = 40


@pytest.fixture
def own(tmp_path) -> Iterator[tuple[ApiServer, Objects]]:
    with ApiServer(tmp_path) as running:
        objects = Objects(running)
        objects.namespace("shop")
        yield running, objects


def compact(server: ApiServer) -> None:
    """Lets etcd forget all that was before now."""
    now = asked(server, "/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    asked(server, "/v3/kv/compaction", {"revision": now, "physical": True})


def asked(server: ApiServer, path: str, body: Any) -> Any:
    with urllib.request.urlopen(server.store + path, data=json.dumps(body).encode(), timeout=10) as answer:
        return json.load(answer)


def holder_at(claims, at_ns):
    found = held_by(claims, at_ns)
    assert found is not None
    return found.name


def test_what_was_missed_is_found_by_a_list(own, monkeypatch):
    monkeypatch.setattr(pace, "BACKOFF", Retry(initial_interval=0.2, max_interval=1.0))
    server, objects = own
    stays, goes = (objects.pod("shop", name, "n1") for name in ("stays", "goes"))
    objects.running("shop", "stays", "10.0.0.1", {"app": "a" * 64})
    objects.running("shop", "goes", "10.0.0.2", {"app": "b" * 64})
    with SlowProxy(server.port, 1 << 16, 0.0) as proxy:
        file = server.kubeconfig_of("proxied", {"token": "admin-token"}, server=f"https://127.0.0.1:{proxy.port}")
        settings = Kubernetes(enabled=True, kubeconfig=str(file), node_name="n1", peers="pods")
        with Watcher(settings, {}, "host") as watcher:
            wait_for(lambda: all(state.answered for state in watcher.states()), "the first lists")
            watches = {one.resource.name: one for one in watcher._all()}
            lists = {name: watches[name].health.lists for name in ("pods", "peer_pods")}
            proxy.cut()
            wait_for(lambda: not any(state.answered for state in watcher.states()), "all down")
            time.sleep(2)  # times of making are whole seconds
            objects.delete_pod("shop", "goes")
            for number in range(CHURNED):
                objects.pod("shop", f"brief-{number}", "n1")
                objects.delete_pod("shop", f"brief-{number}")
            comes = objects.pod("shop", "comes", "n1")
            objects.running("shop", "comes", "10.0.0.2", {"app": "c" * 64})
            compact(server)
            server.server.kill()
            server.server.start()
            proxy.mend()
            wait_for(lambda: all(state.answered for state in watcher.states()), "all answered", 40)
            wait_for(lambda: watcher.known.pod(comes), "the new pod")
            for name, before in lists.items():
                assert watches[name].health.lists == before + 1
                assert sorted(watches[name].table.uids()) == sorted([stays, comes])
            claims = watcher.known.holders(packed("10.0.0.2") or b"")
            assert [(claim.name, bool(claim.ends_ns)) for claim in claims] == [("goes", True), ("comes", False)]
            new = claims[1]
            cut_short = [
                holder_at(claims, at_ns) for at_ns in (new.begins_ns - SKEW_NS - 1, new.told_ns - 1, new.told_ns)
            ]
            assert cut_short == ["goes", "", "comes"]  # in between nobody can know when the one followed the other
            assert len(watcher.known.holders(packed("10.0.0.1") or b"")) == 1
            assert watcher.known.pod(goes) is not None  # for some minutes yet
    assert not [sentence for sentence in watcher.sentences if "410" in sentence or "too old" in sentence]
