"""The passage of a prompt under every layer: which colors its tokens have, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
import streamlit as st
import xarray as xr

from analysis.passages import passage_routing, token_churn
from app import cache, choices, state
from app.components.token_strip import Column, Marks, Passage, Section, token_strip
from app.links import tell_lost_run
from app.panel import data_popover, definitions_popover, empty
from app.questions import ExpertGroups, expert_groups
from app.views.tokens.search import asked_expert
from app.views.tokens.sentences import change_reading, group_reading, passage_reading
from figures.token_colors import Shading, expert_shading, group_shading, value_shading
from routing import LayerFacts, RoutingTrace, Selection, expert_name

__all__ = ["Reading", "passage_panel", "picked_layer"]

_SHADES = {
    "expert": "First expert",
    "group": "Cluster of experts",
    "margin": "Margin",
    "entropy": "Entropy",
    "nll": "NLL",
    "change": "Change",
}
_TITLES = {
    "margin": "Margin in {layer} (selection score)",
    "entropy": "Entropy in {layer} (share of ln experts)",
    "nll": "Negative log-likelihood (nats)",
    "change": "Churn of the selected experts in {layer} against {base}",
}
_DIGITS = {"margin": 3, "entropy": 3, "nll": 2, "change": 2}
_NO_RUN = "choose a run"
# What the sections of docs/metrics.md are that the numbers of a passage belong to.
_DEFINITIONS = ("token_experts", "margins", "routing_entropy", "token_churn")
_KEY = "token_strip"
# Entropies of more numbers than this would be waited for; they are worked out where they are asked for.
_MOST_SCORES = 8_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What is read of a prompt.

    Attributes:
        prompt: its id.
        tokens: as `prompt_tokens` gives them.
        routing: as `passage_routing` gives it.
        marks: what a search found in it.
    """

    prompt: str
    tokens: pd.DataFrame
    routing: xr.Dataset
    marks: Marks | None = None


def picked_layer(trace: RoutingTrace, selection: Selection) -> LayerFacts:
    """The layer whose colors are shown: as the URL says, else of the expert looked for or picked, else a middle one."""
    facts = {each.label: each for each in _layers(trace, selection)}
    labels = list(facts)
    middle = labels[len(labels) // 2]
    sought = asked_expert(trace, state.option("find") or "", layer=middle) if state.option("in") == "expert" else None
    wanted = next((layer for layer, _ in (*filter(None, [sought]), *selection.experts)), middle)
    return facts[choices.chosen("layer", labels, default=wanted if wanted in facts else middle)]


def routing_of(trace: RoutingTrace, prompt: str, *, n_tokens: int) -> xr.Dataset:
    """The passage's routing, with entropies where they are quick or asked for."""
    n_scores = n_tokens * sum(facts.n_experts for facts in trace.layer_facts)
    wanted = n_scores <= _MOST_SCORES or state.option("shade") == "entropy"
    return cache.answer(trace, passage_routing, prompt=prompt, entropy=wanted)


def passage_panel(
    trace: RoutingTrace,
    selection: Selection,
    reading: Reading,
    *,
    token: int | None,
    on_choose: Callable[[int | None], None],
    compares: bool = True,
) -> None:
    """Draw the passage, its legend and the sentence below it.

    Args:
        trace: the trace.
        selection: what the user looks at.
        reading: the prompt.
        token: row of the token in focus.
        on_choose: called with the row of the token that was pointed at, None where it was left.
        compares: whether other runs may hold the same text.
    """
    layer = picked_layer(trace, selection)
    tokens = reading.tokens
    labels = [each.label for each in _layers(trace, selection)]
    routing = reading.routing.sel(layer=labels)
    experts = _of_layer(routing, layer.label)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="passage_controls"):
        with st.container(width="content"):
            shade = choices.choose(
                "Color by", _known(trace, routing, tokens, compares=compares), name="shade", shown=_SHADES.__getitem__
            )
        base = _pick_base(trace) if shade == "change" else None
        st.space("stretch")
        definitions_popover(_DEFINITIONS, key="passage")
        data_popover(lambda: _token_table(tokens, experts, layer.label), key="passage", definitions=_DEFINITIONS)
    shading, sentence = _shading(trace, reading, routing, shade=shade, base=base, layer=layer, experts=experts)

    token_strip(
        Passage(
            id=f"{trace.digest}/{reading.prompt}",
            name=f"Tokens of prompt {reading.prompt}",
            pieces=tuple(tokens["piece"]),
            sections=_sections(tokens),
            layers=tuple(labels),
            experts=routing["experts"].to_numpy()[:, :, 0],
            expert_names={name: names for name, names in trace.expert_names.items() if name in labels},
            columns=_columns(routing, tokens),
            marks=reading.marks,
        ),
        shading,
        key=_KEY,
        chosen=token,
        layer=layer.label,
        on_choose=on_choose,
        on_layer=lambda label: state.set_options(layer=label),
    )
    st.markdown(sentence)


def _layers(trace: RoutingTrace, selection: Selection) -> list[LayerFacts]:
    return [each for each in trace.layer_facts if not selection.layers or each.label in selection.layers]


def _known(trace: RoutingTrace, routing: xr.Dataset, tokens: pd.DataFrame, *, compares: bool) -> list[str]:
    known = {
        "group": len(trace.tasks) > 1,
        "margin": bool(routing["margin"].notnull().any()),
        # Logits may be there whose entropies were left for when they are asked for.
        "entropy": trace.logits is not None,
        "nll": bool(tokens["nll"].notna().any()),
        "change": compares and bool(_others(trace)),
    }
    return [shade for shade in _SHADES if known.get(shade, True)]


def _others(trace: RoutingTrace) -> list[str]:
    """Names of the other runs, those of the same series first, for they are most likely to hold the same tokens."""
    own = cache.run_of(trace)
    others = [run for run in cache.runs() if run.path != str(trace.path)]
    return [run.name for run in sorted(others, key=lambda run: own is None or run.series != own.series)]


def _pick_base(trace: RoutingTrace) -> str | None:
    tell_lost_run("base")
    with st.container(width=300):
        chosen = choices.choose("Against", [_NO_RUN, *_others(trace)], name="base", kind="select")
    return None if chosen == _NO_RUN else chosen


def _shading(
    trace: RoutingTrace,
    reading: Reading,
    routing: xr.Dataset,
    *,
    shade: str,
    base: str | None,
    layer: LayerFacts,
    experts: pd.DataFrame,
) -> tuple[Shading, str]:
    """The look of every token in every layer, and what is to be seen in this one."""
    layers = [str(label) for label in routing["layer"].values]
    first_LT = routing["experts"].to_numpy()[:, :, 0]
    if shade == "group":
        groups = cache.answer(trace, expert_groups)
        names = _group_names(groups)
        group_LT = np.full(first_LT.shape, -1)
        of = {pair: group for group, members in enumerate(groups.members) for pair in members}
        for number, label in enumerate(layers):
            for expert in np.unique(first_LT[number][first_LT[number] >= 0]):
                group_LT[number][first_LT[number] == expert] = of.get((label, int(expert)), -1)
        at = layers.index(layer.label)
        sentence = group_reading(group_LT[at], layer=layer.label, names=names)
        return group_shading(group_LT, layers=layers, names=names, title="Cluster of first expert"), sentence
    if shade == "change" and base is not None:
        run = next(run for run in cache.runs() if run.name == base)
        traces = {"run": trace, "base": cache.trace_of(run)}
        change = cache.answer_over(traces, churn_between, prompt=reading.prompt)["churn"].sel(layer=layers)
        titles = [_TITLES["change"].format(layer=label, base=base) for label in layers]
        shading = value_shading(change.to_numpy(), titles=titles, digits=1, ends=(0.0, 1.0), absent="not compared")
        return shading, change_reading(change, reading.tokens, layer=layer.label, base=base)
    if shade in ("margin", "entropy", "nll"):
        values = reading.tokens["nll"].to_numpy(float)[None] if shade == "nll" else routing[shade].to_numpy()
        titles = [_TITLES[shade].format(layer=label) for label in (layers if shade != "nll" else ["all"])]
        sentence = passage_reading(reading.tokens, experts, layer=layer.label, shade=shade, n_experts=layer.n_experts)
        return value_shading(values, titles=titles, digits=_DIGITS[shade]), sentence
    if shade == "change":
        empty("Two runs of the same prompts are compared token by token.", "Choose the other run above.")
    shading = expert_shading(first_LT, layers=layers, name=lambda *of: _short(trace, *of))
    return shading, passage_reading(
        reading.tokens, experts, layer=layer.label, shade="expert", n_experts=layer.n_experts
    )


def churn_between(traces: dict[str, RoutingTrace], *, prompt: str) -> xr.Dataset:
    """As `token_churn`, for the cache: from "base" to "run"."""
    return token_churn(traces["base"], traces["run"], prompt=prompt)


def _short(trace: RoutingTrace, layer: str, expert: int) -> str:
    return expert_name(layer, expert, names=trace.expert_names).removeprefix(f"{layer}·")


def _group_names(groups: ExpertGroups) -> list[str]:
    """Clusters by number, and the type of tasks that they serve beyond chance."""
    names = []
    for group in range(groups.clustering.n_clusters):
        name = f"cluster {group + 1}"
        if groups.types is not None and group < groups.types.table.sizes["cluster"]:
            row = groups.types.table.isel(cluster=group)
            there = (row["q_value"] <= 0.05) & (row["mean"] > 0)
            if bool(there.any()):
                best = row["mean"].where(there).argmax("task_type")
                name += f" · {row['task_type'].values[int(best)]}"
        names.append(name)
    return names


def _of_layer(routing: xr.Dataset, layer: str) -> pd.DataFrame:
    row = routing.sel(layer=layer)
    first = row["experts"].to_numpy()[:, 0]
    expert = pd.array(first.astype(np.int64), dtype="Int64")
    expert[first < 0] = pd.NA
    return pd.DataFrame(
        {"expert": expert} | {name: row[name].to_numpy().astype(float) for name in ("weight", "margin", "entropy")}
    )


def _columns(routing: xr.Dataset, tokens: pd.DataFrame) -> tuple[Column, ...]:
    digits = {"weight": 3, "margin": 4, "entropy": 3}
    columns = [Column(name, routing[name].to_numpy(), places) for name, places in digits.items()]
    columns.append(Column("nll", tokens["nll"].to_numpy(float), 2))
    return tuple(column for column in columns if np.isfinite(column.values).any())


def _sections(tokens: pd.DataFrame) -> tuple[Section, ...]:
    several = tokens["stack"].nunique() > 1
    keys = [
        f"{stack} · {phase}" if several else str(phase)
        for stack, phase in zip(tokens["stack"], tokens["phase"], strict=True)
    ]
    sections, start = [], 0
    for label, run in groupby(keys):
        stop = start + len(list(run))
        sections.append(Section(start, stop, label))
        start = stop
    return tuple(sections)


def _token_table(tokens: pd.DataFrame, experts: pd.DataFrame, layer: str) -> pd.DataFrame:
    return tokens.assign(layer=layer, **{name: experts[name] for name in ("expert", "weight", "margin", "entropy")})
