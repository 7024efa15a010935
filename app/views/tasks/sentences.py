"""Sentences of the view Tasks: who prefers whom, and whether chance would do that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from app.sentences import and_list, count, escaped, percent, times
from routing import expert_name

__all__ = ["OF_WAITING", "of_expert", "of_features", "of_lift", "of_orders", "of_values"]

OF_WAITING = "Whether chance would give these lifts is still being found; until then no cell is gray."


def of_lift(table: xr.Dataset) -> str:
    """How many cells of a table of lifts are beyond chance, and the clearest of them.

    Args:
        table: of `specialization`, narrowed to what is shown.
    """
    tested = np.isfinite(table["q_value"].to_numpy())
    if not tested.any() and table.attrs.get("decided_by") == "task":
        return "The router decides once a task, so a task is a single observation and no cell can be tested for chance."
    if not tested.any():
        return "Without single tokens, chance cannot be judged: no cell is muted."
    noun = "task" if table.attrs.get("over", "task") == "task" else "type"
    significant = table["significant"].to_numpy().astype(bool) & tested
    lift = np.where(significant, table["lift"].to_numpy(), -np.inf)
    share = f"{int(significant.sum()):,} of {int(tested.sum()):,} cells differ from the average beyond chance"
    rule = f"q ≤ {table.attrs.get('fdr', 0.05):g}, {table.attrs.get('units', 'prompt')}s shuffled among {noun}s"
    if not significant.any():
        return f"None of {int(tested.sum()):,} cells differs from the average beyond chance ({rule})."
    group, layer, expert = np.unravel_index(int(lift.argmax()), lift.shape)
    name = escaped(
        expert_name(
            str(table["layer"].values[layer]),
            int(table["expert"].values[expert]),
            names=table.attrs.get("expert_names"),
        )
    )
    text = f"{share} ({rule}); the others are gray."
    if np.isfinite(lift[group, layer, expert]) and lift[group, layer, expert] > 0:
        who = escaped(str(table["group"].values[group]))
        rate = float(table["rate"].to_numpy()[group, layer, expert])
        factor = float(np.exp2(lift[group, layer, expert]))
        text += (
            f" The clearest preference: {who} uses **{name}** {times(factor)} as much as prompts do on average, "
            + (
                f"with {percent(rate)} of its weight."
                if table.attrs.get("measure") == "routed weight"
                else f"in {percent(rate)} of its tokens."
            )
        )
    return text


def of_expert(table: xr.Dataset, layer: str, expert: int) -> str:
    """Which groups use one expert more than all prompts do, beyond chance, the most first.

    Args:
        table: of `specialization`, narrowed to what is shown.
        layer: label of its layer.
        expert: its number.
    """
    cell = table.sel(layer=layer, expert=expert)
    lift, rate, q = (cell[name].to_numpy() for name in ("lift", "rate", "q_value"))
    overall = float(cell["overall"].to_numpy())
    tested = bool(np.isfinite(q).any())
    more = np.flatnonzero(np.isfinite(lift) & (lift > 0) & (cell["significant"].to_numpy().astype(bool) | (not tested)))
    name = escaped(expert_name(layer, expert, names=table.attrs.get("expert_names")))
    if not len(more):
        return f"**{name}** is used by none of these more than by all{', beyond chance' if tested else ''}."
    # The lift is drawn in a little, for what was hardly ever seen; these are the rates themselves.
    told = [
        f"{escaped(str(table['group'].values[place]))} ({times(float(rate[place]) / overall)}, "
        f"{percent(float(rate[place]))})"
        for place in more[np.argsort(-lift[more], kind="stable")]
    ]
    beyond = ", beyond chance" if tested else ""
    return f"**{name}**, {percent(overall)} in the mean prompt, is used more by {and_list(told)}{beyond}."


def of_orders(*, rows: int | None, columns: int | None, n_experts: int, n_tasks: int, values: str) -> str:
    """What clustered rows and columns were clustered by; empty where neither is.

    Args:
        rows: leaves of the tree of tasks; None where no tree is drawn.
        columns: leaves of the tree of experts.
        n_experts: experts that describe a task.
        n_tasks: tasks that describe an expert.
        values: what the numbers are.
    """
    parts = []
    if rows is not None:
        parts.append(f"rows by the {values} of all {count(n_experts, 'expert')}")
    if columns is not None:
        several = "" if columns > n_experts // 2 else f", gathered in {columns:,} clusters first"
        parts.append(f"columns by the {values} of all {count(n_tasks, 'task')}{several}")
    if not parts:
        return ""
    return (
        f" The trees (Ward, leaves turned so that neighbors are alike) join {' and '.join(parts)}; never what is "
        "pooled on the screen, nor a picture in two dimensions."
    )


def of_values(values: xr.DataArray, *, what: str, names: Mapping[str, Sequence[str]] | None = None) -> str:
    """The largest cell of a table of shares.

    Args:
        values: (group, layer, expert) · shares.
        what: what a share is of, such as "of its tokens".
        names: names of the experts of a layer, as in `trace.expert_names`.
    """
    known = values.to_numpy()
    if not np.isfinite(known).any():
        return "No token of this selection was routed."
    group, layer, expert = np.unravel_index(int(np.nanargmax(known)), known.shape)
    name = escaped(
        expert_name(
            str(values["layer"].values[layer]),
            int(values["expert"].values[expert]),
            names=names,
        )
    )
    who = escaped(str(values[values.dims[0]].values[group]))
    return f"The largest cell: {who} sends {percent(float(known[group, layer, expert]))} {what} to **{name}**."


def of_features(table: xr.Dataset) -> str:
    """Which types of tasks have an expert of their own beyond chance, and which have none.

    Args:
        table: of `feature_correlation`.
    """
    found, missing = [], []
    for feature in table["feature"].values:
        row = table.sel(feature=feature)
        r, p = row["r"].to_numpy(), row["p_value"].to_numpy()
        own = np.where((p <= 0.05) & (r > 0), r, -np.inf)
        if not np.isfinite(own).any():
            missing.append(escaped(str(feature)))
            continue
        layer, expert = np.unravel_index(int(own.argmax()), own.shape)
        name = escaped(
            expert_name(
                str(row["layer"].values[layer]),
                int(row["expert"].values[expert]),
                names=table.attrs.get("expert_names"),
            )
        )
        n_own = int(np.isfinite(own).sum())
        more = "" if n_own == 1 else f", and {count(n_own - 1, 'other')}"
        found.append(
            f"{escaped(str(feature))} has **{name}** (r = {own[layer, expert]:+.2f}, p = {p[layer, expert]:.3f}{more})"
        )
    if not found and not missing:
        return "No type is shared by several tasks, so no expert can be tested for a type."
    text = f"Among experts taken one by one, {and_list(found, most=9)}. " if found else ""
    if missing:
        text += (
            f"For {and_list(missing, most=9)} no single expert goes with the type more than the best one does when "
            "types are dealt to tasks at random."
        )
    return text.strip()
