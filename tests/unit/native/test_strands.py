"""Messages laid from strands, held against the same messages put together one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelbpf.lines import Part, joined_words
from otelbpf.native.strands import Kind, Rows, Strand, Strands, of_part
from otelbpf.native.strands import laid as one_behind_the_other
from otelbpf.signals import wire

TAG, NAME = b"\x32", "number"
KEY = wire.field(wire.KEY, NAME.encode())
INTEGER_HEAD = TAG + wire.varint(len(KEY) + 3) + KEY + wire.VALUE + wire.varint(1) + wire.INT


@dataclass
class Laid:
    """A strand, and what each row has of it."""

    strand: Strand
    texts: list[bytes] = field(default_factory=list)


def padded(length: int, width: int) -> bytes:
    """*length* as a varint of *width* bytes."""
    groups = [length >> 7 * place & 0x7F | 0x80 for place in range(width)]
    return bytes([*groups[:-1], groups[-1] & 0x7F])


def cells(words: list[bytes], width: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(word.ljust(width, b"\xff") for word in words), f"V{width}").copy()


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Laid:
    """A strand of any kind that ends where it begins, for so many rows."""
    kind = draw(st.sampled_from([Kind.WORD, Kind.HEX, Kind.INTEGER]))
    known = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
    if kind is Kind.INTEGER:
        numbers = draw(st.lists(st.integers(0, 2**64 - 1), min_size=rows, max_size=rows))
        texts = [wire.attribute(TAG, NAME, number) for number in numbers]
        strand = Strand(kind, INTEGER_HEAD, np.array(numbers, np.uint64))
    else:
        strand, texts = draw(words(kind, rows))
    if known is not None:
        strand = strand._replace(known=np.array(known, np.bool_))
        texts = [text if there else b"" for text, there in zip(texts, known, strict=True)]
    return Laid(strand, texts)


@st.composite
def words(draw: st.DrawFn, kind: Kind, rows: int) -> tuple[Strand, list[bytes]]:
    head, width = draw(st.binary(max_size=20)), draw(st.sampled_from([1, 4, 8, 16, 17, 64]))
    codes = draw(st.none() | st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    count = rows if codes is None else 5
    sizes = st.binary(max_size=width) if draw(st.booleans()) else st.binary(min_size=width, max_size=width)
    each = draw(st.lists(sizes, min_size=count, max_size=count))
    lengths = None if all(len(word) == width for word in each) else np.array([len(word) for word in each])
    strand = Strand(kind, head, cells(each, width), lengths, None if codes is None else np.array(codes))
    of_rows = each if codes is None else [each[code] for code in codes]
    return strand, [head + (word.hex().encode() if kind is Kind.HEX else word) for word in of_rows]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 30))
def test_each_message_has_its_strands_in_order(data: st.DataObject, rows: int) -> None:
    before, inside, after = (data.draw(st.lists(columns(rows), max_size=3)) for _place in range(3))
    width = data.draw(st.integers(3, 8))
    strands = [
        *(laid.strand for laid in before),
        Strand(Kind.OPEN, b"(", width=width),
        Strand(Kind.OPEN, b"[", width=width),
        *(laid.strand for laid in inside),
        Strand(Kind.CLOSE),
        Strand(Kind.CLOSE),
        *(laid.strand for laid in after),
    ]

    def message(row: int) -> bytes:
        inner = b"".join(laid.texts[row] for laid in inside)
        middle = b"[" + padded(len(inner), width) + inner
        ends = (b"".join(laid.texts[row] for laid in part) for part in (before, after))
        return (b"(" + padded(len(middle), width) + middle).join(ends)

    wanted = [message(row) for row in range(rows)]
    laid = Strands(strands, rows)
    assert laid.lengths.tolist() == [len(text) for text in wanted]
    assert one_behind_the_other([Rows(laid, 0, rows)]) == b"".join(wanted)
    first = data.draw(st.integers(0, rows))
    last = data.draw(st.integers(first, rows))
    assert one_behind_the_other([b"<", Rows(laid, first, last), b"", b"|", Rows(laid, 0, first), b">"]) == b"".join(
        [b"<", *wanted[first:last], b"|", *wanted[:first], b">"]
    )


def of_texts(texts: list[bytes], codes: np.ndarray[Any, Any]) -> Strand:
    return of_part(Part(joined_words(texts), codes))


WORDS = cells([b"one", b"two"], 4)
LENGTHS = np.array([3, 3])


@pytest.mark.parametrize(
    "strands",
    [
        [Strand(Kind.WORD, b"", WORDS, LENGTHS, np.array([0, 2]))],
        [Strand(Kind.WORD, b"", WORDS, LENGTHS, np.array([-1, 0]))],
        [Strand(Kind.WORD, b"", WORDS, np.array([3, 5]))],
        [Strand(Kind.WORD, b"", WORDS, np.array([-1, 3]))],
        [Strand(Kind.WORD, b"", WORDS[:1])],
        [Strand(Kind.WORD, b"", WORDS, codes=np.array([0]))],
        [Strand(Kind.WORD, b"", WORDS, LENGTHS[:1])],
        [Strand(Kind.WORD, b"", WORDS, known=np.array([True]))],
        [Strand(Kind.INTEGER, INTEGER_HEAD, np.zeros(2, np.uint32))],
        [Strand(Kind.INTEGER, b"\x32", np.zeros(2, np.uint64))],
        [Strand(Kind.INTEGER, INTEGER_HEAD)],
        [Strand(Kind.CLOSE)],
        [Strand(Kind.OPEN, width=1)],
        [Strand(Kind.OPEN, width=0), Strand(Kind.CLOSE)],
        [Strand(Kind.OPEN, width=9), Strand(Kind.CLOSE)],
        [Strand(Kind.OPEN, width=1), Strand(Kind.WORD, bytes(128)), Strand(Kind.CLOSE)],
        [Strand(Kind.OPEN, width=1)] * 5 + [Strand(Kind.CLOSE)] * 5,
        [Strand(Kind.OPEN, width=1, known=np.array([True, False])), Strand(Kind.CLOSE)],
        [Strand(Kind.HEX)],
        [Strand(Kind.WORD, b"x", np.zeros(0, "V8"))],
        [Strand(Kind.WORD, b"x", np.zeros(0, "V8"), np.zeros(0, np.intp), np.array([5, -7]))],
        [Strand(1, INTEGER_HEAD, np.zeros(2, np.uint8))],
        [of_texts([b"one"], np.array([0, 1]))],
        [of_texts([b"one"], np.array([0, 0]))._replace(starts=np.array([1]))],
        [of_texts([b"one"], np.array([0, 0]))._replace(starts=np.array([-1]))],
        [of_texts([b"one"], np.array([0, 0]))._replace(starts=np.array([4]))],
        [of_texts([b"one"], np.array([0, 0]))._replace(starts=np.array([0, 0]))],
        [of_texts([b"one"], np.array([0, 0]))._replace(lengths=None)],
        [of_texts([b"one"], np.array([0, 0]))._replace(codes=None)],
        [of_texts([b"one"], np.array([0, 0]))._replace(words=WORDS)],
    ],
    ids=[
        "a code beyond the words", "a negative code", "a length beyond the cell", "a negative length", "too few words",
        "too few codes", "too few lengths", "too few known", "a short integer", "a head without lengths", "no number",
        "nothing to close", "left open", "a length of no bytes", "a length of nine bytes", "longer than its length says",
        "too deep", "a length that some rows do not have", "nothing in hexadecimal digits", "no word for rows", "no word for codes", "a kind without its name",
        "a text that there is not", "a text that ends too late", "a text that begins too early",
        "a text that begins after all", "a text without length", "texts without lengths", "fewer texts than rows",
        "texts in cells",
    ],
)  # fmt: skip
def test_what_would_lead_out_of_the_memory_is_refused(strands: list[Strand]) -> None:
    with pytest.raises(ValueError, match="not where it should be, or too long"):
        Strands(strands, 2)


def test_columns_of_a_struct_and_of_constants() -> None:
    rows = np.zeros(3, [("before", "u1"), ("word", "V4"), ("after", "u2")])
    rows["word"] = cells([b"abcd", b"efgh", b"ijkl"], 4)
    shown = np.broadcast_to(np.array([True]), 3)
    strands = Strands([Strand(Kind.WORD, b"", rows["word"], known=shown)], 3)
    assert one_behind_the_other([Rows(strands, 0, 3)]) == b"abcdefghijkl"


@pytest.mark.parametrize(("first", "last"), [(-1, 1), (2, 1), (0, 4), (4, 4)])
def test_rows_that_there_are_not_are_refused(first: int, last: int) -> None:
    strands = Strands([Strand(Kind.WORD, b"", np.arange(3, dtype=np.uint64))], 3)
    with pytest.raises(ValueError, match="not where it should be"):
        one_behind_the_other([b"text", Rows(strands, first, last)])


def test_text_alone_needs_no_rows() -> None:
    nothing = Strands([Strand(Kind.WORD)], 2)
    assert one_behind_the_other([]) == b""
    assert one_behind_the_other([b"a", Rows(nothing, 0, 2), b"b"]) == b"ab"


def test_texts_are_as_long_as_they_like() -> None:
    texts = [b"", b"x" * 70_000, b"word"]
    strands = Strands([of_texts(texts, np.array([2, 1, 0, 2])), Strand(Kind.WORD, b"|")], 4)
    assert one_behind_the_other([Rows(strands, 0, 4)]) == b"|".join([b"word", texts[1], b"", b"word", b""])


def test_nothing_but_empty_texts() -> None:
    strands = Strands([of_texts([b""], np.array([0, 0])), Strand(Kind.WORD, b"|")], 2)
    assert one_behind_the_other([Rows(strands, 0, 2)]) == b"||"


def test_numbers_that_are_not_aligned() -> None:
    codes = np.frombuffer(b"\0" + np.array([1, 0], np.intp).tobytes(), np.uint8)[1:].view(np.intp)
    assert one_behind_the_other([Rows(Strands([of_texts([b"a", b"b"], codes)], 2), 0, 2)]) == b"ba"
