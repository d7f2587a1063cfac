"""What a sender needs of a way to a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from otelbpf.export.answer import Answer
    from otelbpf.export.endpoint import Endpoint
    from otelbpf.export.request import Request


class Transport(Protocol):
    """A way to a peer. A context manager, entered by the thread with the first request; then all of them send."""

    component: str
    """otel.component.type."""
    timeout_s: float

    @property
    def endpoint(self) -> Endpoint | None:
        """The peer; None when it is none on the network."""

    def check(self) -> None:
        """Looks at what the settings name, without the network; raises ConfigError. Called before it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """Ends it from another thread: a `send` under way ends as soon as it can. May be called more than once."""

    def send(self, request: Request, timeout_s: float) -> Answer:
        """One try, of at most *timeout_s*; whatever goes wrong is a Failure."""
