"""A real Loki and a real Prometheus, with the settings of deploy/examples, behind the collector of deploy/examples."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from ruamel.yaml import YAML

from tests.deploy.objects import DEPLOY, of_kind, read
from tests.e2e.collector import free_ports
from tests.e2e.polling import wait_for
from tests.peers.program import Program

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.backends.session import Session

EXAMPLE = DEPLOY / "examples" / "loki-tempo-prometheus"
HERE = "127.0.0.1"
NS = 10**9


class Refused(Exception):  # noqa: N818 - an answer
    """A store did not take a query; the text is its own."""


class Stores:
    """All three while entered; `take` sends a session through the collector and waits until it can be asked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.loki, loki_grpc, self.prometheus, self.otlp_grpc, self.otlp, self.health = free_ports(6)
        with ExitStack() as opening:
            for program in (self._loki(loki_grpc), self._prometheus(), self._collector()):
                opening.enter_context(program)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def take(self, session: Session) -> None:
        """Sends everything; returns when the last of it has arrived."""
        for kind, requests in (("metrics", session.metrics), ("logs", session.logs)):
            for request in requests:
                self._post(f"http://{HERE}:{self.otlp}/v1/{kind}", request.SerializeToString())
        sent = sum(
            len(scope.log_records) for one in session.logs for group in one.resource_logs for scope in group.scope_logs
        )

        def arrived() -> bool:
            (found,) = self.logql('sum(count_over_time({service_name=~".+"}[1h]))', session.end_ns) or [({}, 0.0)]
            points = self.promql("count(timestamp(otelbpf_tcp_connections_total))", session.end_ns)
            return found[1] == sent and bool(points)

        wait_for(arrived, "the session in Loki and Prometheus", 60)

    def promql(self, query: str, at_ns: int) -> list[tuple[dict[str, str], float]]:
        """The instant vector that *query* gives: labels and value."""
        words = {"query": query, "time": f"{at_ns / NS:.3f}"}
        data = self._get(f"http://{HERE}:{self.prometheus}/api/v1/query", words)
        return [(_bare(one["metric"]), float(one["value"][1])) for one in data["result"]]

    def logql(self, query: str, at_ns: int) -> list[tuple[dict[str, str], float]]:
        """A metric query's vector; of a query for lines each line's labels, with 1."""
        is_metric = not query.lstrip().startswith("{")
        if is_metric:
            data = self._get(f"http://{HERE}:{self.loki}/loki/api/v1/query", {"query": query, "time": str(at_ns + NS)})
            return [(_bare(one["metric"]), float(one["value"][1])) for one in data["result"]]
        words = {"query": query, "start": str(at_ns - 3600 * NS), "end": str(at_ns + NS), "limit": "5000"}
        data = self._get(f"http://{HERE}:{self.loki}/loki/api/v1/query_range", words)
        return [(one["stream"], 1.0) for one in data["result"] for _line in one["values"]]

    def _get(self, url: str, words: dict[str, str]) -> Any:
        try:
            with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(words)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error

    def _post(self, url: str, body: bytes) -> None:
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def _loki(self, grpc_port: int) -> Program:
        settings = YAML(typ="safe").load((EXAMPLE / "loki.yaml").read_text())
        storage = {"chunks_directory": f"{self._directory}/chunks", "rules_directory": f"{self._directory}/rules"}
        index = {"store": "tsdb", "object_store": "filesystem", "schema": "v13", "from": "2024-01-01"}
        settings |= {
            "auth_enabled": False,
            "server": {
                "http_listen_address": HERE, "http_listen_port": self.loki, "grpc_listen_address": HERE,
                "grpc_listen_port": grpc_port, "log_level": "warn",
            },
            "common": {
                "instance_addr": HERE, "path_prefix": f"{self._directory}/loki", "storage": {"filesystem": storage},
                "replication_factor": 1, "ring": {"kvstore": {"store": "inmemory"}},
            },
            "ingester": {"lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"}},  # as shipped it takes 16 s
            "frontend": {"scheduler_dns_lookup_period": "200ms"},
            "frontend_worker": {"dns_lookup_duration": "200ms"},
            "schema_config": {"configs": [index | {"index": {"prefix": "index_", "period": "24h"}}]},
            "analytics": {"reporting_enabled": False},
        }  # fmt: skip
        file = self._write("loki", settings)
        return Program("loki", [f"-config.file={file}"], self._directory, f"http://{HERE}:{self.loki}/ready")

    def _prometheus(self) -> Program:
        file = self._write("prometheus", YAML(typ="safe").load((EXAMPLE / "prometheus.yaml").read_text()))
        arguments = [
            f"--config.file={file}", f"--storage.tsdb.path={self._directory}/tsdb", "--web.enable-otlp-receiver",
            f"--web.listen-address={HERE}:{self.prometheus}",
        ]  # fmt: skip
        return Program("prometheus", arguments, self._directory, f"http://{HERE}:{self.prometheus}/-/ready")

    def _collector(self) -> Program:
        text = of_kind(read(EXAMPLE / "collector.yaml"), "ConfigMap")["data"]["config.yaml"]
        for there, here in (
            ("[${env:POD_IP}]:4317", f"{HERE}:{self.otlp_grpc}"), ("[${env:POD_IP}]:4318", f"{HERE}:{self.otlp}"),
            ("[${env:POD_IP}]:13133", f"{HERE}:{self.health}"), ("loki.observability.svc:3100", f"{HERE}:{self.loki}"),
            ("prometheus.observability.svc:9090", f"{HERE}:{self.prometheus}"), ("tempo.observability.svc:4317", f"{HERE}:9"),
        ):  # fmt: skip
            assert there in text
            text = text.replace(there, here)
        settings = YAML(typ="safe").load(text)
        settings["service"]["telemetry"] = {"metrics": {"level": "none"}}  # its port may be taken
        file = self._write("collector", settings)
        return Program("otelcol", ["--config", file], self._directory, f"http://{HERE}:{self.health}/")

    def _write(self, name: str, settings: Any) -> str:
        file = self._directory / f"{name}.yaml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        return str(file)


def _bare(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name != "__name__"}
