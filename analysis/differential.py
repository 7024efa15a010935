"""Differential use: which experts two sets of prompts use differently, and which go with right answers.

Legend: P prompt, L layer, E expert, X expert of any layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.nulls import PooledNull, q_values
from analysis.rates import draws_of_prompts, prompt_rates
from analysis.scan import Phase
from analysis.stratified import Tested, deal_labels, turn_pairs
from routing.errors import SelectionError, TraceError
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["Prompts", "correctness_link", "differential", "paired_differential"]

Prompts = Selection | Sequence[str] | np.ndarray
"""Some prompts: a selection (of tasks or prompts), their ids, or True and False for each prompt of the trace."""

_Z_95 = 1.959963984540054
_UNITS = {
    "rate_one": "share of tokens",
    "rate_other": "share of tokens",
    "difference": "share of tokens",
    "difference_low": "share of tokens",
    "difference_high": "share of tokens",
    "lift": "log2 ratio",
    "effect": "standard deviations of prompts",
    "z": "standard deviations of the null",
    "p_value": "probability",
    "q_value": "false-discovery rate",
    "significant": "true or false",
    "n_one": "prompts",
    "n_other": "prompts",
}


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
        return tested, _differences(values_PX, label > 0.5, strata)

    frame = _table(trace, test, known_P=np.isfinite(label_P), phase=phase, pooled=pooled, n_permutations=n_permutations)
    return _ranked(
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
    frame = _table(
        before, test, known_P=known_P, phase=phase, pooled=pooled, n_permutations=n_permutations, beside=others
    )
    return _ranked(frame, fdr=fdr, smallest=smallest, attrs={"n_permutations": n_permutations})


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
        found = _differences(values_PX, score >= right_from, strata)
        lengths = np.sqrt(
            (_centered(score[:, None], strata) ** 2).sum() * (_centered(values_PX, strata) ** 2).sum(axis=0)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found["r"] = np.where(lengths > 1e-12, tested.total / np.where(lengths > 0, lengths, 1), np.nan)
        return tested, found

    frame = _table(trace, test, known_P=known_P, phase=phase, pooled=pooled, n_permutations=n_permutations)
    tasks = [trace.tasks[task] for task in np.unique(strata_P[known_P])]
    found = _ranked(
        frame,
        fdr=fdr,
        smallest=smallest,
        attrs={"tasks": tasks, "right_from": right_from, "n_permutations": n_permutations},
    )
    found.attrs["unit"]["r"] = "correlation"
    return found


Test = Callable[[np.ndarray, np.ndarray], tuple[Tested, dict[str, np.ndarray]]]


def _table(
    trace: RoutingTrace,
    test: Test,
    *,
    known_P: np.ndarray,
    phase: Phase | None,
    pooled: PooledNull,
    n_permutations: int,
    beside: dict[int, np.ndarray] | None = None,
) -> pd.DataFrame:
    """One row an expert: what `test` finds of the prompts that the layer routed."""
    parts, exceeding = [], []
    for block in prompt_rates(trace, phase=phase):
        for number in range(block.rate_PLE.shape[1]):
            facts = trace.layer_facts[block.layers.start + number]
            rate_PE = block.rate_PLE[:, number, : facts.n_experts]
            if beside is not None:
                later_PE = beside[block.layers.start][:, number, : facts.n_experts]
                rate_PE = np.concatenate([rate_PE, later_PE], axis=1)
            rows = np.flatnonzero(known_P & np.isfinite(rate_PE).all(axis=1))
            if not len(rows):
                continue
            tested, columns = test(rate_PE[rows], rows)
            if not np.isfinite(columns["difference"]).any():
                continue
            part = pd.DataFrame({"layer": facts.label, "expert": np.arange(facts.n_experts), **columns, "z": tested.z})
            parts.append(part)
            exceeding.append(tested.n_exceeding)
    if not parts:
        return pd.DataFrame(columns=["layer", "expert", "difference", "error", "spread", "rate_one", "z", "p_value"])
    frame = pd.concat(parts, ignore_index=True)
    frame["p_value"] = (
        pooled.p_values(frame["z"].to_numpy(), n_exceeding=np.concatenate(exceeding), n_permutations=n_permutations)
        if n_permutations
        else np.nan
    )
    return frame


def _ranked(frame: pd.DataFrame, *, fdr: float, smallest: float, attrs: dict[str, object]) -> pd.DataFrame:
    columns = ["layer", "expert", *(["r"] if "r" in frame else []), *_UNITS]
    if frame.empty:
        frame = pd.DataFrame(columns=columns)
    else:
        frame["rate_other"] = frame["rate_one"] - frame["difference"]
        frame["difference_low"] = frame["difference"] - _Z_95 * frame["error"]
        frame["difference_high"] = frame["difference"] + _Z_95 * frame["error"]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.log2(frame["rate_one"].to_numpy(float) / frame["rate_other"].to_numpy(float))
            effect = frame["difference"].to_numpy(float) / frame["spread"].to_numpy(float)
        frame["lift"] = np.where(np.isfinite(ratio), ratio, np.nan)
        frame["effect"] = np.where(np.isfinite(effect), effect, np.nan)
        frame["q_value"] = q_values(frame["p_value"].to_numpy(float))
        frame["significant"] = (frame["q_value"] <= fdr) & (frame["effect"].abs() >= smallest)
        size = frame["difference"].abs().fillna(-1.0)
        order = np.lexsort((-size.to_numpy(), ~frame["significant"].to_numpy(bool)))
        frame = frame.iloc[order][columns].reset_index(drop=True)
    frame.attrs.update(attrs | {"fdr": fdr, "smallest": smallest, "unit": dict(_UNITS)})
    return frame


def _differences(values_PX: np.ndarray, is_one_P: np.ndarray, strata_P: np.ndarray) -> dict[str, np.ndarray]:
    """Difference of means within groups, weighed by n₁ n₂ / (n₁ + n₂), with its error and the spread of prompts."""
    n_X = values_PX.shape[1]
    total, weight, variance, one_mean = np.zeros(n_X), 0.0, np.zeros(n_X), np.zeros(n_X)
    scatter, freedom, n_one, n_other = np.zeros(n_X), 0, 0, 0
    for stratum in np.unique(strata_P):
        mine = values_PX[(strata_P == stratum) & is_one_P]
        theirs = values_PX[(strata_P == stratum) & ~is_one_P]
        if not len(mine) or not len(theirs):
            continue
        each = len(mine) * len(theirs) / (len(mine) + len(theirs))
        total += each * (mine.mean(axis=0) - theirs.mean(axis=0))
        one_mean += each * mine.mean(axis=0)
        for side in (mine, theirs):
            squares = ((side - side.mean(axis=0)) ** 2).sum(axis=0)
            scatter += squares
            freedom += len(side) - 1
            if len(side) > 1:
                variance += each**2 * squares / (len(side) - 1) / len(side)
        weight += each
        n_one += len(mine)
        n_other += len(theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "difference": total / weight if weight else np.full(n_X, np.nan),
            "rate_one": one_mean / weight if weight else np.full(n_X, np.nan),
            "error": np.sqrt(variance) / weight if freedom > 1 else np.full(n_X, np.nan),
            "spread": np.sqrt(scatter / freedom) if freedom else np.full(n_X, np.nan),
            "n_one": np.full(n_X, n_one),
            "n_other": np.full(n_X, n_other),
        }


def _centered(values_PX: np.ndarray, strata_P: np.ndarray) -> np.ndarray:
    found = values_PX.astype(float).copy()
    for stratum in np.unique(strata_P):
        found[strata_P == stratum] -= found[strata_P == stratum].mean(axis=0)
    return found


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
