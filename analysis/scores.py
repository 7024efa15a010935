"""How well the model did at each task, beside what a constant answer would get."""

from __future__ import annotations

import numpy as np
import pandas as pd

from routing.trace import RoutingTrace

__all__ = ["task_scores"]

_COLUMNS = [
    "task_type",
    "metric",
    "n_prompts",
    "n_scored",
    "score",
    "score_low",
    "score_high",
    "baseline",
    "baseline_answer",
]


def task_scores(trace: RoutingTrace, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean score of each task with a 95 % interval, and the score of always giving the most frequent answer.

    The interval comes from drawing prompts with replacement. `baseline` is the share of the task's most frequent
    target: what accuracy or exact match would be for a model that always gives it. It is taken from the very
    prompts that are scored, so it is the best constant answer in hindsight; it is missing (NaN) for other metrics,
    and where no target occurs twice.

    Returns:
        (task) · task_type, metric, n_prompts, n_scored, score, score_low, score_high, baseline, baseline_answer ·
        scores 0 to 1; NaN where the trace holds none.
    """
    prompts = trace.prompts
    rng = np.random.default_rng(seed)
    rows = []
    for task in trace.tasks:
        part = prompts[prompts["task"] == task]
        scores = pd.to_numeric(part["score"], errors="coerce").to_numpy(float)
        scores = scores[np.isfinite(scores)]
        metric = _only(part["metric"]) if "metric" in part else ""
        answer, baseline = _most_frequent(part["target"]) if metric in ("accuracy", "exact_match") else ("", np.nan)
        low = high = np.nan
        if len(scores) > 1 and n_bootstrap:
            means = rng.choice(scores, size=(n_bootstrap, len(scores))).mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
        rows.append(
            {
                "task_type": trace.task_types[task],
                "metric": metric,
                "n_prompts": len(part),
                "n_scored": len(scores),
                "score": scores.mean() if len(scores) else np.nan,
                "score_low": low,
                "score_high": high,
                "baseline": baseline,
                "baseline_answer": answer,
            }
        )
    frame = pd.DataFrame(rows, index=pd.Index(list(trace.tasks), name="task"), columns=_COLUMNS)
    frame.attrs["unit"] = {
        "n_prompts": "prompts",
        "n_scored": "prompts",
        "score": "score",
        "score_low": "score",
        "score_high": "score",
        "baseline": "score",
    }
    return frame


def _only(values: pd.Series) -> str:
    known = [value for value in values.dropna().unique() if str(value)]
    return str(known[0]) if len(known) == 1 else "mixed" if known else ""


def _most_frequent(targets: pd.Series) -> tuple[str, float]:
    known = targets.dropna().astype(str).str.strip()
    known = known[known != ""]
    if known.empty:
        return "", np.nan
    counts = known.value_counts()
    if counts.iloc[0] < 2:
        return "", np.nan
    return str(counts.index[0]), float(counts.iloc[0] / len(known))
