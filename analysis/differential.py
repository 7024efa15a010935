"""Differential use: which experts two sets of prompts use differently.

Legend: P prompt, L layer, E expert, X expert of any layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.contrasts import contrast_table, mean_differences, ranked
from analysis.nulls import PooledNull
from analysis.rates import draws_of_prompts, prompt_rates
from analysis.scan import Phase
from analysis.stratified import Tested, deal_labels, turn_pairs
from routing.errors import SelectionError, TraceError
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["Prompts", "differential", "paired_differential"]

Prompts = Selection | Sequence[str] | np.ndarray
"""Some prompts: a selection (of tasks or prompts), their ids, or True and False for each prompt of the trace."""


def differential(
    trace: RoutingTrace,
    one: Prompts,
    *,
    other: Prompts | None = None,
    within: Literal["task"] | None = None,
    phase: Phase | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.2,
) -> pd.DataFrame:
    """Experts that two sets of prompts use differently, the significant ones first, then by size.

    - `rate_one`, `rate_other`: mean over the prompts of the share of their tokens that choose the expert. Within tasks,
      each task's difference counts with n₁ n₂ / (n₁ + n₂), and `rate_other` is `rate_one` less the difference.
    - `difference` with a 95 % interval from the scatter of prompts in each set; `lift`: log2 of the ratio of rates;
      `effect`: difference over the standard deviation of prompts within the sets (Cohen's d).
    - `z`, `p_value`: prompts dealt to the two sets at random (within tasks where asked), two-sided; `q_value` over all
      experts; `significant`: q ≤ `fdr` and |effect| ≥ `smallest`.

    Args:
        trace: the trace.
        one: some prompts.
        other: others; None takes all prompts that are not among the first.
        within: "task" compares within tasks, so that a different mix of tasks is no difference.
        phase: only tokens of this phase.
        n_permutations: deals for the null.
        seed: of the deals.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called.

    Returns:
        (row) · layer, expert, rate_one, rate_other, difference, difference_low, difference_high, lift, effect, z,
        p_value, q_value, significant, n_one, n_other · share of tokens, and as the names say · NaN where prompts do not
        vary; no row for what a layer lacks or did not route on both sides.

    Raises:
        SelectionError: a set is empty, names what the trace lacks, or both share a prompt.
        TraceError: the trace holds counts only.
    """
    mine = _mask(trace, one)
    theirs = ~mine if other is None else _mask(trace, other)
    if not mine.any() or not theirs.any() or (mine & theirs).any():
        msg = (
            f"The two sets hold {mine.sum()} and {theirs.sum()} prompts, {(mine & theirs).sum()} of them in both. "
            "Choose two sets of prompts that share none."
        )
        raise SelectionError(msg)
    if within not in ("task", None):
        msg = f"Sets are compared within tasks or as a whole, not within {within!r}. Correct `within`."
        raise SelectionError(msg)
    n_permutations = draws_of_prompts(trace, n_permutations)
    strata_P = trace.task_of_prompt.astype(np.int64) if within else np.zeros(trace.n_prompts, dtype=np.int64)
    label_P = np.where(mine, 1.0, np.where(theirs, 0.0, np.nan))
    pooled = PooledNull()

    def test(values_PX: np.ndarray, rows: np.ndarray) -> tuple[Tested, dict[str, np.ndarray]]:
        # A task that stands on one side only has nothing to compare.
        label, strata = label_P[rows], strata_P[rows]
        tested = deal_labels(values_PX, label, strata, n_permutations=n_permutations, seed=seed, pooled=pooled)
        return tested, mean_differences(values_PX, label > 0.5, strata)

    frame = contrast_table(
        trace, test, known_P=np.isfinite(label_P), phase=phase, pooled=pooled, n_permutations=n_permutations
    )
    return ranked(
        frame, fdr=fdr, smallest=smallest, attrs={"within": within or "all", "n_permutations": n_permutations}
    )


def paired_differential(
    before: RoutingTrace,
    after: RoutingTrace,
    *,
    phase: Phase | None = "prompt",
    n_permutations: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
    smallest: float = 0.2,
) -> pd.DataFrame:
    """Experts that the same prompts use differently in two traces: `differential` of pairs.

    `difference` is that of after − before, `rate_one` being after's; its interval comes from the scatter of the
    differences of prompts, `effect` is difference over their standard deviation, and the null turns pairs around at
    random.

    Args:
        before: a trace.
        after: another one, of the same prompts and layers.
        phase: only tokens of this phase; None takes all.
        n_permutations: random turns for the null.
        seed: of the turns.
        fdr: share of false ones to accept.
        smallest: effect below which nothing is called.

    Returns:
        (row) · layer, expert, rate_one, rate_other, difference, difference_low, difference_high, lift, effect, z,
        p_value, q_value, significant, n_one, n_other · share of tokens, and as the names say · as in
        `differential`.

    Raises:
        TraceError: a trace holds counts only, or prompts or layers differ.
    """
    ids = [trace.prompts["prompt"].to_numpy(dtype=str) for trace in (before, after)]
    layers = [[(facts.label, facts.n_experts) for facts in trace.layer_facts] for trace in (before, after)]
    if set(ids[0]) != set(ids[1]) or layers[0] != layers[1]:
        msg = (
            f"The two traces share {len(set(ids[0]) & set(ids[1]))} of {len(set(ids[0]) | set(ids[1]))} prompts and "
            f"have the layers {before.layers} and {after.layers}. Compare traces of the same prompts and routers."
        )
        raise TraceError(msg)
    n_permutations = draws_of_prompts(before, n_permutations)
    line_up = np.argsort(ids[1], kind="stable")
    place = line_up[np.searchsorted(ids[1][line_up], ids[0])]
    others = {block.layers.start: block.rate_PLE[place] for block in prompt_rates(after, phase=phase)}
    pooled = PooledNull()

    def test(values_PX: np.ndarray, rows: np.ndarray) -> tuple[Tested, dict[str, np.ndarray]]:
        earlier, later = np.split(values_PX, 2, axis=1)
        change = later - earlier
        tested = turn_pairs(change, n_permutations=n_permutations, seed=seed, pooled=pooled)
        n = len(rows)
        spread = change.std(axis=0, ddof=1) if n > 1 else np.full(change.shape[1], np.nan)
        return tested, {
            "difference": change.mean(axis=0),
            "error": spread / np.sqrt(n),
            "spread": spread,
            "rate_one": later.mean(axis=0),
            "n_one": np.full(change.shape[1], n),
            "n_other": np.full(change.shape[1], n),
        }

    known_P = np.ones(before.n_prompts, bool)
    frame = contrast_table(
        before, test, known_P=known_P, phase=phase, pooled=pooled, n_permutations=n_permutations, beside=others
    )
    return ranked(frame, fdr=fdr, smallest=smallest, attrs={"n_permutations": n_permutations})


def _mask(trace: RoutingTrace, prompts: Prompts) -> np.ndarray:
    """Which prompts of the trace are meant."""
    ids = trace.prompts["prompt"].to_numpy(dtype=str)
    if isinstance(prompts, Selection):
        prompts.require(trace)
        mask = np.ones(len(ids), bool)
        if prompts.tasks:
            mask &= trace.prompts["task"].isin(prompts.tasks).to_numpy()
        if prompts.prompts:
            mask &= np.isin(ids, prompts.prompts)
        return mask
    if isinstance(prompts, np.ndarray) and prompts.dtype == bool:
        if prompts.shape != ids.shape:
            msg = f"There are {len(ids)} prompts, and True or False was given for {prompts.shape}. Give one for each."
            raise SelectionError(msg)
        return prompts.copy()
    asked = [str(each) for each in prompts]
    if lacking := sorted(set(asked) - set(ids.tolist())):
        msg = f"This trace has no prompt {lacking[:5]}. Choose among the {len(ids)} that it holds."
        raise SelectionError(msg)
    return np.isin(ids, asked)
