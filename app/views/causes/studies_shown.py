"""Stored interventions as the Causes view shows them: which studies there are, and the lines of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.stored_studies import FOLDER, StoredStudy, stored_studies
from app.runs import Run
from figures.effects import EffectRow
from routing import RoutingTrace, expert_name

__all__ = [
    "LEVEL",
    "Measure",
    "KnockOutStudy",
    "called",
    "decision_rows",
    "double_rows",
    "effect_rows",
    "harmful",
    "knock_outs",
    "measures_of",
    "runner_up",
    "shown_groups",
    "studied_runs",
]

LEVEL = 0.05
_EVERYONE = "all"
_ALL_PROMPTS = "all prompts"


@dataclass(frozen=True)
class Measure:
    """What an intervention is judged by: names of the columns of `knock_out`'s effects.

    Attributes:
        name: as the URL writes it.
        title: of the axis.
        change, low, high: the effect and its interval.
        random: what the columns of the random sets begin with.
        p_value: of its rank among them.
        before: of the untouched model.
    """

    name: str
    title: str
    change: str
    low: str
    high: str
    random: str
    p_value: str
    before: str


NLL = Measure(
    "loss", "change of the loss (nats a target token)", "nll_change", "low", "high", "random", "p_value", "nll_before"
)
SCORE = Measure(
    "score",
    "change of the score (share of right answers)",
    "score_change",
    "score_low",
    "score_high",
    "random_score",
    "score_p_value",
    "score_before",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockOutStudy:
    """One stored knock-out.

    Attributes:
        name: of its folder; the URL names it so.
        sets: experts by the name of their set.
        serves: the group that a set was chosen for, where it was.
        over: what the groups of `effects` are, "task" or "task_type".
        effects: one row a set and group.
        by_task: one row a set and task; None where it was not kept.
        double: one row a pair of sets that serve different groups.
        dissociation: one row a set that serves a group.
        loads: share of its layers' work that each set does, and the least and most that its random sets do.
        n_prompts, n_random: prompts, and the most random sets of any set.
    """

    name: str
    sets: Mapping[str, tuple[tuple[str, int], ...]]
    serves: Mapping[str, str]
    over: str
    effects: pd.DataFrame
    by_task: pd.DataFrame | None
    double: pd.DataFrame
    dissociation: pd.DataFrame
    loads: Mapping[str, tuple[float, float, float]]
    n_prompts: int
    n_random: int


def knock_outs(trace: RoutingTrace) -> list[KnockOutStudy]:
    """The knock-outs beside a trace, the newest first; of sets that this trace's layers hold."""
    found = (_study(trace, each) for each in stored_studies(trace, name="knock-out"))
    return [each for each in found if each is not None]


def _study(trace: RoutingTrace, stored: StoredStudy) -> KnockOutStudy | None:
    tables = stored.tables
    if not {"sets", "effects"} <= set(tables) or tables["effects"].empty:
        return None
    chosen = tables["sets"].query("random == 0")
    sets = {
        str(name): tuple((str(layer), int(expert)) for layer, expert in zip(rows["layer"], rows["expert"], strict=True))
        for name, rows in chosen.groupby("set", sort=False)
    }
    if not all(layer in trace.layers for experts in sets.values() for layer, _ in experts):
        return None
    effects = tables["effects"]
    return KnockOutStudy(
        name=stored.path.name,
        sets=sets,
        serves={str(name): str(group) for name, group in stored.params.get("serves", {}).items()},
        over=str(stored.params.get("over", "task_type")),
        effects=effects,
        by_task=tables.get("by_task"),
        double=tables.get("double", pd.DataFrame()),
        dissociation=tables.get("dissociation", pd.DataFrame()),
        loads=_loads(tables["sets"]),
        n_prompts=int(effects.loc[effects["group"] == _EVERYONE, "n_prompts"].max()),
        n_random=int(effects["n_random"].max()),
    )


def _loads(sets: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    by_set = sets.groupby(["set", "random"], sort=False)["load"].first()
    found = {}
    for name in dict.fromkeys(sets["set"]):
        own = by_set[name]
        others = own.drop(index=0)
        if len(others):
            found[str(name)] = (float(own[0]), float(others.min()), float(others.max()))
    return found


def studied_runs(trace: RoutingTrace, runs: Sequence[Run]) -> list[str]:
    """Names of other runs of the same model, beside which studies lie: those that ship with a sample model."""
    model = Path(trace.provenance.model or "").name
    return [
        run.name
        for run in runs
        if model and run.series == model and run.path != str(trace.path) and (Path(run.path) / FOLDER).is_dir()
    ]


def measures_of(study: KnockOutStudy) -> tuple[Measure, ...]:
    """What the study measured: the loss, and the score where prompts have one."""
    has_score = "score_change" in study.effects and study.effects["score_change"].notna().any()
    return (NLL, SCORE) if has_score else (NLL,)


def effect_rows(
    trace: RoutingTrace, study: KnockOutStudy, table: pd.DataFrame, measure: Measure, *, sets: Sequence[str]
) -> list[EffectRow]:
    """Lines of the picture: a heading for each set, and below it the groups of prompts, everyone first.

    Args:
        trace: names its experts.
        study: whose sets they are.
        table: its effects, or those by task.
        measure: what is drawn.
        sets: which sets, in order.
    """
    types = trace.task_types
    lines: list[EffectRow] = []
    for name in sets:
        lines.append(EffectRow(name=f"without {called(trace, study, name)}"))
        for row in table[table["set"] == name].to_dict("records"):
            if not np.isfinite(row.get(measure.change, np.nan)):
                continue
            group = str(row["group"])
            everyone = group == _EVERYONE
            served = study.serves.get(name)
            lines.append(
                EffectRow(
                    name=_ALL_PROMPTS if everyone else group,
                    value=float(row[measure.change]),
                    low=_number(row, measure.low),
                    high=_number(row, measure.high),
                    random_mean=_number(row, f"{measure.random}_mean"),
                    random_low=_number(row, f"{measure.random}_low"),
                    random_high=_number(row, f"{measure.random}_high"),
                    beyond=harmful(row, measure),
                    meant=not everyone and served is not None and served in (group, types.get(group)),
                    told=f"without {called(trace, study, name)}; {int(row['n_prompts'])} prompts",
                    about=name,
                )
            )
    return lines


def double_rows(study: KnockOutStudy) -> list[EffectRow]:
    """Lines of the double dissociation: one a pair of sets."""
    return [
        EffectRow(
            name=f"{row['a']} × {row['b']}",
            value=float(row["interaction"]),
            low=float(row["low"]),
            high=float(row["high"]),
            random_mean=_number(row, "random_mean"),
            random_low=_number(row, "random_low"),
            random_high=_number(row, "random_high"),
            beyond=row["p_value"] <= LEVEL and row["low"] > 0,
            told=f"{int(row['n_random'])} pairs of random sets",
        )
        for row in study.double.to_dict("records")
        if np.isfinite(row["interaction"])
    ]


def shown_groups(trace: RoutingTrace, table: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """The effects on everyone, and on those groups that hold one of these tasks; on all, where none is named."""
    if not tasks:
        return table
    kept = {_EVERYONE, *tasks, *(trace.task_types.get(task, "") for task in tasks)}
    return table[table["group"].isin(kept)]


def decision_rows(layers: pd.DataFrame) -> list[EffectRow]:
    """Lines of the runner-up's cost: one a layer; no random decisions stand beside it, the interval speaks."""
    return [
        EffectRow(
            name=str(row["layer"]),
            value=float(row["nll_change"]),
            low=float(row["low"]),
            high=float(row["high"]),
            beyond=row["low"] > 0 or row["high"] < 0,
            told=f"{int(row['n_choices'])} decisions, {float(row['better']):.0%} of them better with the runner-up",
        )
        for row in layers.to_dict("records")
    ]


def runner_up(trace: RoutingTrace) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Decisions that were changed, and their means by layer, of the newest such study; None where there is none."""
    for stored in stored_studies(trace, name="runner-up"):
        if {"choices", "layers"} <= set(stored.tables):
            return stored.tables["choices"], stored.tables["layers"]
    return None


def harmful(row: Mapping[str, object], measure: Measure) -> bool:
    """Whether an effect is harm, its interval beyond 0, that beats the random sets: a higher loss, a lower score."""
    sign = 1.0 if measure is NLL else -1.0
    change, low, high = (sign * _number(row, name) for name in (measure.change, measure.low, measure.high))
    nearest = min(low, high) if np.isfinite(low) and np.isfinite(high) else change
    return nearest > 0 and _number(row, measure.p_value) <= LEVEL


def called(trace: RoutingTrace, study: KnockOutStudy, name: str) -> str:
    """What a set's experts are called, and what they serve."""
    experts = study.sets.get(name, ())
    names = ", ".join(expert_name(layer, expert, names=trace.expert_names) for layer, expert in experts[:3])
    more = f" and {len(experts) - 3} more" if len(experts) > 3 else ""
    serve = "serves" if len(experts) == 1 else "serve"
    return f"{names}{more} ({serve} {study.serves[name]})" if name in study.serves else f"{names}{more}"


def _number(row: Mapping[str, object], name: str) -> float:
    value = row.get(name)
    return float(str(value)) if value is not None else float("nan")
