"""The resolvers that programs use (glibc, dig) against a real DNS server, in a network namespace where DNS is on its
port, and behind NAT as Docker has it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.kernel.attach import attach
from otelbpf.probes.dns_lookup import CLIENT, PROBE, SERVER
from otelbpf.protocols.dns import parse
from tests.kernel.dns_asking import balance, config
from tests.kernel.feed import Feed

if TYPE_CHECKING:
    from pathlib import Path

TCP = 6

RECORDS = (
    "--host-record=web.test,192.0.2.10,2001:db8::10",
    "--cname=www.test,web.test",
    "--mx-host=test,mail.test,10",
    "--txt-record=test,v=spf1 -all",
    "--srv-host=_sip._tcp.test,sip.test,5060,0,5",
    "--local=/test/",
)
START = """
    set -e
    ip link set lo up
    mount --bind {work}/resolv.conf /etc/resolv.conf
    dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --no-resolv --no-hosts --pid-file= \
        --listen-address={address} --port={port} --bind-interfaces {records} &
    trap 'kill '$! EXIT
    until dig @{address} -p {port} +short +tries=1 +timeout=1 ready.test > /dev/null; do sleep 0.1; done
"""


def told_by(work: Path, script: str, address: str = "127.0.0.1", port: int = 53) -> list[dict[str, Any]]:
    """What is told of a shell *script* in a network namespace with dnsmasq at *address*, in the words of the parser."""
    (work / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:1 attempts:1\n")
    records = " ".join(f"'{record}'" for record in RECORDS)
    start = START.format(work=work, address=address, port=port, records=records)
    with attach(PROBE, config(53)) as attached:
        feed = Feed(attached)
        command = ["unshare", "--net", "--mount", "bash", "-c", start + script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        balance(feed)
        told = [in_words(row) for row in feed.rows()]
    return [
        lookup for lookup in told if lookup["name"].endswith(("test", ".example")) and lookup["name"] != "ready.test"
    ]


def in_words(row: Any) -> dict[str, Any]:
    message = parse(row["message"].tobytes()[: row["captured_bytes"]], int(row["message_bytes"]))
    facts = {name: row[name].item() for name in ("role", "kind", "transport", "local_port", "remote_port")}
    addresses = {name: row[name].item()[-4:] for name in ("local_address", "remote_address")}
    return {**facts, **addresses, "comm": row["head"]["comm"].item(), **message._asdict()}


class TestResolver:
    @pytest.fixture(scope="module")
    @staticmethod
    def answers(tmp_path_factory) -> list[dict[str, Any]]:
        return told_by(
            tmp_path_factory.mktemp("resolver"),
            f"""
            {sys.executable} -c 'import socket; socket.getaddrinfo("www.test", 80, proto=6)'
            for question in "test MX" "test TXT" "_sip._tcp.test SRV" "nothing.test A" "web.test HTTPS"; do
                dig +tries=1 $question
            done
            dig +tcp +tries=1 tcp.web.test
            dig +tries=1 outside.example
            """,
        )

    @staticmethod
    def asked(answers: list[dict[str, Any]], name: str, kind: int) -> dict[str, Any]:
        """The one record of a client for that question."""
        found = [a for a in answers if (a["role"], a["name"], a["type"]) == (CLIENT, name, kind)]
        assert len(found) == 1, found
        assert found[0]["remote_port"] == 53
        return found[0]

    @pytest.mark.parametrize(("kind", "address"), [(1, "192.0.2.10"), (28, "2001:db8::10")])
    def test_getaddrinfo(self, answers, kind, address):
        lookup = self.asked(answers, "www.test", kind)
        assert (lookup["cnames"], lookup["addresses"]) == (["web.test"], [address])
        assert lookup["comm"].startswith(b"python")

    @pytest.mark.parametrize(
        ("name", "kind", "record"),
        [
            ("test", 15, "MX 10 mail.test"),
            ("test", 16, 'TXT "v=spf1 -all"'),
            ("_sip._tcp.test", 33, "SRV 0 5 5060 sip.test"),
        ],
    )
    def test_other_types(self, answers, name, kind, record):
        assert self.asked(answers, name, kind)["records"] == [record]

    @pytest.mark.parametrize(("name", "kind", "code"), [("nothing.test", 1, 3), ("web.test", 65, 0), ("outside.example", 1, 5)])  # fmt: skip
    def test_no_such_thing(self, answers, name, kind, code):
        lookup = self.asked(answers, name, kind)
        assert (lookup["code"], lookup["addresses"], lookup["records"]) == (code, [], [])

    def test_tcp(self, answers):
        assert self.asked(answers, "tcp.web.test", 1)["transport"] == TCP

    def test_each_lookup_has_its_other_end(self, answers):
        roles = [answer["role"] for answer in answers]
        assert roles.count(CLIENT) == roles.count(SERVER) == 9
        assert {answer["comm"] for answer in answers if answer["role"] == SERVER} == {b"dnsmasq"}


class TestNat:
    """What is sent to 127.0.0.11:53 leaves to another port, as in a Docker network; the answer comes from port 53."""

    TRANSLATE = """
        nft add table ip nat
        nft add chain ip nat output '{ type nat hook output priority -100 ; }'
        for transport in udp tcp; do
            nft add rule ip nat output ip daddr 127.0.0.11 $transport dport 53 dnat to 127.0.0.11:45353
        done
    """

    @pytest.fixture(scope="module")
    @staticmethod
    def answers(tmp_path_factory) -> list[dict[str, Any]]:
        return told_by(
            tmp_path_factory.mktemp("nat"),
            f"""
            {TestNat.TRANSLATE}
            {sys.executable} -c 'import socket; socket.getaddrinfo("www.test", 80, proto=6)'
            dig +tries=1 +tcp web.test
            """,
            "127.0.0.11",
            45353,
        )

    @pytest.mark.parametrize(
        ("name", "kind", "transport"), [("www.test", 1, 17), ("www.test", 28, 17), ("web.test", 1, 6)]
    )
    def test_the_resolver_that_was_asked(self, answers, name, kind, transport):
        (lookup,) = (a for a in answers if (a["role"], a["name"], a["type"]) == (CLIENT, name, kind))
        assert (lookup["remote_address"], lookup["remote_port"]) == (b"\x7f\0\0\x0b", 53)
        assert lookup["transport"] == transport
        assert len(lookup["addresses"]) == 1
