"""The way to a peer: a name that moves to another address, and proxies that want credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import exactly
from tests.e2e.polling import wait_for
from tests.peers.certificates import Authority
from tests.peers.proxy import Proxy
from tests.peers.scripted import PEERS, Hang
from tests.peers.sending import Plan, Sending, arrived

if TYPE_CHECKING:
    from pathlib import Path

NAME = "collector.test"
PASSWORD = "s3cret/word"
pytestmark = pytest.mark.parametrize("kind", PEERS)


def resolving(hosts: Path) -> tuple[str, ...]:
    """A command that runs another one where *hosts* is what names mean."""
    return ("unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh")


@pytest.mark.parametrize("ends", ["stops", "hangs"])
def test_a_name_that_moves(kind, ends, tmp_path):
    """The former address stops, or says nothing more: what is made then is sent to the one that the name has now."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n")
    with PEERS[kind]() as former, PEERS[kind](host="127.0.0.2", port=former.port) as present:
        settings = {"endpoint": f"http://{NAME}:{former.port}", "timeout": 0.5}
        with Sending(tmp_path, Plan(kind, settings), resolving(hosts), {"NO_PROXY": NAME}) as sending:
            sending.wait_for_accepted(100)
            hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
            if ends == "hangs":
                former.play(*[Hang()] * 10_000)
            else:
                former.__exit__()
            wait_for(lambda: present.received, "the present address to be used")
            done = sending.finish(30)
        exactly.complete(done, arrived(former, present))
        print(f"the former {ends}: {len(arrived(present)['logs'])} of {done.made} went to the present, {done.codes}")


def proxied(proxy: Proxy, password: str = PASSWORD, **more: str) -> dict[str, str]:
    url = f"http://agent:{password.replace('/', '%2F')}@127.0.0.1:{proxy.port}"
    return {"HTTPS_PROXY": url, "HTTP_PROXY": url} | more


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_proxy_that_wants_credentials(kind, secure, tmp_path):
    certificates: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if secure:
        authority = Authority(tmp_path).create()
        server = authority.sign("server", "IP:127.0.0.1")
        certificates = {"certificate": server.certificate, "key": server.key}
        settings = {"tls": {"ca_file": str(authority.certificate)}}
    with Proxy("agent", PASSWORD) as proxy, PEERS[kind](**certificates) as peer:
        plan = Plan(kind, {"endpoint": peer.endpoint, "timeout": 2.0} | settings)
        with Sending(tmp_path, plan, environment=proxied(proxy)) as sending:
            sending.wait_for_accepted(200)
            proxy.__exit__()
            peer.__exit__()
            sending.wait_until_down()
            peer.__enter__()
            proxy.__enter__()
            done = sending.finish(30)
        exactly.complete(done, arrived(peer))
        assert proxy.asked
        assert proxy.refused == 0
        assert PASSWORD not in "".join(sending.said)


def test_a_proxy_that_refuses(kind, tmp_path):
    """Nothing is lost, one sentence says who refuses, and no secret is in it."""
    with Proxy("agent", PASSWORD) as proxy, PEERS[kind]() as peer:
        plan = Plan(kind, {"endpoint": peer.endpoint, "timeout": 2.0})
        with Sending(tmp_path, plan, environment=proxied(proxy, "wrong-secret")) as sending:
            wait_for(lambda: any("proxy" in line for line in sending.said), "the sentence")
            assert f"the proxy 127.0.0.1:{proxy.port}" in sending.said[0]
            done = sending.finish(1)
        print(sending.said)
        assert "wrong" not in "".join(sending.said)
        assert not peer.received
        assert all(one.balanced and one.dropped == {"shutdown": done.made} for one in done.ledger.values())


def test_no_proxy(kind, tmp_path):
    with Proxy("agent", PASSWORD) as proxy, PEERS[kind]() as peer:
        plan = Plan(kind, {"endpoint": peer.endpoint, "timeout": 2.0})
        with Sending(tmp_path, plan, environment=proxied(proxy, NO_PROXY="127.0.0.0/8,127.0.0.1")) as sending:
            sending.wait_for_accepted(100)
            done = sending.finish(30)
        exactly.complete(done, arrived(peer))
        assert (proxy.asked, proxy.refused) == ([], 0)
