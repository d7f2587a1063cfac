from __future__ import annotations

import pytest

from otelbpf.kernel import capabilities

STATUS = "Name:\tpython\nCapInh:\t0000000000000000\nCapEff:\t000000c000001000\nSeccomp:\t0\n"


def test_the_effective_set_is_read_from_proc_status():
    assert capabilities.effective(STATUS) == 1 << 38 | 1 << 39 | 1 << 12


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        pytest.param(0, ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"], id="an ordinary user lacks all"),
        pytest.param(1 << 38 | 1 << 39 | 1 << 12, [], id="the three suffice"),
        pytest.param(1 << 21, ["CAP_NET_ADMIN"], id="CAP_SYS_ADMIN stands for two of them"),
        pytest.param(2**41 - 1, [], id="root has all"),
    ],
)
def test_what_is_missing(held, missing):
    assert capabilities.missing(held) == missing


def test_what_is_recommended():
    assert capabilities.missing_recommended(1 << 2) == ["CAP_SYS_PTRACE"]


@pytest.mark.parametrize(("absent", "noun"), [(["CAP_BPF"], "capability CAP_BPF:"), (["A", "B"], "capabilities A, B:")])
def test_the_sentence_says_what_and_how(absent, noun):
    sentence = capabilities.sentence(absent)
    assert noun in sentence
    assert "run as root" in sentence
    assert "securityContext" in sentence
