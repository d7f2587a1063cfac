"""What a benchmark finds: one line of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Figure(NamedTuple):
    """One measured value, what is to be reached, and what a reader needs to judge it."""

    name: str
    measured: str
    goal: str = ""
    note: str = ""


def table(figures: Iterable[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = ["| figure | measured | to reach | note |", "|---|---|---|---|"]
    return "\n".join(rows + [f"| {' | '.join(figure)} |" for figure in figures])
