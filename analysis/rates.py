"""How often prompts, and groups of prompts, choose each expert: the ground of everything about tasks.

Every prompt weighs the same, however long it is. Tokens of one text are not independent, so a long text is
not more evidence about its task than a short one, only a steadier reading of itself. Where every expert is always
selected, a rate is the mean weight that the tokens gave it (`analysis.measure`).

Legend: L layer, E expert, P prompt, G group of prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from analysis.measure import measure_of
from analysis.scan import CountTable, Phase, count_table, prompt_blocks
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = [
    "GroupRates",
    "Over",
    "PromptRates",
    "decided_by_task",
    "draws_of_prompts",
    "group_rates",
    "lift_of",
    "prompt_rates",
    "type_of_group",
]

Over = Literal["task", "task_type"]

FEWEST_REPEATS, ROUNDING = 2, 2e-3

_DECIDED: WeakKeyDictionary[RoutingTrace, bool] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class PromptRates:
    """Activation rates of prompts in some layers: mean weights where every expert is always selected.

    Attributes:
        layers: the place of these layers on the layer axis.
        rate_PLE: share of a prompt's tokens that choose the expert; NaN where the layer routed none of its
            tokens or does not have the expert.
        n_assignments_PL: assignments behind it.
    """

    layers: slice
    rate_PLE: np.ndarray
    n_assignments_PL: np.ndarray


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """Activation rates of groups of prompts.

    Attributes:
        groups: names of the groups.
        rate_GLE: mean over the group's prompts; NaN where none of them was routed or the layer lacks the
            expert.
        overall_LE: mean over all prompts.
        n_assignments_GL: assignments behind it.
        weighting: "prompts", or "tokens" where the trace does not tell prompts apart.
    """

    groups: tuple[str, ...]
    rate_GLE: np.ndarray
    overall_LE: np.ndarray
    n_assignments_GL: np.ndarray
    weighting: Literal["prompts", "tokens"]


def group_of_prompt(trace: RoutingTrace, *, over: Over) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the groups, and the group of every prompt.

    Raises:
        SelectionError: prompts cannot be grouped by `over`.
    """
    if over == "task":
        return trace.tasks, trace.task_of_prompt.astype(np.int64)
    if over == "task_type":
        types = tuple(trace.task_types.values())
        groups = tuple(dict.fromkeys(types))
        of_task = np.array([groups.index(each) for each in types], dtype=np.int64)
        return groups, of_task[trace.task_of_prompt]
    msg = f"Prompts can be grouped over task or task_type, not over {over!r}. Correct `over`."
    raise SelectionError(msg)


def type_of_group(trace: RoutingTrace, *, over: Over) -> tuple[str, ...]:
    """Task type of every group, as it stands beside it in tables."""
    groups, _ = group_of_prompt(trace, over=over)
    return groups if over == "task_type" else tuple(trace.task_types[task] for task in groups)


def prompt_rates(trace: RoutingTrace, *, phase: Phase | None = None) -> Iterator[PromptRates]:
    """Activation rates of every prompt, a few layers at a time.

    Raises:
        TraceError: the trace holds counts only.
    """
    for layers, table in prompt_blocks(trace, phase=phase):
        yield PromptRates(
            layers=layers,
            rate_PLE=_rates(trace, table, layers),
            n_assignments_PL=table.assignments_GLE.sum(axis=2),
        )


def group_rates(trace: RoutingTrace, *, over: Over, blocks: Iterable[PromptRates] | None = None) -> GroupRates:
    """Activation rates of tasks or task types.

    Args:
        trace: the trace.
        over: what prompts are grouped by.
        blocks: the rates of its prompts, where a caller reads them as well; otherwise the trace is scanned.

    Raises:
        SelectionError: prompts cannot be grouped by `over`.
    """
    groups, group_P = group_of_prompt(trace, over=over)
    if trace.level == "counts":
        everything = slice(0, trace.n_layers)
        table, pooled = count_table(trace, by=over), count_table(trace)
        return GroupRates(
            groups=groups,
            rate_GLE=_rates(trace, table, everything),
            overall_LE=_rates(trace, pooled, everything)[0],
            n_assignments_GL=table.assignments_GLE.sum(axis=2),
            weighting="tokens",
        )
    shape = (len(groups), trace.n_layers, trace.n_experts)
    rate_GLE, overall_LE = np.full(shape, np.nan), np.full(shape[1:], np.nan)
    n_assignments_GL = np.zeros(shape[:2], dtype=np.int64 if measure_of(trace) == "assignments" else np.float64)
    for block in prompt_rates(trace) if blocks is None else blocks:
        overall_LE[block.layers] = mean_over_prompts(block.rate_PLE)
        for group in range(len(groups)):
            of_group = group_P == group
            rate_GLE[group, block.layers] = mean_over_prompts(block.rate_PLE[of_group])
            n_assignments_GL[group, block.layers] = block.n_assignments_PL[of_group].sum(axis=0)
    return GroupRates(
        groups=groups,
        rate_GLE=rate_GLE,
        overall_LE=overall_LE,
        n_assignments_GL=n_assignments_GL,
        weighting="prompts",
    )


def decided_by_task(trace: RoutingTrace) -> bool:
    """Whether the router decided once a task, so that all prompts of a task went the same way.

    Then a task is a single observation, however many prompts it has: permuting or redrawing prompts would count it as
    often as it was repeated. Only asked of traces whose rows are prompts.
    """
    if trace.unit != "prompt" or trace.level == "counts" or trace.n_prompts - len(trace.tasks) < FEWEST_REPEATS:
        return False
    if trace not in _DECIDED:
        task_P = trace.task_of_prompt
        # Weights have 16 bits, and batches of different shape can round them differently.
        _DECIDED[trace] = all(
            bool((np.ptp(np.nan_to_num(block.rate_PLE[task_P == task]), axis=0) <= ROUNDING).all())
            for block in prompt_rates(trace)
            for task in range(len(trace.tasks))
        )
    return _DECIDED[trace]


def draws_of_prompts(trace: RoutingTrace, n_draws: int) -> int:
    """So many permutations or draws of prompts, or none where prompts only repeat what was decided for their task.

    A test with prompts as its units has nothing to say there: its p-values and intervals are then missing (NaN).
    """
    return 0 if decided_by_task(trace) else n_draws


def lift_of(rate_GLE: np.ndarray, *, overall_LE: np.ndarray, n_assignments_GL: np.ndarray) -> np.ndarray:
    """log2 of how much more of a group's assignments an expert takes than it takes overall.

    Each group is given one more assignment an expert, spread as they are overall, so that an expert that a
    short task never met has a lift near 0 and not at minus infinity: s' = (N s_group + E s_all) / (N + E),
    log2(s' / s_all).

    Returns:
        (G, L, E) · log2 ratio · any; NaN where the expert was never chosen.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share_GLE = rate_GLE / np.nansum(rate_GLE, axis=-1, keepdims=True)
        share_LE = overall_LE / np.nansum(overall_LE, axis=-1, keepdims=True)
        share_LE = np.where(share_LE > 0, share_LE, np.nan)
        n_experts_L = np.isfinite(overall_LE).sum(axis=-1)[:, None]
        n_GL = n_assignments_GL[..., None]
        lift = np.log2((n_GL * share_GLE / share_LE + n_experts_L) / (n_GL + n_experts_L))
    return np.where(np.isfinite(rate_GLE), lift, np.nan)


def mean_over_prompts(rate_PLE: np.ndarray) -> np.ndarray:
    """Mean over the prompts that were routed; NaN where none was."""
    there = np.isfinite(rate_PLE)
    n_prompts = there.sum(axis=0)
    total = np.where(there, rate_PLE, 0.0).sum(axis=0)
    return np.where(n_prompts > 0, total / np.maximum(n_prompts, 1), np.nan)


def _rates(trace: RoutingTrace, table: CountTable, layers: slice) -> np.ndarray:
    exists_LE = trace.expert_exists.to_numpy()[layers]
    tokens = table.tokens_GL[..., None].astype(float)
    rate = table.assignments_GLE / np.where(tokens > 0, tokens, np.nan)
    return np.where(exists_LE, rate, np.nan)
