"""A receiver of OTLP over HTTP that keeps what it is sent."""

from __future__ import annotations

import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PORT = 4318


class Sink:
    """Listens on loopback while entered."""

    def __enter__(self) -> Self:
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                bodies[self.path].append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self) -> dict[str, list[dict[str, Any]]]:
        """All log records and the last word of the metrics, as OTLP JSON."""
        from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - half a second that no event waits for
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs  # noqa: PLC0415
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics  # noqa: PLC0415

        return {
            "logs": [
                MessageToDict(logs.ExportLogsServiceRequest.FromString(one), use_integers_for_enums=True)
                for one in self.bodies["/v1/logs"]
            ],
            "metrics": [
                MessageToDict(metrics.ExportMetricsServiceRequest.FromString(one), use_integers_for_enums=True)
                for one in self.bodies["/v1/metrics"]
            ],
        }
