"""Sections of a report on what works together, what breaks without it, what changed, and where experts should live.

Each is None where the run does not say: counts only, one decision a prompt, one expert a layer, no study beside it.
"""

from __future__ import annotations

import pandas as pd

from analysis.capacity import capacity_drops
from analysis.expert_bound import expert_bound
from analysis.paths import path_entropy, repetition
from analysis.placement_study import placement_what_if
from app.report.parts import Panel, Section
from app.views.causes import sentences as causes_sentences
from app.views.causes.studies_shown import NLL, KnockOutStudy, called, double_rows, effect_rows, knock_outs
from app.views.compare import pairing
from app.views.compare import sentences as compare_sentences
from app.views.placement import sentences as placement_sentences
from app.views.placement.view import devices_that_work
from app.views.together import path_sentences
from app.views.together import sentences as together_sentences
from app.views.together.tables import pair_tables, windows_of
from figures.comparisons import churn_dots, difference_dots, placement_dots, repetition_dots
from figures.curves import capacity_curve, rank_curves
from figures.effects import effect_dots
from figures.paths import pair_dots, path_dots
from routing import RoutingTrace, SelectionError, expert_name

__all__ = ["view_sections"]

_N_PAIRS = 14
_N_EXPERTS = 16
_USUAL_DEVICES = 8
_FACTOR = 1.25
_NAMES = ("the earlier run", "this run")


def view_sections(trace: RoutingTrace, *, before: RoutingTrace | None, seed: int) -> list[Section]:
    """The sections that this run has something for, in the order of the app's views.

    Args:
        trace: the run.
        before: an earlier run of the same prompts.
        seed: of draws.
    """
    found = [_together(trace), _causes(trace), _compared(trace, before), _placed(trace, seed=seed)]
    return [section for section in found if section is not None]


def _together(trace: RoutingTrace) -> Section | None:
    if trace.level == "counts" or not trace.n_tokens:
        return None
    panels = [*_pairs(trace), *_paths(trace)]
    if trace.unit == "token":
        table = repetition(trace)
        if table["same_first"].notna().any():
            panels.append(
                Panel(
                    title="Do neighbors go to the same expert?",
                    figure=repetition_dots(table, mode="light"),
                    reading=path_sentences.of_repetition(table.reset_index()),
                    table=table.reset_index,
                    definitions=("repetition",),
                    key="neighbors",
                )
            )
    return (
        Section(title="Which experts work together, and along which paths?", panels=tuple(panels)) if panels else None
    )


def _pairs(trace: RoutingTrace) -> list[Panel]:
    if trace.dense_routing or all(facts.top_k < 2 for facts in trace.layer_facts):
        return []
    found = pair_tables(trace)
    strongest = found["pairs"].dropna(subset=["p_value"])
    strongest = strongest.sort_values(["significant", "lift_low"], ascending=False, kind="stable").head(_N_PAIRS)
    if strongest.empty:
        return []
    names = trace.expert_names
    shown = [
        f"{expert_name(str(row.layer), int(row.expert), names=names)} + "
        f"{expert_name(str(row.layer), int(row.other), names=names).removeprefix(f'{row.layer}·')}"
        for row in strongest.itertuples()
    ]
    return [
        Panel(
            title="Strongest pairs of experts in one token",
            figure=pair_dots(strongest, names=shown, value_title="together ÷ chance", mode="light"),
            reading=together_sentences.of_strongest_pairs(found["layers"]),
            table=lambda: found["pairs"],
            definitions=("coactivation", "q_value"),
            key="pairs",
        )
    ]


def _paths(trace: RoutingTrace) -> list[Panel]:
    windows = windows_of(trace)
    if not windows:
        return []
    table = path_entropy(trace, window=max(map(len, windows.values()))).reset_index()
    if table.empty or table["entropy_nats"].isna().all():
        return []
    return [
        Panel(
            title="How many paths tokens take",
            figure=path_dots(table, mode="light"),
            reading=path_sentences.of_path_entropy(table, unit=trace.unit),
            table=lambda: table,
            definitions=("path_entropy",),
            key="paths",
        )
    ]


def _causes(trace: RoutingTrace) -> Section | None:
    studies = knock_outs(trace)
    if not studies:
        return None
    panels: list[Panel] = []
    for number, study in enumerate(studies):
        panels += _knock_out(trace, study, end="" if len(studies) == 1 else f"_{number + 1}")
    return Section(title="What breaks when experts are gone?", panels=tuple(panels))


def _knock_out(trace: RoutingTrace, study: KnockOutStudy, *, end: str) -> list[Panel]:
    sets, table = list(study.sets), study.effects
    names = {name: called(trace, study, name) for name in sets}
    reading = causes_sentences.of_knock_outs(table, NLL, serves=study.serves, called=names)
    loads = causes_sentences.of_loads(study, sets=sets, called=names)
    panels = [
        Panel(
            title=f"Loss without these experts: {causes_sentences.of_study(study)}",
            figure=effect_dots(effect_rows(trace, study, table, NLL, sets=sets), value_title=NLL.title, mode="light"),
            reading=reading + loads,
            table=lambda: table,
            definitions=("knock_out",),
            key=f"knock_out{end}",
        )
    ]
    if len(study.double):
        panels.append(
            Panel(
                title="Do the sets come apart?",
                figure=effect_dots(
                    double_rows(study), value_title="own less other, both sets (nats a token)", mode="light"
                ),
                reading=causes_sentences.of_double(study.double),
                table=lambda: study.double,
                definitions=("knock_out",),
                key=f"dissociation{end}",
            )
        )
    return panels


def _compared(trace: RoutingTrace, before: RoutingTrace | None) -> Section | None:
    if before is None:
        return None
    traces = {"before": before, "after": trace}
    found = pairing.comparison(traces)
    counts = "counts" in (trace.level, before.level)
    ground = compare_sentences.of_ground(found, names=_NAMES, n_layers=(before.n_layers, trace.n_layers), counts=counts)
    panels: list[Panel] = []
    if found.matched is not None and found.over == "tokens" and not counts and not trace.dense_routing:
        matched = dict(zip(("before", "after"), found.matched, strict=True))
        panels = _changes(matched, trace)
    return Section(title="What changed since the earlier run?", sentences=(ground,), panels=tuple(panels))


def _changes(matched: dict[str, RoutingTrace], trace: RoutingTrace) -> list[Panel]:
    changed = pairing.layer_churn(matched)
    if not changed["any_changed"].any():
        return []
    kept, use = pairing.kept_by_rank(matched), pairing.changes_of_use(matched)
    return [
        Panel(
            title="How much the routing changed",
            figure=churn_dots(changed, mode="light"),
            reading=compare_sentences.of_churn(changed, names=_NAMES, unit=trace.unit),
            table=changed.reset_index,
            definitions=("churn",),
            key="churn",
        ),
        Panel(
            title="What the earlier run had already selected",
            figure=rank_curves(kept, mode="light"),
            reading=compare_sentences.of_kept(kept, names=_NAMES),
            table=kept.reset_index,
            definitions=("saturation_by_rank",),
            key="kept",
        ),
        Panel(
            title="Experts used otherwise",
            figure=difference_dots(use.head(_N_EXPERTS), one=_NAMES[1], other=_NAMES[0], n_shown=_N_EXPERTS,
                                   mode="light"),
            reading=compare_sentences.of_use(use, names=_NAMES, expert_names=trace.expert_names),
            table=lambda: use,
            definitions=("paired_differential",),
            key="use",
        ),
    ]  # fmt: skip


def _slowdown(measures: pd.DataFrame) -> Panel:
    return Panel(
        title="The busiest device on unseen prompts",
        figure=placement_dots(
            measures.rename(index=placement_sentences.shown_name, level="placement"),
            measure="slowdown_bound",
            value_title=placement_sentences.MEASURES["slowdown_bound"][1],
            mode="light",
        ),
        reading=placement_sentences.of_measure(measures, "slowdown_bound"),
        table=lambda: measures.reset_index(),
        definitions=("placement_what_if", "linear_placement", "balanced_placement"),
        key="placement",
    )


def _placed(trace: RoutingTrace, *, seed: int) -> Section | None:
    if trace.level == "counts" or trace.unit == "prompt" or trace.dense_routing or not trace.n_tokens:
        return None
    possible = devices_that_work(trace)
    if not possible:
        return None
    n_devices = max((each for each in possible if each <= _USUAL_DEVICES), default=possible[0])
    panels: list[Panel] = []
    told: tuple[str, ...] = ()
    try:
        study = placement_what_if(trace, n_devices=n_devices, seed=seed)
    except SelectionError as error:
        told = (str(error),)
    else:
        measures = study.table
        bounds = expert_bound(trace, study.placements["balanced"], seed=seed).reset_index()
        advice = placement_sentences.of_advice(measures, n_devices=n_devices, n_nodes=1, batch_size=16)
        alone = placement_sentences.of_single_experts(bounds, n_devices=n_devices, names=trace.expert_names)
        told = (advice, *([alone] if alone else []))
        if measures.xs("judged", level="part")["slowdown_bound"].notna().any():
            panels.append(_slowdown(measures))
    drops = capacity_drops(trace, seed=seed)
    if drops["drop_rate"].notnull().any():
        panels.append(
            Panel(
                title="Assignments dropped, by capacity factor and layer",
                figure=capacity_curve(drops, mode="light"),
                reading=placement_sentences.of_drops(drops, factor=_FACTOR),
                table=lambda: (
                    drops[["drop_rate", "drop_rate_low", "drop_rate_high", "even_router", "lost_tokens"]]
                    .to_dataframe()
                    .reset_index()
                ),
                definitions=("capacity_drops",),
                key="capacity",
            )
        )
    return Section(title=f"Where should experts live, on {n_devices} devices?", sentences=told, panels=tuple(panels))
