"""The effect of an intervention: the same prompts before and after, and how sure that is.

P prompt, B bootstrap draw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from routing import SelectionError

__all__ = ["ALL", "EFFECT_COLUMNS", "changes", "effects", "groups_of", "mean_interval", "rank_p_value"]

ALL = "all"
"""The group of all prompts."""

EFFECT_COLUMNS = (
    "group", "n_prompts", "nll_before", "nll_change", "low", "high",
    "score_before", "score_change", "score_low", "score_high",
)  # fmt: skip

N_DRAWS = 2000


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Prompt by prompt, after minus before: prompt, task, task_type, nll, score.

    Raises:
        SelectionError: the two are not of the same prompts.
    """
    if before["prompt"].tolist() != after["prompt"].tolist():
        msg = "The prompts before and after differ, so nothing can be paired. Measure the same prompts twice."
        raise SelectionError(msg)
    about = before[["prompt", "task", "task_type"]]
    return about.assign(nll=after["nll"] - before["nll"], score=after["score"] - before["score"])


def groups_of(table: pd.DataFrame, *, over: str) -> np.ndarray:
    """(prompt,) the group of each prompt.

    Raises:
        SelectionError: prompts have no such column.
    """
    if over not in ("task", "task_type"):
        msg = f"Prompts cannot be grouped by {over!r}. Group them by 'task' or 'task_type'."
        raise SelectionError(msg)
    return table[over].to_numpy()


def effects(before: pd.DataFrame, after: pd.DataFrame, *, over: str, seed: int = 0) -> pd.DataFrame:
    """Mean change of each group of prompts and of all, paired by prompt.

    Returns:
        one row a group: n_prompts, nll_before and nll_change in nats a token, low and high (95 % bootstrap over
        prompts), score_before and score_change in shares, with score_low and score_high.
    """
    changed, group = changes(before, after), groups_of(before, over=over)
    rows = []
    for name in (ALL, *dict.fromkeys(group)):
        mine = np.ones(len(group), bool) if name == ALL else group == name
        low, high = mean_interval(changed["nll"].to_numpy()[mine], seed=seed)
        score_low, score_high = mean_interval(changed["score"].to_numpy()[mine], seed=seed)
        rows.append(
            {
                "group": name,
                "n_prompts": int(mine.sum()),
                "nll_before": before["nll"][mine].mean(),
                "nll_change": changed["nll"][mine].mean(),
                "low": low,
                "high": high,
                "score_before": before["score"][mine].mean(),
                "score_change": changed["score"][mine].mean(),
                "score_low": score_low,
                "score_high": score_high,
            }
        )
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def mean_interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over prompts; NaN with fewer than two.

    Returns:
        (low, high) · as the values · any.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (N_DRAWS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def rank_p_value(observed: float, null: Sequence[float] | np.ndarray) -> float:
    """One-sided: how often chance does at least as much, the observed one counted in.

    Returns:
        scalar · p-value · 1/(n+1) to 1; NaN without a null.
    """
    null = np.asarray(null, dtype=float)
    if not len(null) or not np.isfinite(observed):
        return float("nan")
    return float((1 + (null >= observed - 1e-12).sum()) / (1 + len(null)))
