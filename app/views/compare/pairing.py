"""Two runs beside each other: which others there are, the part that can be compared, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from analysis.common_ground import CommonGround, common_ground, expert_numbering
from analysis.comparison import changed_prompts, churn, saturation_by_rank
from analysis.differential import paired_differential
from analysis.distances import routing_distance
from analysis.dynamics import saturation
from analysis.passages import token_churn
from analysis.reliability import against_control
from analysis.score_changes import score_changes
from app.runs import Run, snapshots
from routing import RoutingTrace, Selection, TraceError

__all__ = [
    "Comparison",
    "Kin",
    "Traces",
    "changes_of_prompts",
    "changes_of_scores",
    "changes_of_tokens",
    "changes_of_use",
    "comparison",
    "distances",
    "information",
    "kept_by_rank",
    "kin",
    "layer_churn",
    "numbering",
    "other_runs",
    "overlap",
    "token_rows",
]

Traces = Mapping[str, RoutingTrace]
"""The run "before" and the run "after"."""

Kin = Literal["snapshots", "model", "unknown"]
"""How two runs are related: snapshots of one training, one model recorded twice, or nothing says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The part of two runs that can be compared.

    Attributes:
        ground: what the whole runs have in common.
        over: "tokens" where prompts of the selection were read as the same tokens in both, "tasks" where only their
            tasks are the same, "nothing" where not even these.
        n_prompts: prompts that are compared: of both runs, or of each.
        matched: both runs, narrowed to these prompts and the layers that both have; None where there are none.
        beside: both runs, narrowed to these prompts, with all their own layers of the selection; None likewise.
    """

    ground: CommonGround
    over: Literal["tokens", "tasks", "nothing"]
    n_prompts: tuple[int, int]
    matched: tuple[RoutingTrace, RoutingTrace] | None
    beside: tuple[RoutingTrace, RoutingTrace] | None


def other_runs(runs: tuple[Run, ...], run: Run | None) -> dict[str, str]:
    """What a run can be compared with: snapshots of its own model first, the nearest earlier one at the head.

    A run without a step was recorded from the trained model, whose training the last snapshot ended: what holds the
    run's own weights stands behind other snapshots, for there is nothing to see between them.

    Returns:
        name of the run → how the page writes it.
    """
    series = snapshots(runs, run) if run else ()
    own = [each for each in series if run is None or each.path != run.path]
    steps = [each.step or 0 for each in series]
    now = max(steps, default=0) if run is None or run.step is None else run.step
    earlier = [each for each in own if (each.step or 0) < now]
    later = [each for each in own if (each.step or 0) > now]
    same = [each for each in own if (each.step or 0) == now]
    is_end = run is not None and run.step is None
    found = {each.name: f"step {each.step:,} of this model" for each in [*reversed(earlier), *later]}
    found |= {each.name: f"step {each.step:,} of this model{', its last' if is_end else ''}" for each in same}
    return found | {each.name: each.name for each in runs if each.name not in found and each != run}


def kin(runs: tuple[Run, ...], one: Run, other: Run, *, traces: tuple[RoutingTrace, RoutingTrace]) -> Kin:
    """How the runs are related, as far as where they lie and what they were recorded from tells."""
    if any(each.path == other.path for each in snapshots(runs, one)):
        return "snapshots"
    made = [trace.provenance for trace in traces]
    same = bool(made[0].model) and (made[0].model, made[0].revision) == (made[1].model, made[1].revision)
    # Two folders of one name on two machines are not one model.
    return "model" if same and made[0].model_class == made[1].model_class else "unknown"


def comparison(
    traces: Traces, *, tasks: tuple[str, ...] = (), prompts: tuple[str, ...] = (), layers: tuple[str, ...] = ()
) -> Comparison:
    """The part of the runs "before" and "after" that can be compared, within a selection.

    Args:
        traces: the two runs.
        tasks: only these; all where empty.
        prompts: only these; all where empty.
        layers: only these; all where empty.

    Returns:
        (trace) · Comparison · narrowed traces.
    """
    before, after = traces["before"], traces["after"]
    ground = common_ground(before, after)
    asked = after.prompts
    if tasks:
        asked = asked[asked["task"].isin(tasks)]
    if prompts:
        asked = asked[asked["prompt"].isin(prompts)]
    same = set(ground.same_tokens)
    ids = tuple(str(name) for name in asked["prompt"] if name in same)
    shared = tuple(each for each in ground.layers if not layers or each in layers)
    if ids:
        pair = tuple(_narrow(trace, Selection(prompts=ids), n_prompts=len(ids)) for trace in (before, after))
        return _compared(ground, "tokens", pair, shared=shared, layers=layers)
    wanted = tuple(task for task in ground.tasks if not tasks or task in tasks)
    held = [Selection(tasks=wanted, prompts=prompts).held_by(trace) for trace in (before, after)]
    if not wanted or (prompts and not all(each.prompts for each in held)):
        return Comparison(ground=ground, over="nothing", n_prompts=(0, 0), matched=None, beside=None)
    pair = tuple(trace.select(each) for trace, each in zip((before, after), held, strict=True))
    return _compared(ground, "tasks", pair, shared=shared, layers=layers)


def _compared(
    ground: CommonGround,
    over: Literal["tokens", "tasks"],
    pair: Sequence[RoutingTrace],
    *,
    shared: tuple[str, ...],
    layers: tuple[str, ...],
) -> Comparison:
    before, after = pair
    matched = beside = None
    if before.n_prompts and after.n_prompts:
        if shared:
            matched = (_layers(before, shared), _layers(after, shared))
        held = [tuple(each for each in layers if each in trace.layers) for trace in pair]
        beside = (_layers(before, held[0]), _layers(after, held[1]))
    return Comparison(
        ground=ground, over=over, n_prompts=(before.n_prompts, after.n_prompts), matched=matched, beside=beside
    )


def _narrow(trace: RoutingTrace, selection: Selection, *, n_prompts: int) -> RoutingTrace:
    return trace if trace.n_prompts == n_prompts else trace.select(selection)


def _layers(trace: RoutingTrace, labels: tuple[str, ...]) -> RoutingTrace:
    return trace.select(Selection(layers=labels)) if labels and len(labels) < trace.n_layers else trace


def numbering(traces: Traces) -> pd.DataFrame:
    """As `expert_numbering`, for the cache."""
    return expert_numbering(traces["before"], traces["after"])


def layer_churn(traces: Traces) -> pd.DataFrame:
    """As `churn`, for the cache."""
    return churn(traces["before"], traces["after"])


def overlap(traces: Traces) -> pd.DataFrame:
    """As `saturation`, for the cache."""
    return saturation(traces["before"], traces["after"])


def kept_by_rank(traces: Traces) -> pd.DataFrame:
    """As `saturation_by_rank`, for the cache."""
    return saturation_by_rank(traces["before"], traces["after"])


def changes_of_use(traces: Traces) -> pd.DataFrame:
    """As `paired_differential`, for the cache."""
    return paired_differential(traces["before"], traces["after"])


def changes_of_scores(traces: Traces) -> pd.DataFrame | None:
    """As `score_changes`, for the cache; None where no prompt has a score in both, which is an answer like others."""
    try:
        return score_changes(traces["before"], traces["after"])
    except TraceError:
        return None


def changes_of_prompts(traces: Traces) -> pd.DataFrame:
    """As `changed_prompts`, for the cache."""
    return changed_prompts(traces["before"], traces["after"])


def changes_of_tokens(traces: Traces, *, prompt: str) -> xr.Dataset:
    """As `token_churn`, for the cache."""
    return token_churn(traces["before"], traces["after"], prompt=prompt)


def token_rows(changes: xr.Dataset) -> pd.DataFrame:
    """One row for each token and layer of `token_churn`: experts by rank as text, such as "E3 E7"."""
    of_token = changes.transpose("token", "layer", "rank")
    n_tokens, n_layers = of_token.sizes["token"], of_token.sizes["layer"]
    rows = pd.DataFrame(
        {
            "token": np.repeat(np.arange(n_tokens), n_layers),
            "piece": np.repeat(of_token["piece"].values.astype(str), n_layers),
            "layer": np.tile(of_token["layer"].values.astype(str), n_tokens),
            "churn": of_token["churn"].to_numpy().ravel(),
            "margin": of_token["margin"].to_numpy().ravel(),
        }
    )
    for side in ("experts_before", "experts_after"):
        experts = of_token[side].to_numpy().reshape(len(rows), -1).tolist()
        rows[side] = [" ".join(f"E{each}" for each in of_cell if each >= 0) for of_cell in experts]
    return rows


def distances(traces: Traces) -> pd.DataFrame:
    """As `routing_distance`, for the cache."""
    return routing_distance(traces["before"], traces["after"])


def information(traces: Traces) -> pd.DataFrame:
    """As `against_control`, for the cache: what the run "after" tells about tasks, beside the run "before"."""
    return against_control(traces["after"], traces["before"])
