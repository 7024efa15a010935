"""The tables that a knock-out comes to, from what was measured with and without each set.

P prompt, S random set, G group of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.interventions.effects import ALL, changes, effects, groups_of, mean_interval, rank_p_value

__all__ = ["UNTOUCHED", "Measured", "dissociation_table", "double_table", "effect_table", "unit_of"]

UNTOUCHED = "untouched"
N_DRAWS = 2000
_NULL = ["random_mean", "random_low", "random_high", "p_value", "n_random"]
_DISSOCIATION = ["set", "serves", "inside", "outside", "difference", "low", "high", *_NULL]
_DOUBLE = ["a", "b", "a_on_a", "a_on_b", "b_on_a", "b_on_b", "interaction", "low", "high", *_NULL]


def unit_of(name: str, number: int) -> str:
    """Name of the pass without a set (number 0), or without one of its random sets."""
    return f"without {name}" if number == 0 else f"without {name}, random set {number}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured.

    Attributes:
        tables: of `Bench.measured`, by name of the pass.
        n_random: how many random sets each set has.
        seed: of the bootstrap.
    """

    tables: Mapping[str, pd.DataFrame]
    n_random: Mapping[str, int]
    seed: int

    @property
    def before(self) -> pd.DataFrame:
        """The untouched model."""
        return self.tables[UNTOUCHED]

    @cached_property
    def _changes(self) -> dict[str, pd.DataFrame]:
        return {name: changes(self.before, table) for name, table in self.tables.items()}

    def change(self, name: str, number: int, *, column: str = "nll") -> np.ndarray:
        """(prompt,) nll or score without a set, or without one of its random sets, less that of the whole model."""
        return self._changes[unit_of(name, number)][column].to_numpy()


def effect_table(measured: Measured, *, over: str) -> pd.DataFrame:
    """One row a set and group of prompts, as `KnockOut.effects` says."""
    return pd.concat([_effects_of(measured, name, over=over) for name in measured.n_random], ignore_index=True)


def _effects_of(measured: Measured, name: str, *, over: str) -> pd.DataFrame:
    before, n_random = measured.before, measured.n_random[name]
    own = effects(before, measured.tables[unit_of(name, 0)], over=over, seed=measured.seed)
    group = groups_of(before, over=over)
    masks = [np.ones(len(group), bool) if each == ALL else group == each for each in own["group"]]
    nll_SG, score_SG = (
        np.array(
            [
                [_mean(measured.change(name, number + 1, column=column)[mask]) for mask in masks]
                for number in range(n_random)
            ]
        ).reshape(n_random, len(masks))
        for column in ("nll", "score")
    )
    table = own.assign(set=name)
    for prefix, null_SG in (("random", nll_SG), ("random_score", score_SG)):
        for column, of in (("mean", np.mean), ("low", np.min), ("high", np.max)):
            table[f"{prefix}_{column}"] = of(null_SG, axis=0) if n_random else np.nan
    return table.assign(
        p_value=[rank_p_value(value, nll_SG[:, g]) for g, value in enumerate(own["nll_change"])],
        score_p_value=[rank_p_value(-value, -score_SG[:, g]) for g, value in enumerate(own["score_change"])],
        n_random=n_random,
    )


def dissociation_table(measured: Measured, serves: Mapping[str, str], *, over: str) -> pd.DataFrame:
    """One row a set that serves a group, as `KnockOut.dissociation` says."""
    group, rows = groups_of(measured.before, over=over), []
    for name, served in serves.items():
        mine = group == served
        own = measured.change(name, 0)
        null = [_split(measured.change(name, number + 1), mine) for number in range(measured.n_random[name])]
        difference = _split(own, mine)
        low, high = _difference_interval(own, mine, seed=measured.seed)
        about = {"set": name, "serves": served, "inside": _mean(own[mine]), "outside": _mean(own[~mine])}
        rows.append(about | {"difference": difference, "low": low, "high": high} | _against(difference, null))
    return pd.DataFrame(rows, columns=_DISSOCIATION)


def double_table(measured: Measured, serves: Mapping[str, str], *, over: str) -> pd.DataFrame:
    """One row a pair of sets that serve different groups, as `KnockOut.double` says."""
    group, rows = groups_of(measured.before, over=over), []
    for a, b in combinations(serves, 2):
        in_a, in_b = group == serves[a], group == serves[b]
        if serves[a] == serves[b]:
            continue
        contrast = measured.change(a, 0) - measured.change(b, 0)
        null = []
        for number in range(1, min(measured.n_random[a], measured.n_random[b]) + 1):
            other = measured.change(a, number) - measured.change(b, number)
            null.append(_mean(other[in_a]) - _mean(other[in_b]))
        interaction = _mean(contrast[in_a]) - _mean(contrast[in_b])
        both = in_a | in_b
        low, high = _difference_interval(contrast[both], in_a[both], seed=measured.seed)
        four = {
            f"{one}_on_{where}": _mean(measured.change(name, 0)[mask])
            for one, name in (("a", a), ("b", b))
            for where, mask in (("a", in_a), ("b", in_b))
        }
        found = {"a": a, "b": b, **four, "interaction": interaction, "low": low, "high": high}
        rows.append(found | _against(interaction, null))
    return pd.DataFrame(rows, columns=_DOUBLE)


def _against(observed: float, null: Sequence[float]) -> dict[str, Any]:
    """The random sets beside what was observed."""
    known = np.array(null) if len(null) else np.full(1, np.nan)
    return {
        "random_mean": float(known.mean()),
        "random_low": float(known.min()),
        "random_high": float(known.max()),
        "p_value": rank_p_value(observed, null),
        "n_random": len(null),
    }


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _split(values: np.ndarray, inside: np.ndarray) -> float:
    if not inside.any() or inside.all():
        return float("nan")
    return _mean(values[inside]) - _mean(values[~inside])


def _difference_interval(values: np.ndarray, inside: np.ndarray, *, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of a difference of two means, prompts drawn within each side."""
    rng = np.random.default_rng(seed)
    sides = [side[np.isfinite(side)] for side in (values[inside], values[~inside])]
    if min(map(len, sides)) < 2:
        return mean_interval(np.zeros(0))
    means = [side[rng.integers(0, len(side), (N_DRAWS, len(side)))].mean(axis=1) for side in sides]
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    return float(low), float(high)
