"""What a real kernel tells of connections that it translates, as kube-proxy's rules do."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes.conntrack import Conntrack
from otelbpf.enrich.kubernetes.holders import NS_PER_S, packed
from otelbpf.enrich.kubernetes.watcher import Watcher
from otelbpf.kernel.clock import boottime_ns
from tests.e2e.netns import NAMES, Namespaces
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = """
table ip nat {
  chain pre { type nat hook prerouting priority dstnat; ip daddr 10.96.0.80 tcp dport 80 dnat to 10.2.0.2:8080; }
  chain post { type nat hook postrouting priority srcnat; ip saddr 10.1.0.2 ip daddr 10.2.0.2 masquerade; }
}
"""


@pytest.fixture
def router(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """A "host" whose namespace forwards between a client and a server; gives its /proc and the namespaces."""
    with Namespaces("ct") as network:
        client, middle, server = (network.add(role) for role in ("client", "host", "server"))
        network.link(client, ["10.1.0.2/24"], middle, ["10.1.0.1/24"])
        network.link(middle, ["10.2.0.1/24"], server, ["10.2.0.2/24"])
        network.run(client, "ip", "route", "add", "default", "via", "10.1.0.1")
        network.run(server, "ip", "route", "add", "default", "via", "10.2.0.1")
        network.run(middle, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(["ip", "netns", "exec", middle, "nft", "-f", "-"], input=RULES, text=True, check=True)
        (tmp_path / "1/ns").mkdir(parents=True)
        (tmp_path / "1/ns/net").symlink_to(NAMES / middle)
        yield tmp_path, client, server


def connect(client: str, address: str, port: int) -> int:
    """A connection; gives its local port."""
    program = f"import socket; s = socket.create_connection(({address!r}, {port}), 5); print(s.getsockname()[1])"
    done = subprocess.run(
        ["ip", "netns", "exec", client, "python3", "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_both_ends_of_a_translated_connection(router):
    proc, client, server = router
    serve = (
        "import socket\ns = socket.create_server(('10.2.0.2', 8080))\nprint('up', flush=True)\nwhile True: s.accept()"
    )
    with (
        Conntrack(proc) as conntrack,
        subprocess.Popen(["ip", "netns", "exec", server, "python3", "-c", serve], stdout=subprocess.PIPE) as serving,
    ):
        assert conntrack.unavailable == ""
        assert serving.stdout is not None
        serving.stdout.readline()
        connect(client, "10.2.0.2", 8080)
        began_ns = boottime_ns()
        port = connect(client, "10.96.0.80", 80)
        addresses = [packed(text) for text in ("10.1.0.2", "10.96.0.80", "10.2.0.2", "10.2.0.1")]
        us, service, backend, masked = (address or b"" for address in addresses)
        wait_for(lambda: conntrack.learn() or conntrack.translates(service), "the event")
        assert conntrack.true_end((6, us, port, service, 80), began_ns) == (backend, 8080)
        assert conntrack.translates(masked)
        seen = [ends for ends, one in conntrack._true.items() if ends[1] == backend and one.true == (us, port)]
        assert [(ends[0], ends[2], ends[3]) for ends in seen] == [(6, 8080, masked)]
        assert conntrack.true_end(seen[0], began_ns) == (us, port)
        for another_ns in (began_ns - 60 * NS_PER_S, began_ns + 60 * NS_PER_S):
            assert conntrack.true_end((6, us, port, service, 80), another_ns) is None
        serving.kill()


def test_where_events_are_switched_off(router):
    proc, *_ = router
    host = (proc / "1/ns/net").readlink().name
    subprocess.run(["ip", "netns", "exec", host, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0"], check=True)
    with Conntrack(proc) as conntrack:
        assert conntrack.unavailable == "net.netfilter.nf_conntrack_events is 0"


def test_that_the_kernel_will_not_tell_is_said_once(tmp_path, server):
    settings = Kubernetes(enabled=True, kubeconfig=str(server.kubeconfig()), node_name="n1", peers="off")
    with Watcher(settings, {}, "host", proc=tmp_path) as watcher:
        wait_for(lambda: all(state.answered for state in watcher.states()), "the first lists")
    (said,) = watcher.sentences
    assert said.startswith("kubernetes: connection tracking: No such file")


def test_where_the_kernel_will_not_tell(tmp_path):
    with Conntrack(tmp_path) as conntrack:
        assert "No such file" in conntrack.unavailable
        conntrack.learn()
        assert conntrack.fill == (0, 0)
