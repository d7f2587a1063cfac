"""The choice of records while not all are made: unbiased, nested, the same at both ends, and accounted for."""

from __future__ import annotations

import numpy as np
import pytest

from otelbpf.signals.logs import Logs
from otelbpf.signals.sampling import EVERYTHING, SAMPLED, SPARSE, STEPS_DOWN, TOTALS, Due, Sampling
from tests.unit.signals import oracle, sample

NOW = 1_800_000_000_000_000_000
COUNT = 200_000


def kept(detail, identities, failed=False, key=""):
    """The rows and weights of one choice."""
    rows = np.arange(len(identities))
    return Sampling(key).of(detail, rows, identities.astype(np.uint64), np.full(len(rows), failed))


IDENTITIES = {
    "random": np.random.default_rng(1).integers(0, 2**63, COUNT),
    "counted": np.arange(COUNT),
    "in steps": np.arange(COUNT) << 40,
}


@pytest.mark.parametrize("key", ["", "secret"])
@pytest.mark.parametrize("identities", IDENTITIES.values(), ids=IDENTITIES)
@pytest.mark.parametrize("detail", [SAMPLED, SPARSE])
def test_weights_estimate_the_truth(detail, identities, key):
    """Each row is kept with probability 1/n and weight n, so the sum has the variance COUNT · (n - 1): 5 sigma."""
    for failed, one_in in ((False, detail.ordinary), (True, detail.failed)):
        weights = kept(detail, identities, failed, key).weights
        assert set(weights.tolist()) == {one_in}
        assert abs(int(weights.sum()) - COUNT) <= 5 * (COUNT * (one_in - 1)) ** 0.5


def test_what_is_kept_of_few_is_kept_of_more():
    identities = IDENTITIES["random"]
    assert {*kept(SPARSE, identities).rows.tolist()} < {*kept(SAMPLED, identities).rows.tolist()}


def test_another_key_keeps_others():
    identities = IDENTITIES["counted"]
    assert kept(SPARSE, identities).rows.tolist() != kept(SPARSE, identities, key="secret").rows.tolist()


def test_equal_identities_share_one_fate():
    identities = np.repeat(IDENTITIES["random"][:1000], 2)
    rows = kept(SAMPLED, identities).rows
    assert (rows[::2] + 1 == rows[1::2]).all()


def test_every_step_down_keeps_less():
    shares = [(1 / one.ordinary if one.ordinary else 0, 1 / one.failed if one.failed else 0) for one in STEPS_DOWN]
    assert shares == sorted(shares, reverse=True)
    assert (STEPS_DOWN[0], STEPS_DOWN[-1]) == (EVERYTHING, TOTALS)


def test_totals_only_makes_no_record_and_counts_what_was_due():
    engine, batch = Logs(sample.config(), [sample.PROBE], lambda: NOW), sample.batch(500, seed=5)
    due = sum(request.items for request in engine.encode(batch))
    engine.sampling.now = Due(TOTALS, "memory_limit")
    assert list(engine.encode(batch)) == []
    assert engine.sampling.made == {sample.PROBE.name: due}
    assert engine.sampling.shed == {(sample.PROBE.name, "memory_limit"): due}


def test_everything_again_is_as_if_nothing_had_been():
    batch = sample.batch(500, seed=6)
    engine = Logs(sample.config(), [sample.PROBE], lambda: NOW)
    engine.sampling.now = Due(SPARSE, "cpu_limit")
    list(engine.encode(batch))
    engine.sampling.now = Due(EVERYTHING, "")
    assert oracle.parsed_logs(engine.encode(batch)) == oracle.log_records(sample.PROBE, batch, NOW)
