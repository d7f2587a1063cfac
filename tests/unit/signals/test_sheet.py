"""Messages written as a sheet, held against the same messages joined one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelbpf.lines import Part, words
from otelbpf.signals import sheet
from otelbpf.signals.attributes import blocks_of
from otelbpf.signals.rows import Hole
from otelbpf.signals.sheet import Columns, Layout, Section

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=90)


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[int], list[bool], list[str], list[bytes]]:
    """A number, whether it is known, a text and a block for each message."""
    count = draw(st.integers(1, 40))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return (
        column(st.integers(0, 2**32 - 1)),
        column(st.booleans()),
        column(TEXTS),
        column(st.binary(max_size=200)),
    )  # type: ignore[return-value]  # draw() of lists loses the type of what is in them


@settings(max_examples=150, deadline=None)
@given(messages(), st.sampled_from([1, 300, 1 << 18]))
def test_each_message_has_its_parts_in_order(
    drawn: tuple[list[int], list[bool], list[str], list[bytes]], sheet_bytes: int
) -> None:
    numbers, known, texts, blocks = drawn
    columns = Columns(numbers={"number": np.array(numbers, "<u4")})
    columns.add("other", np.array(numbers, ">u4"), np.array(known))
    columns.texts["text"] = Part(words(texts))
    columns.blocks["block"] = blocks_of(blocks, np.arange(len(blocks)))
    sections = [Section((b"\0<", Hole("number", "<u4")))]
    if "other" in columns.numbers:
        sections.append(Section((b"\0=", Hole("other", ">u4")), "other"))
    layout = Layout(sections, (b"text:", Hole("text", columns.texts["text"].words.cells.dtype.str), b";"), [
        Hole("block", columns.blocks["block"].words.cells.dtype.str)
    ])  # fmt: skip
    wanted = [
        b"\0<" + number.to_bytes(4, "little") + (b"\0=" + number.to_bytes(4, "big")) * there
        + b"text:" + text.encode() + b";" + block
        for number, there, text, block in zip(numbers, known, texts, blocks, strict=True)
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheet, "SHEET_BYTES", sheet_bytes)
        written = b"".join(part.tobytes() for part in layout.written(len(numbers), columns))
    assert written == b"".join(wanted)
    assert layout.lengths(len(numbers), columns).tolist() == [len(message) for message in wanted]


def test_columns_that_fit_one_layout_have_one_key() -> None:
    def key(texts: list[str], kind: str) -> object:
        return Columns({"number": np.zeros(2, kind)}, {"text": Part(words(texts))}).key()

    assert key(["a", "b"], "<u4") == key(["ccc", ""], "<u4") != key(["a", "b"], "<u8")
    assert key(["a", "b"], "<u4") != key(["a" * 50, "b"], "<u4")
