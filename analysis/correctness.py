"""Which experts go with right answers.

Legend: P prompt, X expert of any layer.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.contrasts import centered, contrast_table, mean_differences, ranked
from analysis.nulls import PooledNull
from analysis.rates import draws_of_prompts
from analysis.scan import Phase
from analysis.stratified import Tested, deal_labels
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["correctness_link"]


def correctness_link(
    trace: RoutingTrace,
    *,
    phase: Phase | None = "prompt",
    right_from: float = 0.5,
    n_permutations: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.2,
) -> pd.DataFrame:
    """Experts that are used more, or less, where the answer is right, within tasks.

    `r`: correlation of a prompt's rate with its score, both less their means in the task; scores may be graded. z, p
    and q deal scores to prompts within tasks. Beside it, as in `differential` within tasks, prompts with a score of at
    least `right_from` (one) against the others. Tasks without a spread of scores say nothing and are left out. By
    default only tokens of the prompt count, for a wrong answer consists of other tokens.

    Args:
        trace: the trace.
        phase: only tokens of this phase; None takes all.
        right_from: least score of a right answer, for the rates.
        n_permutations: deals for the null.
        seed: of the deals.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called.

    Returns:
        (row) · layer, expert, r, rate_one, rate_other, difference, difference_low, difference_high, lift, effect, z,
        p_value, q_value, significant, n_one, n_other · share of tokens, and as the names say · as in
        `differential`, r −1 to 1; no row where no task has both right and wrong answers.

    Raises:
        TraceError: the trace holds counts only, or no scores.
    """
    score_P = pd.to_numeric(trace.prompts["score"], errors="coerce").to_numpy(float)
    if not np.isfinite(score_P).any():
        msg = (
            "This trace holds no scores of answers, which a link with correctness needs. Record it with `run` on tasks."
        )
        raise TraceError(msg)
    n_permutations = draws_of_prompts(trace, n_permutations)
    strata_P = trace.task_of_prompt.astype(np.int64)
    known_P = np.isfinite(score_P)
    for task in np.unique(strata_P):
        mine = known_P & (strata_P == task)
        if not mine.any() or np.ptp(score_P[mine]) < 1e-9:
            known_P[mine] = False
    pooled = PooledNull()

    def test(values_PX: np.ndarray, rows: np.ndarray) -> tuple[Tested, dict[str, np.ndarray]]:
        score, strata = score_P[rows], strata_P[rows]
        tested = deal_labels(values_PX, score, strata, n_permutations=n_permutations, seed=seed, pooled=pooled)
        found = mean_differences(values_PX, score >= right_from, strata)
        lengths = np.sqrt(
            (centered(score[:, None], strata) ** 2).sum() * (centered(values_PX, strata) ** 2).sum(axis=0)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found["r"] = np.where(lengths > 1e-12, tested.total / np.where(lengths > 0, lengths, 1), np.nan)
        return tested, found

    frame = contrast_table(trace, test, known_P=known_P, phase=phase, pooled=pooled, n_permutations=n_permutations)
    tasks = [trace.tasks[task] for task in np.unique(strata_P[known_P])]
    found = ranked(
        frame,
        fdr=fdr,
        smallest=smallest,
        attrs={"tasks": tasks, "right_from": right_from, "n_permutations": n_permutations},
    )
    found.attrs["unit"]["r"] = "correlation"
    return found
