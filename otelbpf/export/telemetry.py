"""The agent's signals about itself: its ledgers and costs as metrics, what happens to it as events.

They go to the first OTLP exporter's peer, through OpenTelemetry's SDK. Nothing here may delay or block the line: the
SDK is imported by a thread of its own after the probes are attached, and what is told before it is there is kept.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from otelbpf.config import Console
from otelbpf.errors import OtelbpfError
from otelbpf.export.instruments import Reading, all_instruments, observe
from otelbpf.export.losses import Losses
from otelbpf.export.numbers import own_process
from otelbpf.export.own_resource import own_resource
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otelbpf.config import Config, OtlpGrpc, OtlpHttp
    from otelbpf.export import Exporters
    from otelbpf.export.numbers import AgentNumbers
    from otelbpf.export.request import Request
    from otelbpf.export.sdk import Sdk
    from otelbpf.guards.guard import Change
    from otelbpf.guards.watchdog import StageChange
    from otelbpf.signals.name import EventName

INFO, WARN, ERROR = 9, 13, 17
REFUSED = "refused"
KEPT = 1000
"""Events and lags that are kept until the SDK is there."""


@dataclass(frozen=True, slots=True)
class _Told:
    name: EventName
    severity: int
    body: str
    attributes: Mapping[str, Any]
    time_ns: int


class Telemetry:
    """Sends the agent's own signals, when `telemetry.enabled` and there is a peer for them.

    A context manager; between enter and exit `read` is called every `telemetry.interval` and once at the end, from
    another thread, and must not wait; it is not called once `close` has returned. *outputs* are watched for what
    becomes of requests.
    """

    def __init__(
        self,
        config: Config,
        outputs: Exporters,
        read: Callable[[], AgentNumbers],
        *,
        host_name: str | None = None,
        host_id: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """*environ* holds what Kubernetes' downward API says of our own pod."""
        self._config = config
        self._read = read
        self._outputs = outputs
        self._peer = _first_peer(config) if config.telemetry.enabled else None
        self._host = (host_name, host_id, environ)
        self._resource = own_resource(config, *self._host)
        self._reading: Reading | None = None
        self._last: AgentNumbers | None = None
        """Read at the end. The SDK may ask once more, from its own thread, when the parts that count are gone."""
        self._asking = threading.Lock()
        self._losses = Losses()
        self._reloads = {"": 0, REFUSED: 0}
        self._lock = threading.Lock()
        self._told: deque[_Told] = deque(maxlen=KEPT)
        self._lags: deque[float] = deque(maxlen=KEPT)
        self._emit: Callable[[_Told], None] = self._told.append
        self._record_lag: Callable[[float], None] = self._lags.append
        self._sdk: Sdk | None = None
        self._closed = False
        self._starting = threading.Thread(target=self._start, name="telemetry", daemon=True)

    def __enter__(self) -> Self:
        self._outputs.watch(self)
        if self._peer is not None:
            self._starting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close(time.monotonic())

    def started(self, sentence: str) -> None:
        self._tell(names.EVENT_AGENT_STARTED, INFO, sentence)

    def follow(self, config: Config, deadline: float) -> None:
        """Goes on as *config* says. Where that means another peer, resource or interval, what was told until now goes
        out the former way until *deadline* (time.monotonic), and series begin again; else nothing is touched."""
        former = (self._peer, self._resource, self._config.telemetry)
        peer = _first_peer(config) if config.telemetry.enabled else None
        resource = own_resource(config, *self._host)
        self._config = config
        if former == (peer, resource, config.telemetry):
            return
        self._peer, self._resource = peer, resource
        before = self._starting if self._starting.ident is not None else None
        self._starting = threading.Thread(
            target=self._start_again, args=(before, deadline), name="telemetry", daemon=True
        )
        self._starting.start()

    def config_reloaded(self, sentence: str, applied: Sequence[str], restart: Sequence[str]) -> None:
        """Another configuration holds, but for the settings *restart*."""
        self._reloads[""] += 1
        lists: dict[str, Any] = {names.OTELBPF_CONFIG_APPLIED: applied, names.OTELBPF_CONFIG_RESTART: restart}
        attributes = {name: list(paths) for name, paths in lists.items() if paths}
        self._tell(names.EVENT_AGENT_CONFIG_RELOADED, WARN if restart else INFO, sentence, attributes)

    def config_refused(self, sentence: str) -> None:
        """Nothing has changed, because of what *sentence* says."""
        self._reloads[REFUSED] += 1
        self._tell(names.EVENT_AGENT_CONFIG_REFUSED, WARN, sentence, {names.ERROR_TYPE: REFUSED})

    def stopped(self, sentence: str) -> None:
        self._tell(names.EVENT_AGENT_STOPPED, INFO, sentence)

    def probe_failed(self, probe: str, reason: str) -> None:
        self._tell(names.EVENT_AGENT_PROBE_FAILED, ERROR, f"{probe}: {reason}", {names.OTELBPF_PROBE_NAME: probe})

    def kubernetes_changed(self, watch: str, reason: str) -> None:
        """A watch of the API server is not answered any more for *reason*, or is again (no reason)."""
        name = names.EVENT_AGENT_KUBERNETES_DOWN if reason else names.EVENT_AGENT_KUBERNETES_UP
        said: dict[str, Any] = {names.OTELBPF_WATCH_NAME: watch}
        self._tell(name, WARN if reason else INFO, f"{watch}: {reason or 'the API server answers again'}", said)

    def detail_changed(self, change: Change) -> None:
        """A limit of the agent's own has asked for less detail, or allows more again."""
        name = names.EVENT_AGENT_DETAIL_REDUCED if change.down else names.EVENT_AGENT_DETAIL_RESTORED
        said: dict[str, Any] = {names.OTELBPF_GUARD_NAME: change.guard, names.OTELBPF_GUARD_STEP: change.step}
        self._tell(name, WARN if change.down else INFO, change.sentence, said)

    def stage_changed(self, change: StageChange) -> None:
        """A stage is stuck, or moves again."""
        name = names.EVENT_AGENT_STAGE_STUCK if change.stuck else names.EVENT_AGENT_STAGE_MOVES
        said: dict[str, Any] = {names.OTELBPF_STAGE_NAME: change.stage}
        self._tell(name, ERROR if change.stuck else INFO, change.sentence, said)

    def close(self, deadline: float) -> bool:
        """Sends the last numbers and events until *deadline* (time.monotonic); says whether they were sent by then.

        `read` must still work. May be called twice.
        """
        if self._peer is None or self._closed:
            return True
        self._starting.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            self._closed = True
            sdk = self._sdk
        with self._asking:
            self._last = self._read()
            self._tell_losses(self._last)
        return sdk is not None and sdk.close(deadline)

    # What exporters tell (sender.Watcher)

    def acknowledged(self, exporter: str, request: Request) -> None:
        if self._peer is not None and exporter == self._peer[0] and request.signal != "metrics":
            lag_s = max(0.0, (time.time_ns() - request.oldest_ns) / 1e9)
            with self._lock:
                self._record_lag(lag_s)

    def down(self, exporter: str, sentence: str) -> None:
        self._tell(names.EVENT_AGENT_EXPORTER_DOWN, WARN, sentence, self._component(exporter))

    def up(self, exporter: str) -> None:
        self._tell(
            names.EVENT_AGENT_EXPORTER_UP,
            INFO,
            f"exporter {exporter}: the peer answers again",
            self._component(exporter),
        )

    def lost(self, exporter: str, signal: str, reason: str, items: int, message: str) -> None:
        if message:  # the items are in the ledger
            self._losses.explain(exporter, signal, reason, message)

    # In the thread that starts it, and in the SDK's

    def _start_again(self, before: threading.Thread | None, deadline: float) -> None:
        if before is not None:
            before.join()
        with self._lock:
            sdk, self._sdk = self._sdk, None
            self._emit, self._record_lag = self._told.append, self._lags.append
        if sdk is not None:
            sdk.close(deadline)
        self._start()

    def _start(self) -> None:
        from otelbpf.export.sdk import Sdk

        peer = self._peer
        if peer is None:
            return
        name, settings = peer
        try:
            sdk = Sdk(name, settings, self._resource, self._config.telemetry.interval)
        except OtelbpfError:
            return  # the exporter of the same settings has said it
        self._observe(sdk.meter())
        with self._lock:
            if not self._closed:
                self._sdk = sdk
                self._let_lags_through(sdk.meter())
                self._let_events_through(sdk.logger())
                return
        sdk.close(time.monotonic())

    def _observe(self, meter: Any) -> None:
        from opentelemetry.metrics import Observation

        def callback(
            points: Callable[[Reading], Iterable[tuple[float, dict[str, str]]]], *, first: bool
        ) -> Callable[[Any], Iterable[Observation]]:
            def observe_all(_: Any) -> Iterable[Observation]:
                # Instruments are asked in the order of their making: the first reads, the others see the same moment.
                reading = self._reading = self._new_reading() if first or self._reading is None else self._reading
                return [Observation(value, attributes) for value, attributes in points(reading)]

            return observe_all

        for number, (metric, points) in enumerate(all_instruments()):
            observe(meter, metric, callback(points, first=number == 0))

    def _let_lags_through(self, meter: Any) -> None:
        lag = names.METRIC_OTELBPF_AGENT_EVENT_LAG
        histogram = meter.create_histogram(
            str(lag), lag.unit, lag.description, explicit_bucket_boundaries_advisory=list(lag.bounds)
        )
        self._record_lag = histogram.record
        while self._lags:
            histogram.record(self._lags.popleft())

    def _let_events_through(self, logger: Any) -> None:
        from opentelemetry._logs import SeverityNumber

        def emit(told: _Told) -> None:
            logger.emit(
                timestamp=told.time_ns,
                observed_timestamp=told.time_ns,
                severity_number=SeverityNumber(told.severity),
                body=told.body,
                attributes=dict(told.attributes),
                event_name=str(told.name),
            )

        self._emit = emit
        while self._told:
            emit(self._told.popleft())

    def _new_reading(self) -> Reading:
        with self._asking:
            agent = self._last or self._read()
            self._tell_losses(agent)
        return Reading(agent, own_process(), self._outputs.components(), dict(self._reloads))

    def _tell_losses(self, agent: AgentNumbers) -> None:
        for loss in self._losses.grown(agent):
            attributes: dict[str, Any] = {names.ERROR_TYPE: loss.reason}
            attributes |= {names.OTELBPF_PROBE_NAME: loss.probe} if loss.probe else self._component(loss.exporter)
            self._tell(names.EVENT_AGENT_DATA_LOST, WARN, loss.sentence, attributes)

    def _tell(self, name: EventName, severity: int, body: str, attributes: Mapping[str, Any] | None = None) -> None:
        if self._peer is None:
            return
        said = dict(attributes or {})
        if self._config.logs.event_name_attribute:
            said[names.OTEL_EVENT_NAME] = str(name)
        told = _Told(name, severity, body, said, time.time_ns())
        with self._lock:
            self._emit(told)

    def _component(self, exporter: str) -> dict[str, Any]:
        kind = self._outputs.components().get(exporter)
        named: dict[str, Any] = {names.OTEL_COMPONENT_NAME: exporter}
        return named | ({names.OTEL_COMPONENT_TYPE: kind} if kind else {})


def _first_peer(config: Config) -> tuple[str, OtlpGrpc | OtlpHttp] | None:
    for name, settings in config.exporters.items():
        if not isinstance(settings, Console):
            return name, settings
    return None
