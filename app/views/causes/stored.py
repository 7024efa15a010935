"""What interventions on a run's model came to, where somebody made them; read from beside the trace, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.mantel import MantelTest
from app.sentences import and_list, count, escaped
from app.views.adapters.sentences import significance
from routing import RoutingTrace, TraceError

__all__ = [
    "OVERRIDES",
    "Exchange",
    "exchanged_prototypes",
    "of_effects",
    "of_exchange",
    "of_exchange_relation",
    "selection_effects",
]

_FOLDER = "interventions"
OVERRIDES = {
    "shifted": "another set's embedding",
    "mean": "the mean embedding",
    "zero": "no embedding",
    "skip": "no adapter at all",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """Prompts of every task run with the adapters of every task's prototype.

    Attributes:
        change: task × prototype · loss in nats a token, less that with the own prototype.
        tasks: one row a task: own, others, difference, low, high.
        dominance: how much better tasks are under their own prototype than under the mean one, in nats a token.
        p_value: how often prototypes dealt at random do as well.
    """

    change: pd.DataFrame
    tasks: pd.DataFrame
    dominance: float
    p_value: float


def selection_effects(trace: RoutingTrace) -> pd.DataFrame | None:
    """Change of the loss with the selection embedding replaced, None where nobody measured it.

    Returns:
        (row) · override, task (or type; "all" first), n_prompts, nll_change, low, high · nats a token.

    Raises:
        TraceError: what is stored cannot be read.
    """
    return _table(trace, "selection-embedding-*", "effects")


def exchanged_prototypes(trace: RoutingTrace) -> Exchange | None:
    """What exchanging prototypes did, None where nobody measured it.

    Raises:
        TraceError: what is stored cannot be read.
    """
    matrix, tasks, whole = (_table(trace, "prototypes-*", name) for name in ("matrix", "tasks", "dominance"))
    if matrix is None or tasks is None or whole is None:
        return None
    order = list(dict.fromkeys(matrix["task"]))
    nll = matrix.pivot_table(index="task", columns="prototype", values="nll").loc[order, order]
    own = np.diag(nll.to_numpy())
    return Exchange(
        change=nll.sub(own, axis=0),
        tasks=tasks,
        dominance=float(whole["dominance"].iloc[0]),
        p_value=float(whole["p_value"].iloc[0]),
    )


def of_effects(table: pd.DataFrame) -> str:
    """Whether the model uses its selection embeddings, and its adapters.

    Args:
        table: rows of all prompts, of `selection_effects`, index override.
    """
    told = []
    for name, words in OVERRIDES.items():
        if name in table.index:
            row = table.loc[name]
            verdict = "" if row["low"] > 0 or row["high"] < 0 else ", within chance"
            told.append(
                f"{words} changes it by **{row['nll_change']:+.3f}** (95\N{NO-BREAK SPACE}% {row['low']:+.3f} to "
                f"{row['high']:+.3f}{verdict})"
            )
    n_prompts = count(int(table["n_prompts"].max()), "prompt")
    used = "shifted" in table.index and table.loc["shifted", "low"] > 0
    closing = (
        "The embedding of the own set matters: the conditioning is used."
        if used
        else "That another set's embedding does as well says that the conditioning is not used, whatever adapters add."
    )
    return f"Of the loss of {n_prompts}, in nats a token, {'; '.join(told)}. {closing}"


def of_exchange(found: Exchange) -> str:
    """Whether adapters are specific to their tasks."""
    better = int((found.change.to_numpy() >= 0).all(axis=1).sum())
    verdict = "more than" if found.p_value <= 0.05 else "no more than"
    worst = found.change.max(axis=1).sort_values(ascending=False)
    return (
        f"Tasks do better under their own prototype than under the mean one by **{found.dominance:+.3f}** nats a "
        f"token, {verdict} prototypes dealt at random give (p {significance(found.p_value)}); it is the best for "
        f"{better} of {count(len(found.change), 'task')}. What a foreign one costs most: "
        f"{and_list([f'{escaped(str(task))} ({cost:+.2f})' for task, cost in worst.head(3).items()])}."
    )


def of_exchange_relation(found: MantelTest) -> str:
    """Whether likeness of prototypes says which foreign ones cost less; nothing where there are too few to tell."""
    if not np.isfinite(found.rho):
        return ""
    verdict = "more" if found.p_value <= 0.05 else "no more"
    return (
        f"That like prototypes cost less holds at ρ = **{found.rho:.2f}**, {verdict} than under other names for the "
        f"tasks ({found.null_95:.2f} in one of twenty; Mantel, p {significance(found.p_value)})."
    )


def _table(trace: RoutingTrace, pattern: str, name: str) -> pd.DataFrame | None:
    if trace.path is None:
        return None
    folders = [each for each in (Path(trace.path) / _FOLDER).glob(pattern) if (each / "result.json").is_file()]
    newest = max(folders, key=lambda each: (each / "result.json").stat().st_mtime_ns, default=None)
    if newest is None:
        return None
    path = newest / f"{name}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}. Make the intervention anew, or remove its folder."
        raise TraceError(msg) from error
