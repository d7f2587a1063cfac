"""What the sums of throttled events have in common, whatever the probe.

Their points are of the probe's own counters and of the same resource, so sums over a resource are right. They say that
they are beyond a cap, as the metrics specification has it, and that the throttle was it: the points for what is beyond
`metrics.max_series` are others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf.probes.probe import Attribute, Choice, Constant
from otelbpf.signals import names

if TYPE_CHECKING:
    from otelbpf.batch import Batch

EVENTS = "events"
"""The sum that every probe has: how many."""
THROTTLED: tuple[Attribute, ...] = (
    Choice(names.OTEL_METRIC_OVERFLOW, "overflow", {1: True}),
    Constant(names.OTELBPF_EVENT_OUTCOME, "throttled"),
)


def marked(batch: Batch) -> Batch:
    """*batch* with the column that `THROTTLED` needs."""
    batch.columns["overflow"] = np.ones(len(batch), np.uint8)
    return batch
