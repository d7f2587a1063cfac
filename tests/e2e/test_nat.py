"""Both ends of a connection say the same id although DNAT and masquerade stand between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.agent import Agent
from tests.e2e.collector import Collector
from tests.e2e.expect import CLOSED
from tests.e2e.netns import Namespaces, inode, ip
from tests.load import tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.otlp_json import Record

VIRTUAL = "10.96.7.80"
SERVER = "10.212.2.2"
RULES = f"""
table ip nat {{
  chain before {{ type nat hook prerouting priority -100; ip daddr {VIRTUAL} dnat to {SERVER}; }}
  chain after {{ type nat hook postrouting priority 100; ip daddr {SERVER} masquerade random; }}
}}
"""
COUNT = 20


def routed(spaces: Namespaces, directory: Path) -> tuple[str, str]:
    """A client and a server with a router between them that rewrites both addresses and the client's port."""
    client, router, server = (spaces.add(role) for role in ("client", "router", "server"))
    spaces.link(client, ["10.212.1.2/24"], router, ["10.212.1.1/24"])
    spaces.link(server, [f"{SERVER}/24"], router, ["10.212.2.1/24"])
    ip("-n", client, "route", "add", "default", "via", "10.212.1.1")
    spaces.run(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    rules = directory / "nat.nft"
    rules.write_text(RULES)
    spaces.run(router, "nft", "-f", str(rules))
    return client, server


def by_id(records: list[Record], role: str) -> dict[object, Record]:
    """The records of one role by connection id; an id that comes twice is an error."""
    chosen = [record for record in records if record["network.tcp.handshake.role"] == role]
    assert len({record["otelbpf.connection.id"] for record in chosen}) == len(chosen)
    return {record["otelbpf.connection.id"]: record for record in chosen}


def test_both_ends_agree_through_nat(tmp_path: Path) -> None:
    with Namespaces("nat") as spaces, Collector(tmp_path) as collector:
        client, server = routed(spaces, tmp_path)
        ours = {inode(client), inode(server)}
        with Agent(tmp_path, {"exporters": collector.exporters("grpc")}):
            plan = tcp.Plan(
                count=COUNT, address=VIRTUAL, spread=9000, records=False, mix={"normal": 3, "server_resets": 1}
            )
            truth = tcp.tcp_load(plan, Place(client), Place(server))

            def is_ours(record: Record) -> bool:
                return record.event_name == CLOSED and record["otelbpf.netns"] in ours

            records = collector.wait_for_records(is_ours, 2 * COUNT)
    clients, servers = by_id(records, "client"), by_id(records, "server")
    assert clients.keys() == servers.keys()
    assert len(clients) == COUNT
    for id_, one in clients.items():
        other = servers[id_]
        assert one.trace_id == other.trace_id == id_
        assert one["otelbpf.tcp.io.transmit"] == other["otelbpf.tcp.io.receive"]
        assert one["otelbpf.tcp.io.receive"] == other["otelbpf.tcp.io.transmit"]
        assert one["network.peer.address"] == VIRTUAL
        assert other["network.peer.address"] == "10.212.2.1"
    assert sum(int(str(record["otelbpf.tcp.io.transmit"])) for record in clients.values()) == truth.client["sent"]
