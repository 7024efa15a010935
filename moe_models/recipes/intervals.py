"""Means over seeds, and how far they can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Two-sided 95 % points of Student's t by degrees of freedom; seeds are few, and resampling three of them would
# give an interval that is far too narrow.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_95_MANY = 2.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of n values with the 95 % interval of Student's t; the interval is None for a single value."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.mean:+.3f} (one value)"
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], n = {self.n}"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of values, one a seed, with its interval.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        message = "There are no values to take the mean of. Give one value a seed."
        raise ValueError(message)
    sample = np.asarray(values, dtype=float)
    center, n = float(sample.mean()), len(sample)
    if n == 1:
        return Interval(mean=center, low=None, high=None, n=1)
    point = _T_95[n - 2] if n - 2 < len(_T_95) else _T_95_MANY
    half = point * float(sample.std(ddof=1)) / n**0.5
    return Interval(mean=center, low=center - half, high=center + half, n=n)


def paired_interval(values: dict[int, float], others: dict[int, float]) -> Interval:
    """Return the mean of values − others over the seeds that both have, with its interval.

    Raises:
        ValueError: they have no seed in common.
    """
    seeds = sorted(values.keys() & others.keys())
    if not seeds:
        message = f"Seeds {sorted(values)} and {sorted(others)} have none in common. Run both methods with equal seeds."
        raise ValueError(message)
    return mean_interval([values[seed] - others[seed] for seed in seeds])


def holm_adjusted(samples: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return how surely each of several means differs from zero: ``p`` of Student's t, ``adjusted`` for all together.

    Holm's step-down adjustment (1979): the chance that any mean is called different that is not. Samples of one value
    are left out: they have no p.
    """
    p_values = {name: float(stats.ttest_1samp(its, 0.0).pvalue) for name, its in samples.items() if len(its) > 1}
    found: dict[str, dict[str, float]] = {}
    least = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[name]))
        found[name] = {"p": p_values[name], "adjusted": least}
    return {name: found[name] for name in p_values}
