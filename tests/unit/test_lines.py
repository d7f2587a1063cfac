"""Lines put together from parts."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.lines import Lines, Part, words


@given(st.lists(st.text(max_size=80), min_size=1, max_size=20), st.data())
def test_parts_side_by_side(texts: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=30))
    lines = Lines(len(rows), Part(words(texts), np.array(rows)), " → ", Part(words([str(row) for row in rows])))
    # What UTF-8 cannot say and what is no letter becomes a question mark, and a zero is no part of a text.
    clean = [
        re.sub(r"[\x01-\x1f\x7f-\x9f\u2028\u2029]", "?", text.encode("utf-8", "replace").decode().replace("\0", ""))
        for text in texts
    ]
    wanted = [f"{clean[row]} → {row}" for row in rows]
    assert list(lines) == wanted
    assert lines.lengths().tolist() == [len(line.encode()) for line in wanted]


def test_lines_that_were_written_one_by_one() -> None:
    assert list(Lines.written(iter(["a", "", "ü"]))) == ["a", "", "ü"]
    assert list(Lines.written([])) == []
