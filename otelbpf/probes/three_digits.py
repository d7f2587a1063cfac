"""Quantities for people, in at most three digits: `64 B`, `1.2 kB`, `105 MB`, `850 µs`, `3.2 ms`.

So few digits make so few words that all of them fit in a table: a batch is put into words without formatting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otelbpf.lines import Part, Words, encoded_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_WORDS_A_STEP = 1000


class Step(NamedTuple):
    """What is said as tenths (`tenths`) or wholes of *size*, up to three digits."""

    size: float
    unit: str
    tenths: bool = False

    @property
    def limit(self) -> float:
        """The first value that would need a fourth digit."""
        return 99.95 * self.size if self.tenths else 999.5 * self.size


class Scale:
    """Steps from the smallest on; what is beyond the last stays at its largest word."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self._limits = np.array([step.limit for step in steps[:-1]])
        self._digits = np.array([step.size / 10 if step.tenths else step.size for step in steps])
        self._words: Words | None = None

    def part(self, values: NDArray[Any], unknown: NDArray[np.bool_] | None = None) -> Part:
        """A word for each value, a question mark for what is *unknown*, as a part of lines."""
        if self._words is None:  # made when it is first needed: it takes some ms
            self._words = encoded_words([*_all_words(self._steps), b"?"])
        codes = self._codes(values)
        if unknown is not None:
            codes[unknown] = len(self._steps) * _WORDS_A_STEP
        return Part(self._words, codes)

    def _codes(self, values: NDArray[Any]) -> NDArray[np.intp]:
        step = np.searchsorted(self._limits, values, "right")
        digits = np.minimum(np.rint(values / self._digits[step]), _WORDS_A_STEP - 1)
        codes: NDArray[np.intp] = step * _WORDS_A_STEP + digits.astype(np.intp)
        return codes


def _all_words(steps: Sequence[Step]) -> Iterator[bytes]:
    """Those of each step, from 0 to 999."""
    wholes = [b"%d " % digits for digits in range(_WORDS_A_STEP)]
    tenths = [b"%d.%d " % divmod(digits, 10) for digits in range(_WORDS_A_STEP)]
    for step in steps:
        unit = step.unit.encode()
        for digits in tenths if step.tenths else wholes:
            yield digits + unit


BYTES = Scale(
    Step(1, "B"),
    *(
        Step(size, unit, tenths)
        for size, unit in ((1e3, "kB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB"), (1e15, "PB"))
        for tenths in (True, False)
    ),
)
NANOSECONDS = Scale(
    Step(1e3, "µs"),
    Step(1e6, "ms", tenths=True),
    Step(1e6, "ms"),
    Step(1e9, "s", tenths=True),
    Step(1e9, "s"),
    Step(60e9, "min"),
    Step(3600e9, "h"),
    Step(86400e9, "d"),
)
