"""Are PHA's adapters made for their task? Every task under every task's prototype.

T task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from analysis.interventions.bench import Bench
from analysis.interventions.effects import mean_interval, rank_p_value
from analysis.interventions.ledger import Progress, StudyFolder
from routing import RecordingError, RoutingTrace, TaskError

__all__ = ["PrototypeExchange", "diagonal_dominance", "prototype_exchange"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PrototypeExchange:
    """Losses and scores of every task under every prototype.

    Attributes:
        nll: (task, prototype) · mean surprise at the target's tokens · nats a token.
        score: (task, prototype) · mean score · 0 to 1, NaN where a task has none.
        dominance: by how much the own prototype is better than the mean prototype, mean over tasks · nats a token.
        p_value: how often prototypes dealt out at random do at least as well.
        n_permutations: of the null.
        left_out: tasks of the prompts that the model has no prototype of.
        tasks: one row a task: own (nll under its own prototype), others (mean under the others), advantage = others −
            own with low and high (95 % bootstrap over prompts), best (the prototype with the least nll).
    """

    nll: xr.DataArray
    score: xr.DataArray
    dominance: float
    p_value: float
    n_permutations: int
    left_out: tuple[str, ...]
    tasks: pd.DataFrame


def prototype_exchange(
    bench: Bench,
    *,
    beside: RoutingTrace | str | Path,
    n_permutations: int = 10000,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> PrototypeExchange:
    """Run the prompts of every task with the adapters of every task.

    Args:
        bench: a PHA model and prompts; those of tasks that it does not know are left out.
        beside: the trace that the results are kept beside, or a folder.
        n_permutations: of the null.
        seed: of permutations and bootstrap.
        progress: called after each prototype.

    Raises:
        RecordingError: the model has no prototypes that its adapters are made from.
        TaskError: the prompts are of fewer than two tasks that the model knows.

    References:
        Zhao et al., EMNLP 2023, "Prototype-based HyperAdapter".
    """
    model = bench.model
    if not hasattr(model, "prototypes") or model.config.adapter_source != "prototype":
        msg = (
            f"This {type(model).__name__} makes no adapters from prototypes, so there are none to exchange. "
            "Give a PHA model whose adapter_source is 'prototype'."
        )
        raise RecordingError(msg)
    given = list(dict.fromkeys(bench.prompts["task"]))
    tasks = [task for task in given if model.knows_task(task)]
    if len(tasks) < 2:
        msg = (
            f"Prototypes can be exchanged between two tasks or more that the model knows, and the prompts are of "
            f"{', '.join(given)}. It knows {', '.join(model.config.tasks)}: give prompts of these."
        )
        raise TaskError(msg)
    folder = StudyFolder(beside, "prototypes", params=bench.identity(), progress=progress)
    tables = folder.units({task: lambda task=task: bench.measured(as_task=task, tasks=tasks) for task in tasks})  # type: ignore[misc]
    coords = {"task": tasks, "prototype": tasks}
    nll, score = (_matrix(tables, tasks, column=name) for name in ("nll", "score"))
    dominance, p_value = diagonal_dominance(nll, n_permutations=n_permutations, seed=seed)
    found = PrototypeExchange(
        nll=xr.DataArray(nll, dims=tuple(coords), coords=coords, name="nll", attrs={"unit": "nats a token"}),
        score=xr.DataArray(score, dims=tuple(coords), coords=coords, name="score", attrs={"unit": "share"}),
        dominance=dominance,
        p_value=p_value,
        n_permutations=n_permutations,
        left_out=tuple(task for task in given if task not in tasks),
        tasks=_by_task(tables, tasks, nll, seed=seed),
    )
    matrix = pd.DataFrame(
        [
            {"task": task, "prototype": other, "nll": nll[row, column], "score": score[row, column]}
            for row, task in enumerate(tasks)
            for column, other in enumerate(tasks)
        ]
    )
    whole = pd.DataFrame([{"dominance": dominance, "p_value": p_value, "n_permutations": n_permutations}])
    about = {"n_permutations": n_permutations, "seed": seed}
    folder.keep({"matrix": matrix, "tasks": found.tasks, "dominance": whole}, about=about)
    return found


def diagonal_dominance(nll_TT: np.ndarray, *, n_permutations: int, seed: int = 0) -> tuple[float, float]:
    """How much better each task is under its own prototype than under the mean one, and its p-value.

    The null deals the prototypes out to the tasks at random, each to one task.

    Args:
        nll_TT: (task, prototype), tasks and prototypes in the same order.
        n_permutations: of the null.
        seed: of the permutations.

    Returns:
        (mean over tasks of mean over prototypes − own, p) · nats a token, p-value · any, 1/(n+1) to 1.
    """
    n = len(nll_TT)
    rng = np.random.default_rng(seed)
    mean = nll_TT.mean(axis=1)
    observed = float((mean - nll_TT.diagonal()).mean())
    dealt = np.argsort(rng.random((n_permutations, n)), axis=1)
    null = (mean - nll_TT[np.arange(n), dealt]).mean(axis=1)
    return observed, rank_p_value(observed, null)


def _matrix(tables: dict[str, pd.DataFrame], tasks: list[str], *, column: str) -> np.ndarray:
    means = {other: table.groupby("task")[column].mean() for other, table in tables.items()}
    return np.array([[means[other][task] for other in tasks] for task in tasks])


def _by_task(tables: dict[str, pd.DataFrame], tasks: list[str], nll_TT: np.ndarray, *, seed: int) -> pd.DataFrame:
    rows = []
    for row, task in enumerate(tasks):
        mine = tables[task]["task"] == task
        own = tables[task]["nll"][mine].to_numpy()
        others = np.mean([tables[other]["nll"][mine].to_numpy() for other in tasks if other != task], axis=0)
        low, high = mean_interval(others - own, seed=seed)
        rows.append(
            {
                "task": task,
                "n_prompts": int(mine.sum()),
                "own": float(np.mean(own)),
                "others": float(np.mean(others)),
                "advantage": float(np.mean(others - own)),
                "low": low,
                "high": high,
                "best": tasks[int(np.nanargmin(nll_TT[row]))] if np.isfinite(nll_TT[row]).any() else "",
            }
        )
    return pd.DataFrame(rows)
