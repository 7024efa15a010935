"""Whose answers got better or worse between two runs of the same prompts.

Legend: P prompt, R resampling.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.nulls import q_values
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["score_changes"]

_TIE = 1e-9


def score_changes(before: RoutingTrace, after: RoutingTrace, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How the scores of the same prompts changed, task by task.

    `difference` is after − before with a 95 % interval from drawing prompts again. `p_value`: exact sign test of the
    prompts whose score changed, `n_up` better and `n_down` worse; two-sided, `q_value` over tasks.

    Args:
        before: a trace with scores.
        after: another one; prompts that both scored are compared.
        n_bootstrap: draws for the interval; 0 for none.
        seed: of the draws.

    Returns:
        (task) · n_prompts, score_before, score_after, difference, difference_low, difference_high, n_up, n_down,
        p_value, q_value · scores 0 to 1, differences −1 to 1 · tasks without a prompt that both scored have no row;
        attrs["overall"] holds the columns for all of them together.

    Raises:
        TraceError: the traces have no prompt in common that both scored.
    """
    mine, theirs = after.prompts, before.prompts
    # As plain objects: a look-up of each among text columns takes longer than all that follows.
    place_P = pd.Index(theirs["prompt"].to_numpy(dtype=object)).get_indexer(mine["prompt"].to_numpy(dtype=object))
    known = place_P >= 0
    now, then = (pd.to_numeric(table["score"], errors="coerce").to_numpy(float) for table in (mine, theirs))
    now, then = now[known], then[place_P[known]]
    scored = np.isfinite(now) & np.isfinite(then)
    if not scored.any():
        msg = (
            f"The two traces share {int(known.sum())} prompts, none of them with a score in both. "
            "Record both over the same tasks, with targets and answers."
        )
        raise TraceError(msg)
    task_P = mine.loc[known, "task"].to_numpy(dtype=str)[scored]
    now, then = now[scored], then[scored]
    rng = np.random.default_rng(seed)
    tasks = [task for task in after.tasks if (task_P == task).any()]
    rows = [_changed(then[task_P == task], now[task_P == task], n_bootstrap=n_bootstrap, rng=rng) for task in tasks]
    frame = pd.DataFrame(rows, index=pd.Index(tasks, name="task"))
    frame["q_value"] = q_values(frame["p_value"].to_numpy())
    frame.attrs["overall"] = _changed(then, now, n_bootstrap=n_bootstrap, rng=rng)
    frame.attrs["unit"] = {
        **dict.fromkeys(("n_prompts", "n_up", "n_down"), "prompts"),
        **dict.fromkeys(("score_before", "score_after", "difference", "difference_low", "difference_high"), "score"),
        "p_value": "probability",
        "q_value": "false-discovery rate",
    }
    return frame


def _changed(then: np.ndarray, now: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator) -> dict[str, float]:
    # Slow to import, and not every view needs it.
    from scipy.stats import binomtest

    change = now - then
    n_up, n_down = int((change > _TIE).sum()), int((change < -_TIE).sum())
    low = high = np.nan
    if n_bootstrap and len(change) > 1:
        low, high = np.quantile(rng.choice(change, size=(n_bootstrap, len(change))).mean(axis=1), [0.025, 0.975])
    return {
        "n_prompts": len(change),
        "score_before": float(then.mean()),
        "score_after": float(now.mean()),
        "difference": float(change.mean()),
        "difference_low": float(low),
        "difference_high": float(high),
        "n_up": n_up,
        "n_down": n_down,
        "p_value": float(binomtest(n_up, n_up + n_down).pvalue) if n_up + n_down else 1.0,
    }
