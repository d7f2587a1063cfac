"""Lists without streaming, for API servers that do not stream them: in answers that fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.refusals import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.enrich.kubernetes.api import Api

PAGE_OBJECTS = 500
PAGE = objects.decoder(objects.Page)


@dataclass(frozen=True, slots=True)
class Resource:
    """What to watch. *selector* narrows it to few objects, which may then be listed at once."""

    name: str
    path: str
    selector: str = ""

    @property
    def query(self) -> dict[str, str]:
        """What every question about it says."""
        return {"fieldSelector": self.selector} if self.selector else {}


def pages(api: Api, resource: Resource) -> Iterator[objects.Page]:
    """All that there is, in parts; the last one's version is the list's. Raises ApiError, and objects.UNREADABLE.

    Few objects come from the server's cache, in one part: a limit is not heeded there, and without that version an
    older server reads every object of the cluster from etcd, once for each node.
    """
    if resource.selector:
        try:
            yield PAGE.decode(api.get(resource.path, {**resource.query, "resourceVersion": "0"}))
        except TooLargeError:
            pass
        else:
            return
    yield from _limited(api, resource)


def _limited(api: Api, resource: Resource) -> Iterator[objects.Page]:
    limit, following = PAGE_OBJECTS, ""
    while True:
        more = {"continue": following} if following else {}
        try:
            page = PAGE.decode(api.get(resource.path, {**resource.query, "limit": str(limit), **more}))
        except TooLargeError:  # an object may have 1.5 MB
            if limit == 1:
                raise
            limit = max(1, limit // 4)
            continue
        yield page
        following = page.metadata.continue_
        if not following:
            return


def count(api: Api, resource: Resource) -> int:
    """How many objects there are at least, for the price of one. Raises ApiError, and objects.UNREADABLE."""
    page = PAGE.decode(api.get(resource.path, {**resource.query, "limit": "1"}))
    return len(page.items or ()) + max(0, page.metadata.remaining_item_count or 0)
