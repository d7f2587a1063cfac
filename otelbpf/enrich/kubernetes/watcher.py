"""The thread that keeps what is known of the cluster as the API server has it: all watches, one after another.

This node's pods come first and at once. What is asked for the whole cluster starts after a random moment, so that the
agents of all nodes do not ask together; the agent's start waits for it, so that the first rows find their names.
"""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.access import Access
from otelbpf.enrich.kubernetes.api import Api
from otelbpf.enrich.kubernetes.cluster import Known
from otelbpf.enrich.kubernetes.conntrack import Conntrack
from otelbpf.enrich.kubernetes.holders import Holders
from otelbpf.enrich.kubernetes.listing import PAGE, Resource
from otelbpf.enrich.kubernetes.presence import SERVICE_ACCOUNT
from otelbpf.enrich.kubernetes.refusals import NO_ANSWER, ApiError
from otelbpf.enrich.kubernetes.tables import Nodes, OwnPods, PeerPods, Services, Slices
from otelbpf.enrich.kubernetes.watch import SETTLED_S, Watch
from otelbpf.enrich.kubernetes.which_node import asked_node
from otelbpf.errors import described
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otelbpf.config import Kubernetes

PROC = Path("/proc")
PODS = "/api/v1/pods"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
SPREAD_S = 1.0
"""Half of what the agent's start waits for names by default (kubernetes.hold)."""
LIST_PAUSE_S = 0.01
"""A list comes object by object, and to wake up for each would cost a third more."""
SWEEP_S = 10.0
STUCK_S = 45.0
"""A turn takes milliseconds, and one request at most half of this."""
OWN_PODS, CLUSTER_OBJECTS = 4096, 200_000
"""Objects kept of each kind: far more than a node runs pods, more than a cluster may have of anything else."""
NODE_AGAIN_S = 5.0
STOP_S = 2.0
SENTENCES = 64


@dataclass(frozen=True, slots=True)
class WatchState:
    """What the agent says of one watch."""

    name: str
    answered: bool
    since_ns: int
    """Unix time from which on it is not answered; 0 while it is."""
    reason: str
    objects: int = 0
    undecodable: int = 0


class Watcher:
    """Watches while entered. `known` may be asked from any thread at any time."""

    def __init__(
        self,
        settings: Kubernetes,
        environ: Mapping[str, str],
        host_name: str | None,
        proc: Path = PROC,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> None:
        self._environ = environ
        self._host_name = host_name or ""
        self._access = Access(settings, environ, service_account)
        self._api = Api(self._access)
        self._own = OwnPods(settings)
        self._holders = Holders()
        services = Services(self._holders)
        self.conntrack = Conntrack(proc)
        self.known = Known(settings, self._own, self._holders, services, self.conntrack)
        self._peers: Watch | None = None
        self._own_watch: Watch | None = None
        self._watches = [
            self._watch("services", "/api/v1/services", services),
            self._watch("nodes", "/api/v1/nodes", Nodes(self._holders)),
        ]
        if settings.peers in ("pods", "auto"):
            self._peers = self._watch("peer_pods", PODS, PeerPods(self._holders))
            self._peers.most = settings.max_peer_pods if settings.peers == "auto" else 0
            self._watches.append(self._peers)
        elif settings.peers == "endpoints":
            self._watches.append(self._watch("endpoint_slices", SLICES, Slices(self._holders)))
        self._node_error = ""
        self._node_since_ns = 0
        self._told_once: set[tuple[Watch, str]] = set()
        self.sentences: deque[str] = deque(maxlen=SENTENCES)
        """What a person should know, oldest first."""
        self.on_change: Callable[[str, str], None] | None = None
        """Told when a watch is not answered any more (its name, the reason) and when it is again (an empty reason)."""
        self.failure: BaseException | None = None
        """What ended the thread, if anything but `__exit__` did."""
        self._turned_s = 0.0
        self._doing = ""
        self._stopping = threading.Event()
        self._tried = threading.Event()
        self.pulse = Pulse("kubernetes")
        self._thread = threading.Thread(target=self._run, name="kubernetes", daemon=True)

    def __enter__(self) -> Self:
        self.conntrack.__enter__()
        if self.conntrack.unavailable:
            self.sentences.append(
                f"kubernetes: connection tracking: {self.conntrack.unavailable}; services are named, but not the pods "
                "behind them"
            )
        self._selector = selectors.DefaultSelector()
        self._waker, self._waking = socket.socketpair()
        self._selector.register(self._waking, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._waker.send(b"x")
        self._thread.join(STOP_S)  # the head of an answer may be waited for; the thread is a daemon
        if not self._thread.is_alive():
            self._selector.close()
            self._waker.close()
            self._waking.close()
        self.conntrack.__exit__(None, None, None)

    def wait(self, seconds: float) -> bool:
        """Waits until all was listed once, or it was found that it cannot be; says whether this node's pods were."""
        self._tried.wait(seconds)
        return self._own_watch is not None and self._own_watch.health.listed

    def states(self) -> Iterator[WatchState]:
        """How each watch fares, now; from any thread."""
        if self._node_error:
            yield WatchState("node", answered=False, since_ns=self._node_since_ns, reason=self._node_error)
        stuck_s = self._stuck_s()
        for watch in self._all():
            health = watch.health
            since_ns, reason = health.down_since_ns, health.reason
            if stuck_s and not since_ns:
                since_ns, reason = time.time_ns() - int(stuck_s * 1e9), self._why_stuck()
            yield WatchState(
                watch.resource.name,
                health.listed and not since_ns,
                since_ns,
                reason,
                len(watch.table.uids()),
                health.undecodable,
            )

    def _stuck_s(self) -> float:
        """How long the thread has not turned, if that is long: an answer trickles, or a plug-in for credentials hangs."""
        silent_s = time.monotonic() - self._turned_s
        return silent_s if self._turned_s and silent_s > STUCK_S else 0.0

    def _why_stuck(self) -> str:
        if self.failure is not None:
            return f"the watching thread has failed: {described(self.failure)}"
        return f"still waiting {self._doing}"

    def examine(self) -> Iterator[tuple[str, bool, str]]:
        """Asks for one object of each kind, without watching: its name, whether that was refused, and a sentence."""
        self._find_node()
        yield "node", bool(self._node_error), self._node_error or f"{self.known.node_name} at {self._access.host}"
        for watch in () if self._node_error else self._all():
            resource = watch.resource
            try:
                page = PAGE.decode(self._api.get(resource.path, {**resource.query, "limit": "1"}))
            except ApiError as error:
                yield resource.name, True, f"{error.reason}; names of that kind will be missing"
                if error.status == NO_ANSWER:  # nobody else will be answered, and each would be waited for
                    return
            except objects.UNREADABLE:
                yield (
                    resource.name,
                    True,
                    "the answer is not what an API server says; names of that kind will be missing",
                )
            else:
                where = f" ({resource.selector})" if resource.selector else ""
                yield resource.name, False, f"may be listed{where}{'' if page.items else '; there are none now'}"

    def _all(self) -> list[Watch]:
        own = self._own_watch
        return [own, *self._watches] if own is not None else list(self._watches)

    def _watch(self, name: str, path: str, table: Nodes | PeerPods | Services | Slices | OwnPods) -> Watch:
        due_s = time.monotonic() + random.uniform(0, SPREAD_S)  # noqa: S311 - no secret
        return Watch(Resource(name, path), table, self._api, CLUSTER_OBJECTS, due_s, tell=self._told)

    def _run(self) -> None:
        try:
            self._keep_watching()
        except BaseException as error:  # noqa: BLE001 - names get old; what is seen in the kernel goes on without them
            self.failure = error
            self._turned_s = time.monotonic() - STUCK_S
            self.sentences.append(
                f"kubernetes: the watching thread has failed, names get old from now on: {described(error)}"
            )

    def _keep_watching(self) -> None:
        node_due_s = sweep_due_s = 0.0
        while not self._stopping.is_set():
            self._turned_s = now_s = time.monotonic()
            self.pulse.beat(SWEEP_S)
            if self._own_watch is None and now_s >= node_due_s:
                self._doing = "to hear which node this is"
                self._find_node()
                node_due_s = time.monotonic() + NODE_AGAIN_S
            for watch in self._all():
                watch.check(now_s)
            self._open_one()
            self._choose_peers()
            self._wait_and_read(node_due_s)
            self.known.is_complete = self._peers is not None and all(watch.is_complete for watch in self._watches)
            if self._node_error or all(watch.tried for watch in self._all()):
                self._tried.set()
            if now_s >= sweep_due_s:
                self._sweep()
                sweep_due_s = now_s + SWEEP_S
        self.pulse.end()
        for watch in self._all():
            watch.close()

    def _open_one(self) -> None:
        """One at a time: a server that is slow to answer may tell on other streams meanwhile."""
        for watch in self._all():
            if watch.stream is None and not watch.too_many and watch.due_s <= time.monotonic():
                self._doing = f"for an answer about {watch.resource.name}"
                watch.open()
                return

    def _wait_and_read(self, node_due_s: float) -> None:
        """Waits for what comes first: something to read, a watch that is due, the end."""
        if any(watch.listing for watch in self._all()):
            self._stopping.wait(LIST_PAUSE_S)
        reading = {watch.stream.fileno(): watch for watch in self._all() if watch.stream is not None}
        for descriptor in reading:
            self._selector.register(descriptor, selectors.EVENT_READ)
        due = [watch.due_s for watch in self._all() if watch.stream is None and not watch.too_many]
        if self._own_watch is None:
            due.append(node_due_s)
        if any(watch.stream is not None and watch.health.down_since_ns for watch in self._all()):
            due.append(time.monotonic() + SETTLED_S)
        more = [watch for watch in reading.values() if watch.stream is not None and watch.stream.more]
        wait_s = 0.0 if more else max(0.0, min([*due, time.monotonic() + SWEEP_S]) - time.monotonic())
        ready = self._selector.select(wait_s)
        for descriptor in reading:
            self._selector.unregister(descriptor)
        for watch in dict.fromkeys([*(reading[key.fd] for key, _ in ready if key.fd in reading), *more]):
            watch.read()

    def _sweep(self) -> None:
        now_ns = time.time_ns()
        self._own.sweep(now_ns)
        self._holders.sweep(now_ns)
        for watch in self._all():
            if watch.health.beyond:
                self._tell_once(watch, f"more than {watch.limit}, and no room for the others: they have no names")
            if watch.health.undecodable:
                self._tell_once(watch, "something that was told could not be read: it has no name, or an older one")

    def _tell_once(self, watch: Watch, what: str) -> None:
        if (watch, what) not in self._told_once:
            self._told_once.add((watch, what))
            self.sentences.append(f"kubernetes: {watch.resource.name}: {what}")

    def _choose_peers(self) -> None:
        """`auto`: with too many pods their EndpointSlices are watched instead."""
        peers = self._peers
        if peers is None or not peers.too_many:
            return
        self.sentences.append(
            f"kubernetes: the cluster has more than {peers.most} pods (kubernetes.max_peer_pods), so the other ends of "
            "connections are named by EndpointSlices: pods that no service selects stay without a name"
        )
        now_ns = time.time_ns()
        for uid in list(peers.table.uids()):
            peers.table.gone(uid, now_ns)
        self._holders.forget_ended()
        self._watches[self._watches.index(peers)] = self._watch("endpoint_slices", SLICES, Slices(self._holders))
        self._peers = None

    def _find_node(self) -> None:
        try:
            name = self.known.node_name or self._asked_node()
        except ApiError as error:
            self._node_unknown(error.reason)
            return
        except objects.UNREADABLE:
            self._node_unknown("the answer is not what an API server says")
            return
        if self._node_error:
            self._told_of("node", "")
        self._node_error = ""
        self.known.node_name = name
        self._own_watch = Watch(
            Resource("pods", PODS, f"spec.nodeName={name}"), self._own, self._api, OWN_PODS, tell=self._told
        )

    def _node_unknown(self, reason: str) -> None:
        if not self._node_error:
            self._node_since_ns = time.time_ns()
            self._told_of("node", reason)
        self._node_error = reason

    def _asked_node(self) -> str:
        pod = self._environ.get("POD_NAME") or self._environ.get("HOSTNAME", "")
        return asked_node(self._api, self._host_name, self._access.namespace(), pod)

    def _told(self, watch: Watch, reason: str) -> None:
        self._told_of(watch.resource.name, reason)

    def _told_of(self, name: str, reason: str) -> None:
        what = f"not answered: {reason}; names of that kind are missing until it is" if reason else "answered again"
        self.sentences.append(f"kubernetes: {name}: {what}")
        if self.on_change is not None:
            self.on_change(name, reason)
