"""What is known of tasks and prompts beside their names: columns that experts can be correlated with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from app.runs import REPOSITORY
from routing import RoutingTrace

__all__ = ["LENGTH", "feature_columns", "held_columns", "of_held", "of_prompts", "of_tasks"]

LENGTH = "n_tokens"

# Columns of the prompt table that name the prompt, hold its text, or say what came of it.
_NO_FEATURES = ("prompt", "task", "text", "target", "prediction", "score", "metric", "answers", "options")
_MOST_VALUES = 40


def feature_columns(trace: RoutingTrace) -> dict[str, str]:
    """Columns that can be correlated with experts, and whether each belongs to "task" or to "prompt".

    Those of the prompt table come first, what a user added to it among them, then what the file of the tasks that were
    recorded says of them, then the length of the prompt.
    """
    table = trace.prompts
    found: dict[str, str] = {}
    for column in table.columns:
        name = str(column)
        if name in _NO_FEATURES or name.startswith("_"):
            continue
        values = table[column].astype(str)
        numeric = pd.api.types.is_numeric_dtype(table[column])
        if values.nunique() < 2 or (not numeric and values.nunique() > max(_MOST_VALUES, len(table) // 2)):
            continue
        by_task = values.groupby(table["task"]).nunique()
        found[name] = "task" if (by_task <= 1).all() else "prompt"
    for name in _written_features(trace):
        found.setdefault(name, "task")
    if trace.level != "counts" and trace.n_tokens and LENGTH not in found:
        found[LENGTH] = "prompt"
    return found


def of_tasks(trace: RoutingTrace, *, column: str) -> pd.DataFrame:
    """A column that belongs to tasks, as numbers: itself, or a column of 0 and 1 a value of several tasks, not all.

    Returns:
        (task) · one column a feature · numbers.
    """
    table = trace.prompts
    if column in table.columns:
        values = table.groupby("task", sort=False)[column].first().reindex(list(trace.tasks))
    else:
        written = _written_features(trace)[column]
        values = pd.Series([written.get(task) for task in trace.tasks], index=list(trace.tasks))
    if pd.api.types.is_numeric_dtype(values):
        filled = values.astype(float)
        return pd.DataFrame({column: filled.fillna(filled.mean())})
    named = values.astype(object).where(values.notna(), None)
    kinds = [each for each in dict.fromkeys(named) if each is not None]
    features = {str(kind): (named == kind).astype(float) for kind in kinds}
    kept = {name: each for name, each in features.items() if 1 < each.sum() < len(each)}
    return pd.DataFrame(kept, index=list(trace.tasks))


def held_columns(trace: RoutingTrace, columns: Mapping[str, str], *, column: str) -> tuple[str, ...]:
    """What can be held fixed while tasks are compared by a column: others of tasks, and how long their prompts are.

    Args:
        trace: the trace.
        columns: as `feature_columns` gives them.
        column: what is compared.
    """
    of_task = [name for name, kind in columns.items() if kind == "task" and name != column]
    lengths = [LENGTH] if columns.get(LENGTH) == "prompt" and trace.unit == "token" else []
    return tuple([*lengths, *(name for name in of_task if len(of_tasks(trace, column=name).columns))])


def of_held(trace: RoutingTrace, *, column: str) -> pd.DataFrame:
    """As `of_tasks`, and for the length of prompts the mean of each task.

    Returns:
        (task) · one column a feature · numbers.
    """
    if column != LENGTH:
        return of_tasks(trace, column=column)
    lengths = of_prompts(trace, column=LENGTH)[LENGTH]
    means = lengths.groupby(trace.prompts["task"].to_numpy(), sort=False).mean()
    return pd.DataFrame({LENGTH: means.reindex(list(trace.tasks)).fillna(float(means.mean()))})


def of_prompts(trace: RoutingTrace, *, column: str) -> pd.DataFrame:
    """A column that belongs to prompts, as numbers, as `analysis.prompt_features` makes them.

    Returns:
        (prompt) · one column a feature · numbers.
    """
    # Slow to import, and most views ask for no features.
    from analysis.prompt_features import prompt_features

    return prompt_features(trace, columns=(column,))


def _written_features(trace: RoutingTrace) -> Mapping[str, Mapping[str, str]]:
    """What the file of the recorded tasks says of them: feature → task → value."""
    source = trace.provenance.tasks
    if not source:
        return {}
    places = [Path(source), REPOSITORY / source]
    path = next((each / "tasks.json" for each in places if (each / "tasks.json").is_file()), None)
    if path is None:
        return {}
    try:
        tasks = json.loads(path.read_text("utf-8"))["tasks"]
        known = {str(each["name"]): dict(each.get("features") or {}) for each in tasks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    found: dict[str, dict[str, str]] = {}
    for task in trace.tasks:
        for name, value in known.get(task, {}).items():
            found.setdefault(str(name), {})[task] = str(value)
    return {name: values for name, values in found.items() if len(set(values.values())) > 1}
