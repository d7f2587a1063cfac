"""The queries of docs/questions.md, by the question above them."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.deploy.objects import ROOT

PAGE = ROOT / "docs" / "questions.md"
HEADING = re.compile(r"^## ([^\n]*)$|^```(promql|logql)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Query(NamedTuple):
    """The *number*-th query below a *question*."""

    question: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.question} {self.number}"


def queries() -> list[Query]:
    """All of them, in order."""
    found: list[Query] = []
    question, number = "", 0
    for heading, language, text in HEADING.findall(PAGE.read_text()):
        if heading:
            question, number = heading, 0
        else:
            number += 1
            found.append(Query(question, number, language, text))
    return found
