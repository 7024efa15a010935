"""What two traces have in common, and whether an expert's number means the same in both.

Legend: P prompt or task, L layer, E expert, R relabeling.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.nulls import p_value, q_values
from analysis.pairing import read_tokens
from analysis.rates import group_rates, prompt_rates
from analysis.scan import require_tokens
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["CommonGround", "common_ground", "expert_numbering"]


@dataclass(frozen=True, kw_only=True)
class CommonGround:
    """What two traces have in common.

    Attributes:
        layers: labels of layers with as many experts, as many of them selected, in the order of the second trace.
        tasks: names that both hold, in the order of the second trace.
        prompts: ids of prompts that both hold.
        same_tokens: ids of those whose tokens are the same in both; the texts, where a trace has no tokens.
        n_tokens: tokens of these prompts, without what was generated.
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    prompts: tuple[str, ...]
    same_tokens: tuple[str, ...]
    n_tokens: int


def common_ground(one: RoutingTrace, other: RoutingTrace) -> CommonGround:
    """Layers, tasks and prompts that two traces share, and which of the prompts were read as the same tokens.

    Args:
        one: a trace.
        other: another one, of whatever model and prompts.

    Returns:
        (trace) · CommonGround · names; no tokens are the same where a trace holds counts only.
    """
    shapes = {facts.label: (facts.n_experts, facts.top_k) for facts in one.layer_facts}
    layers = tuple(
        facts.label for facts in other.layer_facts if shapes.get(facts.label) == (facts.n_experts, facts.top_k)
    )
    known = set(one.prompts["prompt"])
    prompts = tuple(str(name) for name in other.prompts["prompt"] if name in known)
    same: list[str] = []
    n_tokens = 0
    if prompts and "counts" not in (one.level, other.level) and one.unit == other.unit:
        read = [_by_prompt(trace) for trace in (one, other)]
        for name in prompts:
            mine, theirs = (tokens.get(name) for tokens in read)
            if mine is not None and mine == theirs:
                same.append(name)
                n_tokens += mine[0]
        if one.unit == "prompt":
            texts = [dict(zip(each.prompts["prompt"], each.prompts["text"], strict=True)) for each in (one, other)]
            same = [name for name in same if texts[0][name] == texts[1][name]]
            n_tokens = len(same)
    return CommonGround(
        layers=layers,
        tasks=tuple(task for task in other.tasks if task in one.task_types),
        prompts=prompts,
        same_tokens=tuple(same),
        n_tokens=n_tokens,
    )


def expert_numbering(
    one: RoutingTrace, other: RoutingTrace, *, n_permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Whether expert 3 of one trace is expert 3 of the other, or only has its number.

    `agreement`: correlation, over experts and the prompts that both hold (the tasks, where they hold no prompt in
    common), of how often each prompt chooses each expert, less what an even layer would give. Two trainings from
    different beginnings number their experts independently, so that any relabeling of the experts of one of them would
    have been as likely: these are the null, and the test is exact.

    Args:
        one: a trace.
        other: another one; layers of one name and size are compared.
        n_permutations: relabelings for the null.
        seed: of the relabelings.

    Returns:
        (layer) · agreement, relabeled_mean, relabeled_95, p_value, q_value · correlation −1 to 1; NaN where nothing
        varies. attrs["p_value"] is that of all layers together, attrs["over"] says what was compared.

    Raises:
        TraceError: a trace holds counts only, or no prompt, task or layer is in both.
    """
    for trace in (one, other):
        require_tokens(trace, for_what="a comparison of experts' numbers")
    sizes = {facts.label: facts.n_experts for facts in one.layer_facts}
    layers = [facts.label for facts in other.layer_facts if sizes.get(facts.label) == facts.n_experts]
    over, profiles = _profiles(one, other)
    if not layers or not over:
        msg = (
            f"The two traces have {len(layers)} layers of one name and size and no prompt or task in common. "
            "Compare traces of one architecture over the same tasks."
            if layers
            else f"The two traces have the layers (with experts) {sizes} and "
            f"{ {facts.label: facts.n_experts for facts in other.layer_facts} }, none alike. "
            "Compare traces of one architecture."
        )
        raise TraceError(msg)
    rng = np.random.default_rng(seed)
    rows, together, together_R = [], 0.0, np.zeros(n_permutations)
    for label in layers:
        width = sizes[label]
        mine, theirs = (
            profile[:, trace.layers.index(label), :width] for profile, trace in zip(profiles, (one, other), strict=True)
        )
        there = np.isfinite(mine).all(axis=1) & np.isfinite(theirs).all(axis=1)
        mine, theirs = (each[there] - each[there].mean(axis=1, keepdims=True) for each in (mine, theirs))
        scale = float(np.sqrt((mine**2).sum() * (theirs**2).sum()))
        row = dict.fromkeys(("agreement", "relabeled_mean", "relabeled_95", "p_value"), np.nan)
        if scale > 1e-12 and width > 1:
            table_EE = mine.T @ theirs / scale
            relabeled_RE = rng.permuted(np.tile(np.arange(width), (n_permutations, 1)), axis=1)
            null_R = table_EE[np.arange(width), relabeled_RE].sum(axis=1)
            agreed = float(np.trace(table_EE))
            together += agreed
            together_R += null_R
            row["agreement"] = agreed
            if n_permutations:
                row |= {"relabeled_mean": float(null_R.mean()), "relabeled_95": float(np.quantile(null_R, 0.95))}
                n_exceeding = int((null_R >= agreed - 1e-9).sum())
                row["p_value"] = float(p_value(n_exceeding, n_permutations=n_permutations))
        rows.append(row)
    frame = pd.DataFrame(rows, index=pd.Index(layers, name="layer"))
    frame["q_value"] = q_values(frame["p_value"].to_numpy())
    known = frame["p_value"].notna().any()
    n_exceeding = int((together_R >= together - 1e-9).sum())
    frame.attrs["p_value"] = float(p_value(n_exceeding, n_permutations=n_permutations)) if known else float("nan")
    frame.attrs["over"] = over
    frame.attrs["unit"] = dict.fromkeys(("agreement", "relabeled_mean", "relabeled_95"), "correlation") | {
        "p_value": "probability",
        "q_value": "false-discovery rate",
    }
    return frame


def _by_prompt(trace: RoutingTrace) -> dict[str, tuple[int, bytes]]:
    """Of each prompt how many tokens it was read as, and a digest of their stacks, positions and ids."""
    read = read_tokens(trace)
    prompt, columns = read["prompt"], [read[name] for name in ("stack", "position", "token_id")]
    names = trace.prompts["prompt"].to_numpy(dtype=str)
    edges = [0, *(np.flatnonzero(np.diff(prompt)) + 1).tolist(), len(prompt)]
    found = {}
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first == last:
            continue
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(column[first:last].tobytes())
        found[str(names[prompt[first]])] = (last - first, digest.digest())
    return found


def _profiles(one: RoutingTrace, other: RoutingTrace) -> tuple[str, list[np.ndarray]]:
    """What rates are compared over, and of each trace (P, L, E) those rates, in one order."""
    ids = [trace.prompts["prompt"].to_numpy(dtype=str) for trace in (one, other)]
    shared = np.intersect1d(*ids)
    if len(shared):
        found = []
        for trace, names in zip((one, other), ids, strict=True):
            rates = np.full((trace.n_prompts, trace.n_layers, trace.n_experts), np.nan)
            for block in prompt_rates(trace, phase="prompt"):
                rates[:, block.layers] = block.rate_PLE
            order = np.argsort(names, kind="stable")
            found.append(rates[order[np.searchsorted(names[order], shared)]])
        return "prompts", found
    tasks = [task for task in one.tasks if task in other.task_types]
    if not tasks:
        return "", []
    tables = [(trace, group_rates(trace, over="task").rate_GLE) for trace in (one, other)]
    return "tasks", [table[[trace.tasks.index(task) for task in tasks]] for trace, table in tables]
