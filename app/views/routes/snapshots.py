"""Routes that a training left beside its checkpoint, step by step, as traces that analysis can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from app.runs import REPOSITORY
from routing import LayerFacts, RoutingTrace, TraceError

__all__ = ["Snapshots", "route_snapshots"]

_FILE = "routes.npz"
_PARTS = {"step": 1, "stage": 1, "temperature": 1, "route_t1": 4, "tasks": 1}
_TYPES = "task_types"
# Half precision moves a route by less, another training by far more.
_NEAR = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshots:
    """Routes of a model's own tasks over its training.

    Attributes:
        traces: a trace for each snapshot, under the number of steps of all stages until then.
        stages: stage of each, and the step within it.
        temperatures: that training ran at.
        lead_here: whether the last of them are the routes of the run: else they are of another training.
    """

    traces: Mapping[int, RoutingTrace]
    stages: Mapping[int, tuple[int, int]]
    temperatures: Mapping[int, float]
    lead_here: bool


def route_snapshots(trace: RoutingTrace) -> Snapshots | None:
    """The routes that lie beside the checkpoint from which a run was recorded, None where there are none.

    Args:
        trace: a run of that checkpoint, whose layers the snapshots take over, and its types of tasks where the file
            tells none.

    Raises:
        TraceError: the file does not hold what it should.
    """
    folder = _checkpoint(trace)
    if folder is None:
        return None
    try:
        with np.load(folder / _FILE, allow_pickle=False) as file:
            parts = {name: file[name] for name in _PARTS}
            types = [str(kind) for kind in file[_TYPES]] if _TYPES in file.files else []
    except (KeyError, ValueError, OSError) as error:
        msg = f"{folder / _FILE} does not hold routes over training: {error}. Write it anew, or remove it."
        raise TraceError(msg) from error
    routes, tasks = parts["route_t1"].astype(float), [str(name) for name in parts["tasks"]]
    fits = all(parts[name].ndim == n_dims for name, n_dims in _PARTS.items())
    if not fits or routes.shape[:3] != (len(parts["step"]), len(tasks), trace.n_layers):
        msg = (
            f"{folder / _FILE} holds routes of shape {routes.shape}, and this run has {trace.n_layers} layers. "
            "Keep only routes of this checkpoint beside it."
        )
        raise TraceError(msg)
    known = _types(trace, folder) | dict(zip(tasks, types, strict=False))
    traces, stages, temperatures = {}, {}, {}
    before, last, total = 0, None, 0
    for number in np.lexsort((parts["step"], parts["stage"])):
        stage, step = int(parts["stage"][number]), int(parts["step"][number])
        if last is not None and stage != last:
            before = total
        last, total = stage, before + step
        traces[total] = _trace_of(routes[number], tasks, types=known, like=trace)
        stages[total] = (stage, step)
        temperatures[total] = float(parts["temperature"][number])
    last_of_all = routes[np.lexsort((parts["step"], parts["stage"]))[-1]]
    return Snapshots(traces=traces, stages=stages, temperatures=temperatures, lead_here=_leads_to(trace, last_of_all))


def _leads_to(trace: RoutingTrace, last: np.ndarray) -> bool:
    """Whether routes (task, layer, expert) are those that were read off the run's model, where they were."""
    own = trace.vectors.get("route_softmax_t1")
    # A checkpoint is replaced in its folder; runs of the one before keep its name. Rows are in the model's order.
    return own is None or own.shape == last.shape and bool(np.abs(own.to_numpy() - last).max() <= _NEAR)


def _checkpoint(trace: RoutingTrace) -> Path | None:
    model = trace.provenance.model
    places = [Path(model), REPOSITORY / model] if model else []
    return next((each for each in places if (each / _FILE).is_file()), None)


def _types(trace: RoutingTrace, folder: Path) -> dict[str, str]:
    """Types of those of the model's own tasks that the run has, too, by the names that they have there."""
    try:
        aliases = json.loads((folder / "config.json").read_text("utf-8")).get("task_aliases") or {}
    except (OSError, ValueError):
        aliases = {}
    return dict(trace.task_types) | {str(aliases.get(task, task)): kind for task, kind in trace.task_types.items()}


def _trace_of(routes: np.ndarray, tasks: list[str], *, types: Mapping[str, str], like: RoutingTrace) -> RoutingTrace:
    """One snapshot as a run with a prompt a task, each taking its likeliest experts."""
    n_experts = routes.shape[2]
    facts = [
        LayerFacts(
            label=each.label,
            number=each.number,
            stack=each.stack,
            module=each.module,
            router_class=each.router_class,
            n_experts=n_experts,
            top_k=1,
            score_function="softmax",
            temperature=1.0,
        )
        for each in like.layer_facts
    ]
    order = np.argsort(-routes, axis=-1, kind="stable")
    scores = np.take_along_axis(routes, order, axis=-1)
    axes = {"task_row": tasks, "layer": list(like.layers), "expert": np.arange(n_experts)}
    names = {"prompt": tasks, "task": tasks, "task_type": [types.get(task, "other") for task in tasks]}
    return RoutingTrace.from_arrays(
        order,
        layer_facts=facts,
        scores=scores,
        weights=np.ones((*order.shape[:2], 1)),
        tokens=pd.DataFrame({"prompt": np.arange(len(tasks)), "position": 0, "token_id": -1}),
        prompts=pd.DataFrame(names | {"text": "", "source": "routes beside the checkpoint"}),
        unit="prompt",
        vectors={"route_softmax_t1": xr.DataArray(routes.astype(np.float32), dims=tuple(axes), coords=axes)},
    )
