from __future__ import annotations

import itertools

import numpy as np
import pytest

from otelbpf.errors import CannotRun
from otelbpf.kernel.btf import Btf, record_dtype
from tests.kernel.sample import compile_sample

HEAD = [
    ("time_ns", "<u8"),
    ("cgroup_id", "<u8"),
    ("executable", "<u8"),
    ("pid", "<u4"),
    ("netns", "<u4"),
    ("comm", "S16"),
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return Btf.read(compile_sample(tmp_path_factory.mktemp("objects")))


def test_a_struct_becomes_a_dtype_with_its_head_nested(sample):
    assert sample.layout("sample") == np.dtype(
        {
            "names": ["head", "sequence", "negative", "ports", "address", "name", "yes", "payload"],
            "formats": [HEAD, "<u8", "<i4", ("<u2", 4), "V16", "S12", "?", "V64"],
            "offsets": [0, 48, 56, 60, 68, 84, 96, 97],
            "itemsize": 168,
        }
    )


def test_a_record_is_the_struct_behind_a_header_and_padded_to_eight_bytes():
    layout = np.dtype({"names": ["a", "b"], "formats": ["<u4", "u1"], "offsets": [0, 4], "itemsize": 5})
    record = record_dtype(layout)
    assert record.itemsize == 16
    rows = np.frombuffer(bytes(8) + b"\1\0\0\0\2xxx" + bytes(8) + b"\3\0\0\0\4xxx", record)
    assert rows["a"].tolist() == [1, 3]
    assert rows["b"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("struct", "sentence"),
    [
        ("with_union", "with_union.either is a union, which has no array form"),
        ("with_bits", "with_bits has a bit field"),
        ("with_enum", "with_enum.color is an enumeration"),
        ("with_pointer", "with_pointer.pointer is a pointer"),
        ("no_such", r"no struct no_such in its BTF; EVENT\(no_such\) keeps it there"),
    ],
)
def test_what_has_no_array_form_is_refused_with_a_sentence(sample, struct, sentence):
    with pytest.raises(CannotRun, match=sentence):
        sample.layout(struct)


def test_variables_stand_apart_and_have_their_types(sample):
    counts = sample.variable("event_counts", ".bss")[1]
    assert counts.names == ("seen", "filtered", "throttled", "ring_full", "pending_full", "unread", "pending")
    assert sample.variable("some_ports", ".rodata")[1] == np.dtype(("<u2", (4,)))
    assert sample.variable("wanted", ".rodata")[1] == np.dtype("?")
    places = sorted(place for place in sample.variables.values() if place.section == ".bss")
    for before, after in itertools.pairwise(places):
        assert before.offset + before.size <= after.offset


def test_an_unknown_variable_is_told_with_those_that_are_there(sample):
    with pytest.raises(CannotRun, match=r"no variable bursts in \.rodata \(there are: burst, cgroup_v1, discard_every"):
        sample.variable("bursts", ".rodata")


def test_a_variable_is_not_found_in_another_section(sample):
    with pytest.raises(CannotRun, match=r"no variable calls in \.rodata"):
        sample.variable("calls", ".rodata")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not an object", b"\x7fELF\x02\x01" + bytes(10)])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
    (tmp_path / "x.bpf.o").write_bytes(content)
    with pytest.raises(CannotRun, match="not a compiled BPF object"):
        Btf.read(tmp_path / "x.bpf.o")


def test_a_missing_object_says_how_to_make_it(tmp_path):
    with pytest.raises(CannotRun, match="`make bpf` makes it"):
        Btf.read(tmp_path / "x.bpf.o")
