"""Rates with something held fixed: the place in the text, the token itself, the template, the number of tokens.

Legend: T token, P prompt, Q stratum, L layer, E expert, G group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import xarray as xr

from analysis.nulls import Dealer, PooledNull, q_values
from analysis.rates import Over, draws_of_prompts, group_of_prompt, mean_over_prompts, type_of_group
from analysis.scan import Phase, keyed_blocks, prompt_blocks, require_tokens
from analysis.specialization import layer_test
from routing.chunks import PHASES, Chunk
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["Match", "controlled_specialization", "template_tokens"]

Match = Literal["position", "token_id"]

SHARED = 0.9
"""Share of a task's prompts that have the same token at the same place, from which on it is of the template."""

FEWEST_PROMPTS = 5
FAR = 64
_FAR_ID = 1 << 32


def controlled_specialization(
    trace: RoutingTrace,
    *,
    match: Match | None = None,
    without_template: bool = False,
    tokens_a_prompt: int | None = None,
    phase: Phase | None = None,
    over: Over = "task",
    n_permutations: int = 1000,
    seed: int = 0,
    fdr: float = 0.05,
) -> xr.Dataset:
    """`specialization` with something else held fixed, beside what it is without.

    - `match`: each token is compared with all tokens at the same position ("position"), or with the same id
      ("token_id"): a prompt's rate is the overall rate + the mean over its tokens of (chosen − rate of that position or
      id). Positions and ids of a single group have nothing to be compared with and are left out.
    - `without_template`: tokens that nine in ten prompts of a task have at the same place from the beginning or the end
      of the prompt are left out (`template_tokens`).
    - `tokens_a_prompt`: only so many tokens of each prompt, the first that are left: equal budgets.

    A group's own tokens are part of what it is compared with, so matched differences are a little too small, never too
    large. Permuting prompts is as valid as without a match, for the matched rates do not look at the groups.

    Args:
        trace: the trace.
        match: what is held fixed.
        without_template: whether words of the template are left out.
        tokens_a_prompt: equal budget; None takes all.
        phase: only tokens of this phase.
        over: what prompts are grouped by.
        n_permutations: for the null; 0 for none.
        seed: of the permutations.
        fdr: share of false ones to accept.

    Returns:
        (group, layer, expert) · rate, difference, plain_difference, z, p_value, q_value, significant; (layer, expert) ·
        overall; (group) · covered · share of tokens, and as the names say · rates 0 to 1 but for matching, which may
        pass either end a little; NaN where nothing is left.

    Raises:
        SelectionError: an option has no such value, or nothing is left.
        TraceError: the trace holds counts only.

    References:
        Controls as in Xue et al. 2024, "OpenMoE"; the adjustment is direct standardization.
    """
    require_tokens(trace, for_what="a control")
    if match not in ("position", "token_id", None) or (tokens_a_prompt is not None and tokens_a_prompt < 1):
        msg = (
            f"Tokens are matched by position or token_id, not {match!r}, and a budget is 1 or more, not "
            f"{tokens_a_prompt}. Correct the options."
        )
        raise SelectionError(msg)
    n_permutations = draws_of_prompts(trace, n_permutations)
    groups, group_P = group_of_prompt(trace, over=over)
    keep = _kept(trace, without_template=without_template, tokens_a_prompt=tokens_a_prompt, phase=phase)
    shape = (len(groups), trace.n_layers, trace.n_experts)
    found = {name: np.full(shape, np.nan) for name in ("rate", "difference", "plain_difference", "z")}
    overall_LE = np.full(shape[1:], np.nan)
    n_exceeding = np.zeros(shape, dtype=np.int64)
    used, whole = np.zeros(len(groups)), np.zeros(len(groups))
    pooled, dealer = PooledNull(), Dealer(n_permutations=n_permutations, seed=seed)
    rates = _matched(trace, keep, match=match, group_P=group_P, n_groups=len(groups))
    with ThreadPoolExecutor() as pool:
        # Both come by prompt, so in the same blocks of layers.
        for (layers, rate_PLE, n_PL), (_, table) in zip(rates, prompt_blocks(trace, phase=phase), strict=True):
            all_PL = table.tokens_GL
            plain_PLE = table.assignments_GLE / np.where(all_PL > 0, all_PL, np.nan)[..., None]
            overall_LE[layers] = mean_over_prompts(rate_PLE)
            for group in range(len(groups)):
                mine = group_P == group
                found["rate"][group, layers] = mean_over_prompts(rate_PLE[mine])
                plain = mean_over_prompts(plain_PLE[mine]) - mean_over_prompts(plain_PLE)
                found["plain_difference"][group, layers] = plain
                used[group] += n_PL[mine].sum()
                whole[group] += all_PL[mine].sum()
            found["difference"][:, layers] = found["rate"][:, layers] - overall_LE[layers]
            if not n_permutations:
                continue
            cases = []
            for number in range(rate_PLE.shape[1]):
                routed = np.isfinite(rate_PLE[:, number]).any(axis=-1)
                cases.append((rate_PLE[routed, number], group_P[routed]))
            tested = pool.map(lambda case: layer_test(case[0], case[1], len(groups), dealer=dealer), cases)
            for number, (z_GE, exceeds_GE, spread) in enumerate(tested):
                found["z"][:, layers.start + number] = z_GE
                n_exceeding[:, layers.start + number] = exceeds_GE
                pooled.add(spread)
    p = np.full(shape, np.nan)
    if n_permutations:
        p = pooled.p_values(found["z"], n_exceeding=n_exceeding, n_permutations=n_permutations)
    q = q_values(p)
    dims = ("group", "layer", "expert")
    variables: dict[str, tuple[Any, ...]] = {
        name: (dims, values, {"unit": "share of tokens"}) for name, values in found.items()
    }
    variables["z"] = (dims, found["z"], {"unit": "standard deviations of the null"})
    variables |= {
        "overall": (dims[1:], overall_LE, {"unit": "share of tokens"}),
        "p_value": (dims, p, {"unit": "probability"}),
        "q_value": (dims, q, {"unit": "false-discovery rate"}),
        "significant": (dims, q <= fdr, {"unit": f"q at most {fdr}"}),
        "covered": ("group", used / np.where(whole > 0, whole, np.nan), {"unit": "share of tokens"}),
    }
    return xr.Dataset(
        variables,
        coords={
            "group": list(groups),
            "task_type": ("group", list(type_of_group(trace, over=over))),
            "layer": list(trace.layers),
            "expert": np.arange(trace.n_experts),
        },
        attrs={
            "match": match or "nothing",
            "without_template": int(without_template),
            "tokens_a_prompt": tokens_a_prompt or "all",
            "over": over,
            "n_permutations": n_permutations,
            "seed": seed,
            "fdr": fdr,
        },
    )


def template_tokens(trace: RoutingTrace) -> np.ndarray:
    """Which tokens belong to the template of their task.

    A token of the prompt does if nine in ten prompts of the task have the same id at the same place, counted from the
    beginning or from the end of the prompt, within the first or last 64. Tasks of fewer than five prompts have none.

    Returns:
        (token) · whether it is of the template · True or False.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a look at templates")
    length_P = np.zeros(trace.n_prompts, dtype=np.int64)
    for chunk in trace.chunks(fields=()):
        read = chunk.phase == PHASES.index("prompt")
        np.maximum.at(length_P, chunk.prompt[read], chunk.position[read].astype(np.int64) + 1)
    codes = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for chunk in trace.chunks(fields=()):
        for side, (code, near) in enumerate(_places(chunk, length_P)):
            # Prompts of a task come in runs, so distinct codes are few.
            found, n = np.unique(code[near], return_counts=True)
            codes[side].append(np.repeat(found, n))
    n_prompts = np.bincount(trace.task_of_prompt[length_P > 0], minlength=len(trace.tasks))
    shared = []
    for parts in codes:
        found, n = np.unique(np.concatenate(parts), return_counts=True)
        of_task = n_prompts[found // (FAR * _FAR_ID)] if len(found) else found
        shared.append(found[(n >= SHARED * of_task) & (of_task >= FEWEST_PROMPTS)])
    marks = [np.zeros(0, dtype=bool)]
    for chunk in trace.chunks(fields=()):
        mark = np.zeros(chunk.n_tokens, dtype=bool)
        for side, (code, near) in enumerate(_places(chunk, length_P)):
            mark |= near & np.isin(code, shared[side])
        marks.append(mark)
    found_T: np.ndarray = np.concatenate(marks)
    return found_T


def _places(chunk: Chunk, length_P: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Task, place and id of each token as one number, places from the beginning and from the end; which are near."""
    read = (chunk.phase == PHASES.index("prompt")) & (chunk.token_id >= 0)
    found = []
    for place in (chunk.position.astype(np.int64), length_P[chunk.prompt] - 1 - chunk.position):
        near = read & (place >= 0) & (place < FAR)
        code = (chunk.task.astype(np.int64) * FAR + np.clip(place, 0, FAR - 1)) * _FAR_ID + chunk.token_id
        found.append((code, near))
    return found


def _kept(
    trace: RoutingTrace, *, without_template: bool, tokens_a_prompt: int | None, phase: Phase | None
) -> np.ndarray | None:
    """(T) which tokens are left; None for all."""
    if not without_template and tokens_a_prompt is None and phase is None:
        return None
    template_T = template_tokens(trace) if without_template else None
    taken_P = np.zeros(trace.n_prompts, dtype=np.int64)
    parts = [np.zeros(0, dtype=bool)]
    for chunk in trace.chunks(fields=()):
        keep = np.ones(chunk.n_tokens, dtype=bool)
        if phase is not None:
            keep &= chunk.phase == PHASES.index(phase)
        if template_T is not None:
            keep &= ~template_T[chunk.start : chunk.stop]
        if tokens_a_prompt is not None:
            rows = np.flatnonzero(keep)
            prompts = chunk.prompt[rows]
            line_up = np.argsort(prompts, kind="stable")
            found, first, n = np.unique(prompts[line_up], return_index=True, return_counts=True)
            place = np.empty(len(rows), dtype=np.int64)
            place[line_up] = np.arange(len(rows)) - np.repeat(first, n)
            keep[rows] = place + taken_P[prompts] < tokens_a_prompt
            taken_P[found] += n
        parts.append(keep)
    kept_T: np.ndarray = np.concatenate(parts)
    if trace.n_tokens and not kept_T.any() and (without_template or tokens_a_prompt is not None):
        msg = "The controls leave no token of this trace. Leave out fewer, or take a larger budget."
        raise SelectionError(msg)
    return kept_T


def _matched(
    trace: RoutingTrace, keep_T: np.ndarray | None, *, match: Match | None, group_P: np.ndarray, n_groups: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some layers at a time: (P, L, E) adjusted rates, and (P, L) the tokens behind them."""
    exists_LE = trace.expert_exists.to_numpy()
    stratum, n_strata = _strata(trace, keep_T, match=match, group_P=group_P, n_groups=n_groups)

    def by_prompt(chunk: Chunk) -> np.ndarray:
        return np.where(stratum(chunk) >= 0, chunk.prompt, -1)

    held = _held(trace, stratum, n_strata=n_strata) if match else None
    for layers, table in keyed_blocks(trace, by_prompt, n_groups=trace.n_prompts):
        n_PL = table.tokens_GL
        with np.errstate(invalid="ignore", divide="ignore"):
            rate_PLE = table.assignments_GLE / np.where(n_PL > 0, n_PL, np.nan)[..., None]
        if held is not None:
            total_LE = table.assignments_GLE.sum(axis=0)
            overall_LE = total_LE / np.maximum(n_PL.sum(axis=0), 1)[:, None]
            expected_PLE = np.full(rate_PLE.shape, np.nan)
            for part, strata in keyed_blocks(trace, stratum, n_groups=n_strata):
                for layer in range(max(part.start, layers.start), min(part.stop, layers.stop)):
                    counts_QE = strata.assignments_GLE[:, layer - part.start]
                    n_Q = strata.tokens_GL[:, layer - part.start]
                    rate_QE = counts_QE / np.maximum(n_Q, 1)[:, None]
                    held_PQ = held[trace.stacks.index(trace.layer_facts[layer].stack)]
                    n_P = n_PL[:, layer - layers.start]
                    expected_PLE[:, layer - layers.start] = held_PQ @ rate_QE / np.maximum(n_P, 1)[:, None]
            rate_PLE = rate_PLE - expected_PLE + overall_LE
        yield layers, np.where(exists_LE[layers], rate_PLE, np.nan), n_PL


def _strata(
    trace: RoutingTrace, keep_T: np.ndarray | None, *, match: Match | None, group_P: np.ndarray, n_groups: int
) -> tuple[Callable[[Chunk], np.ndarray], int]:
    """How to read a token's stratum off a chunk (−1 where it is left out), and how many there are."""

    def kept(chunk: Chunk) -> np.ndarray:
        return np.ones(chunk.n_tokens, bool) if keep_T is None else keep_T[chunk.start : chunk.stop]

    if match is None:
        return (lambda chunk: np.where(kept(chunk), 0, -1)), 1

    def name(chunk: Chunk) -> np.ndarray:
        found: np.ndarray = (chunk.position if match == "position" else chunk.token_id).astype(np.int64)
        return found

    most = 1 + max((int(name(chunk).max(initial=-1)) for chunk in trace.chunks(fields=())), default=-1)
    in_group = np.zeros((n_groups, most + 1), dtype=bool)
    for chunk in trace.chunks(fields=()):
        there = kept(chunk) & (name(chunk) >= 0)
        in_group[group_P[chunk.prompt[there]], name(chunk)[there]] = True
    shared = np.flatnonzero(in_group.sum(axis=0) > 1)
    if not len(shared):
        msg = f"No {match} occurs in two groups, so nothing can be matched. Match by something else."
        raise SelectionError(msg)
    number = np.full(most + 1, -1, dtype=np.int64)
    number[shared] = np.arange(len(shared))
    # The last place is for what has no name.
    return (lambda chunk: np.where(kept(chunk), number[name(chunk)], -1)), len(shared)


def _held(trace: RoutingTrace, stratum: Callable[[Chunk], np.ndarray], *, n_strata: int) -> list[Any]:
    """Of each stack, (P, Q) how many tokens of a prompt are in a stratum, sparse."""
    # Slow to import, and only matching needs it.
    from scipy.sparse import coo_array

    shape = (trace.n_prompts, n_strata)
    found = [coo_array(shape).tocsr() for _ in trace.stacks]
    for chunk in trace.chunks(fields=()):
        number = stratum(chunk)
        for stack in range(len(trace.stacks)):
            here = (number >= 0) & (chunk.stack == stack)
            at = chunk.prompt[here], number[here]
            found[stack] = found[stack] + coo_array((np.ones(int(here.sum())), at), shape=shape).tocsr()
    return found
