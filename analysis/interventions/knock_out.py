"""What a set of experts is needed for: loss and score without it, beside random sets of the same layers and load.

P prompt, S random set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import xarray as xr

from analysis.correlation import feature_correlation
from analysis.interventions.bench import Bench
from analysis.interventions.effects import groups_of
from analysis.interventions.knock_out_tables import (
    UNTOUCHED,
    Measured,
    dissociation_table,
    double_table,
    effect_table,
    unit_of,
)
from analysis.interventions.ledger import Progress, StudyFolder
from analysis.interventions.random_sets import Expert, load_of, matched_sets
from analysis.load import expert_load
from analysis.specialization import specialization
from hooks.knock_out import experts_knocked_out
from routing import RoutingTrace, SelectionError

__all__ = ["KnockOut", "knock_out", "serving_sets"]

VERSION = 3  # of how random sets are drawn: units of another version are not gone on with


@dataclass(frozen=True, kw_only=True, eq=False)
class KnockOut:
    """What happened without sets of experts.

    Attributes:
        sets: one row a set and expert: set, random (0 for the chosen set, else the number of the random set), layer,
            expert, load (mean share of its layers' work).
        effects: one row a set and group of prompts ("all" first): n_prompts, nll_before, nll_change with low and high
            (95 % bootstrap over prompts, paired), score_before, score_change with score_low and score_high;
            random_mean, random_low, random_high of the random sets' nll_change (their range); p_value, how often a
            random set does at least as much harm; the same of the score as random_score_mean, random_score_low,
            random_score_high and score_p_value; n_random.
        by_task: the same with a row for each task.
        dissociation: one row a set that serves a group: inside and outside (nll_change of the group's prompts and of
            the others), difference with low and high, random_mean, random_low, random_high, p_value and n_random.
        double: one row a pair of such sets: a, b, a_on_a, a_on_b, b_on_a, b_on_b (nll_change), interaction = (a_on_a −
            a_on_b) + (b_on_b − b_on_a) with low and high, random_mean, random_low, random_high, p_value and n_random
            against pairs of random sets.
        path: folder of the tables.
    """

    sets: pd.DataFrame
    effects: pd.DataFrame
    by_task: pd.DataFrame
    dissociation: pd.DataFrame
    double: pd.DataFrame
    path: Path


def knock_out(
    trace: RoutingTrace,
    bench: Bench,
    *,
    sets: Mapping[str, Sequence[Expert]],
    serves: Mapping[str, str] | None = None,
    over: str = "task_type",
    n_random: int = 20,
    seed: int = 0,
    beside: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> KnockOut:
    """Evaluate a model without sets of experts, each made unselectable before top-k.

    Args:
        trace: a trace of this model; it says the load that random sets are matched to.
        bench: the model and prompts.
        sets: experts by the name of their set.
        serves: for sets that are thought to serve a group of prompts, the group.
        over: what prompts are grouped by: "task" or "task_type".
        n_random: random sets for each set; fewer where the layers do not allow as many. A study that is asked again
            with more is enlarged: what was measured is kept. With fewer, it keeps those that it has.
        seed: of random sets and bootstrap.
        beside: folder for the results, instead of beside the trace.
        progress: called after each pass over the prompts.

    Raises:
        SelectionError: a set is empty, names experts that are not there, or serves a group that no prompt is of.
        RecordingError: an expert cannot be knocked out.
    """
    load = expert_load(trace)
    serves = dict(serves or {})
    untouched_groups = set(groups_of(bench.prompts, over=over))
    if unknown := sorted(set(serves.values()) - untouched_groups) or sorted(set(serves) - set(sets)):
        msg = (
            f"{', '.join(unknown)} is neither a group of the prompts ({', '.join(sorted(untouched_groups))}) nor one "
            f"of the sets ({', '.join(sets)}). Say for each set which group it serves."
        )
        raise SelectionError(msg)
    params = {
        **bench.identity(),
        "version": VERSION,
        "trace": trace.digest,
        "sets": {name: [[layer, int(expert)] for layer, expert in experts] for name, experts in sets.items()},
        "seed": seed,
    }
    folder = StudyFolder(trace if beside is None else beside, "knock-out", params=params, progress=progress)
    n_random = max(n_random, int(folder.kept.get("n_random", 0)))
    random = {
        name: matched_sets(load, experts, n_sets=n_random, seed=seed + number)
        for number, (name, experts) in enumerate(sets.items())
    }
    plan: dict[str, Callable[[], pd.DataFrame]] = {UNTOUCHED: bench.measured}
    for name, experts in sets.items():
        for number, each in enumerate([tuple(experts), *random[name]]):
            plan[unit_of(name, number)] = lambda each=each: _without(bench, each)  # type: ignore[misc]
    tables = folder.units(plan)
    measured = Measured(tables=tables, n_random={name: len(each) for name, each in random.items()}, seed=seed)
    found = {
        "sets": _set_table(sets, random, load),
        "effects": effect_table(measured, over=over),
        "by_task": effect_table(measured, over="task"),
        "dissociation": dissociation_table(measured, serves, over=over),
        "double": double_table(measured, serves, over=over),
    }
    folder.keep(found, about={"over": over, "serves": serves, "seed": seed, "n_random": n_random})
    return KnockOut(**found, path=folder.path)


def serving_sets(
    trace: RoutingTrace,
    groups: Sequence[str],
    *,
    over: str = "task_type",
    n_experts: int = 3,
    ranked_by: str = "z",
    seed: int = 0,
) -> dict[str, list[Expert]]:
    """For each group of prompts, the experts that it uses most beyond what prompts do overall.

    Candidates are ranked by z of `specialization`, or by r of `feature_correlation`; of a layer, at least as many
    experts are left as a token needs, and as many as are taken, so that random sets exist.

    Args:
        trace: the trace.
        groups: tasks or task types.
        over: which of the two they are.
        n_experts: how many for each.
        ranked_by: "z", prompts as the points; "r", tasks as the points, for task types that several tasks share.
        seed: of the permutations.

    Raises:
        SelectionError: a group is none of the trace's, or no such ranking exists.
    """
    table = _ranking(trace, over=over, ranked_by=ranked_by, seed=seed)
    known = table["group"].to_numpy().tolist()
    if unknown := [group for group in groups if group not in known]:
        msg = f"The trace has no {over} {', '.join(unknown)}; it has {', '.join(known)}. Name one of these."
        raise SelectionError(msg)
    found: dict[str, list[Expert]] = {}
    for group in groups:
        z = table.sel(group=group).to_series().dropna()
        z = z[z > 0].sort_values(ascending=False, kind="stable")
        chosen: list[Expert] = []
        for layer, expert in z.index:
            facts = trace.layer_facts[trace.layers.index(layer)]
            needed = 1 if facts.top_k == facts.n_experts else facts.top_k
            n_here = sum(at == layer for at, _ in chosen) + 1
            if n_here <= min(facts.n_experts - needed, facts.n_experts // 2) and len(chosen) < n_experts:
                chosen.append((str(layer), int(expert)))
        found[group] = chosen
    return found


def _ranking(trace: RoutingTrace, *, over: str, ranked_by: str, seed: int) -> xr.DataArray:
    """(group, layer, expert) how much more a group uses each expert."""
    if ranked_by == "z":
        return specialization(trace, over=over, n_permutations=100, seed=seed)["z"]  # type: ignore[arg-type]
    if ranked_by != "r" or over != "task_type":
        msg = (
            f"Experts are ranked by 'z', or for task types by 'r', not by {ranked_by!r} over {over}. "
            "Choose one of the two."
        )
        raise SelectionError(msg)
    return feature_correlation(trace, n_permutations=0)["r"].rename(feature="group")


def _without(bench: Bench, experts: Sequence[Expert]) -> pd.DataFrame:
    with experts_knocked_out(bench.model, bench.sites, list(experts)):
        return bench.measured()


def _set_table(
    sets: Mapping[str, Sequence[Expert]], random: Mapping[str, Sequence[Sequence[Expert]]], load: xr.DataArray
) -> pd.DataFrame:
    rows = [
        {"set": name, "random": number, "layer": layer, "expert": int(expert), "load": load_of(load, each)}
        for name, experts in sets.items()
        for number, each in enumerate([experts, *random[name]])
        for layer, expert in each
    ]
    return pd.DataFrame(rows)
