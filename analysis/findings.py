"""What stands out in a trace: plain sentences, only where they beat their null."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from analysis.agreement import agreement
from analysis.clustering import clusters
from analysis.correlation import feature_correlation
from analysis.information import task_information
from analysis.load import idle_experts, load_balance
from analysis.signatures import signatures
from analysis.specialists import specialists
from routing.selection import Selection, expert_name
from routing.store.derived import load_derived, save_derived
from routing.trace import RoutingTrace

__all__ = ["Finding", "findings"]

# Several kinds of findings are looked for, so each is held to more than the usual 5 %.
ALPHA = 0.01
UNEVEN = 1.5
MOST_OF_A_KIND = 5

# Goes up whenever a finding's definition changes, so that findings kept beside a trace are made again.
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that stands out.

    Attributes:
        kind: "specialist", "task_type", "uneven", "idle", "information" or "taxonomy".
        sentence: what was found, with its figures.
        strength: size of the effect, 0 to 1, comparable across kinds only roughly.
        uncertainty: what speaks for it not being chance.
        view: the view that shows it, by its address.
        selection_query: the selection to show there, as `Selection.to_query` writes it.
    """

    kind: str
    sentence: str
    strength: float
    uncertainty: str
    view: str
    selection_query: dict[str, str]


def findings(trace: RoutingTrace, *, seed: int = 0) -> list[Finding]:
    """What stands out, the strongest first; nothing where nothing does.

    - specialist: an expert that a task's prompts choose at least twice as often as prompts do (`specialists`).
    - task_type: an expert whose activation over tasks correlates with a type of task beyond what the best of all
      experts and types reaches by chance (`feature_correlation`, p_any ≤ 0.01).
    - uneven: a busiest expert whose load is above 1.5 times the mean with its whole 95 % interval (`load_balance`).
    - idle: experts never chosen, where chance would leave any one of the trace idle with p ≤ 0.01 even if all tokens
      of a prompt went one way (`idle_experts`).
    - information: the layer whose experts say most about the task, where that is more than twice what permuted
      prompts reach (`task_information`).
    - taxonomy: tasks, clustered by their routes, fall into the types that people gave them (`agreement`, p ≤ 0.01).

    A trace of level "counts" has findings of load and types of tasks only. They are made once and kept beside the
    trace.

    Args:
        trace: the trace.
        seed: of permutations and draws.

    Returns:
        (finding) · a list of Finding · strength 0 to 1.
    """
    params = {"seed": seed, "version": VERSION}
    if (kept := load_derived(trace, "findings", params=params)) is not None:
        return [Finding(**each) for each in kept["findings"]]
    found: list[Finding] = []
    if trace.n_layers and (trace.n_tokens or trace.level == "counts"):
        found += [*_uneven(trace, seed=seed), *_idle(trace), *_task_types(trace, seed=seed)]
        if trace.level != "counts":
            found += [
                *_specialists(trace, seed=seed),
                *_information(trace, seed=seed),
                *_taxonomy(trace, seed=seed),
            ]
    found.sort(key=lambda each: -each.strength)
    save_derived(trace, "findings", {"findings": [asdict(each) for each in found]}, params=params)
    return found


def _specialists(trace: RoutingTrace, *, seed: int) -> Iterator[Finding]:
    table = specialists(trace, fdr=ALPHA, seed=seed)
    for row in table.drop_duplicates("task").head(MOST_OF_A_KIND).to_dict("records"):
        others = (table["task"] == row["task"]).sum() - 1
        yield Finding(
            kind="specialist",
            sentence=(
                f"{expert_name(row['layer'], row['expert'])} serves {row['task']}: its prompts choose it "
                f"{row['ratio']:.1f} times [{row['ratio_low']:.1f}, {row['ratio_high']:.1f}] as often as prompts do "
                f"on average ({row['rate']:.0%} of tokens against {row['overall']:.0%}), in both halves of the "
                f"prompts{_and_others(int(others))}."
            ),
            strength=float(row["rate"] - row["overall"]),
            uncertainty=f"95 % interval from the scatter of prompts; q = {_p(row['q_value'])} against permuted prompts",
            view="tasks",
            selection_query=Selection(experts=((row["layer"], row["expert"]),)).to_query(),
        )


def _task_types(trace: RoutingTrace, *, seed: int) -> Iterator[Finding]:
    table = feature_correlation(trace, seed=seed)
    for feature in table["feature"].values:
        part = table.sel(feature=feature)
        p = part["p_any"].to_numpy()
        if not np.isfinite(p).any() or np.nanmin(p) > ALPHA:
            continue
        r = part["r"].to_numpy()
        layer, expert = np.unravel_index(np.nanargmax(np.abs(r)), r.shape)
        best, limit = float(r[layer, expert]), float(part["null_95"])
        direction = "more" if best > 0 else "less"
        yield Finding(
            kind="task_type",
            sentence=(
                f"{expert_name(trace.layers[layer], int(expert))} is chosen {direction} by {feature} tasks than by "
                f"others: r = {best:.2f} over {len(trace.tasks)} tasks, where the best of all experts stays below "
                f"{limit:.2f} in 95 % of random groupings."
            ),
            strength=max(0.0, (abs(best) - limit) / max(1e-9, 1 - limit)),
            uncertainty=f"p = {_p(float(p[layer, expert]))} over all experts and types",
            view="tasks",
            selection_query=Selection(experts=((trace.layers[layer], int(expert)),)).to_query(),
        )


def _uneven(trace: RoutingTrace, *, seed: int) -> Iterator[Finding]:
    table = load_balance(trace, seed=seed)
    # Of counts alone there is no interval, so the figure itself must be far beyond.
    certain = table["max_over_mean_low"].fillna(table["max_over_mean"] / UNEVEN)
    over = table[certain > UNEVEN]
    if over.empty:
        return
    layer = str(over["max_over_mean"].idxmax())
    row = over.loc[layer]
    interval = (
        ""
        if np.isnan(row["max_over_mean_low"])
        else f" [{row['max_over_mean_low']:.1f}, {row['max_over_mean_high']:.1f}]"
    )
    yield Finding(
        kind="uneven",
        sentence=(
            f"{expert_name(layer, int(row['hottest']))} takes {row['max_over_mean']:.1f}{interval} times the mean load "
            f"of its layer; {_some(len(over), 'layer')} of {len(table)} {'is' if len(over) == 1 else 'are'} "
            f"above {UNEVEN:g} times."
        ),
        strength=float(1 - 1 / row["max_over_mean"]),
        uncertainty="95 % interval from redrawn prompts" if interval else "no interval: the trace holds counts only",
        view="load",
        selection_query=Selection(layers=(layer,), experts=((layer, int(row["hottest"])),)).to_query(),
    )


def _idle(trace: RoutingTrace) -> Iterator[Finding]:
    table = idle_experts(trace)
    n_experts = int(trace.expert_exists.sum())
    sure = table[table["chance_idle_prompts"] * n_experts <= ALPHA]
    for layer, part in list(sure.groupby("layer", sort=False))[:MOST_OF_A_KIND]:
        numbers = part["expert"].tolist()
        names = ", ".join(f"E{number}" for number in numbers[:4]) + (", …" if len(numbers) > 4 else "")
        row = part.iloc[0]
        pronoun = "it" if len(numbers) == 1 else "them"
        in_layer = int(trace.expert_exists.sel(layer=layer).sum())
        yield Finding(
            kind="idle",
            sentence=(
                f"{_some(len(numbers), 'expert')} of {in_layer} in {layer} ({names}) never worked: none of "
                f"{row['n_tokens']:,} tokens of {row['n_prompts']:,} prompts chose {pronoun}."
            ),
            strength=len(numbers) / in_layer,
            uncertainty=f"a fair expert would be idle with p ≤ {_p(float(part['chance_idle_prompts'].max()))}",
            view="load",
            selection_query=Selection(layers=(str(layer),)).to_query(),
        )


def _information(trace: RoutingTrace, *, seed: int) -> Iterator[Finding]:
    table = task_information(trace, seed=seed)
    sure = table[(table["p_value"] <= ALPHA) & (table["excess_nats"] > table["null_95"])]
    if sure.empty:
        return
    layer = str(sure["excess_nats"].idxmax())
    row = sure.loc[layer]
    yield Finding(
        kind="information",
        sentence=(
            f"Experts say most about the task in {layer}: {row['information_nats']:.2f} nats, "
            f"{row['share']:.0%} of what there is to know, where permuted prompts stay below {row['null_95']:.2f}; "
            f"beyond chance in {len(sure)} of {_some(len(table), 'layer')}."
        ),
        strength=float(row["share"]),
        uncertainty=f"p = {_p(float(row['p_value']))} against permuted prompts",
        view="tasks",
        selection_query=Selection(layers=(layer,)).to_query(),
    )


def _taxonomy(trace: RoutingTrace, *, seed: int) -> Iterator[Finding]:
    types = list(trace.task_types.values())
    n_types = len(set(types))
    if not 1 < n_types < len(types):
        return
    table = signatures(trace, of="task", values="lift")
    found = clusters(table, n_clusters=n_types, n_permutations=0, n_bootstrap=0, seed=seed)
    agreed = agreement(found.labels, types, seed=seed)
    if not agreed.p_value <= ALPHA:
        return
    yield Finding(
        kind="taxonomy",
        sentence=(
            f"Tasks routed alike are alike: {len(types)} tasks, clustered by the experts they use, fall into their "
            f"{n_types} types better than chance (AMI {agreed.ami:.2f}, of random groupings 95 % stay below "
            f"{agreed.null_95:.2f})."
        ),
        strength=max(0.0, agreed.ami),
        uncertainty=f"p = {_p(agreed.p_value)} against permuted types",
        view="map",
        selection_query={},
    )


def _some(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + 's'}"


def _and_others(number: int) -> str:
    return f"; {_some(number, 'more expert')} {'does' if number == 1 else 'do'} so too" if number else ""


def _p(value: float) -> str:
    return f"{value:.2g}"
