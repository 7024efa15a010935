"""The sections of a report on a whole run: the questions of the views, answered without a reader to click."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.correlation import feature_correlation
from analysis.findings import Finding, findings
from analysis.findings.control import LEVEL
from analysis.health import load_health
from analysis.load import expert_load, idle_experts, load_balance
from analysis.maps import routing_map, stored_map
from analysis.scores import task_scores
from analysis.specialization import specialization
from app import sentences
from app.prompts import prompt_lead
from app.questions import task_order
from app.report.parts import Panel, Section
from app.report.view_sections import view_sections
from app.trust import checks
from app.views.load.sentences import of_all_verdicts
from app.views.map import sentences as map_sentences
from app.views.map.kept import strongest_groups
from app.views.tasks import sentences as task_sentences
from figures.bars import feature_dots, score_dots
from figures.grid import log2_scale
from figures.heatmap import load_heatmap
from figures.lines import Track, layer_tracks
from figures.map_places import kind_labels
from figures.scatter import PointColor, scatter
from figures.task_heatmap import cells_of, task_expert_heatmap
from figures.theme import color_of_tasks
from routing import RoutingTrace, summary

__all__ = ["run_sections"]

_UNEVEN = 1.5
_TRACKS = (
    Track(column="max_over_mean", title="max ÷ mean load", threshold=_UNEVEN),
    Track(column="cv", title="coefficient of variation"),
    Track(column="entropy_normalized", title="normalized entropy (1 = even)", number_format=".3f"),
)


def run_sections(trace: RoutingTrace, *, before: RoutingTrace | None = None, seed: int = 0) -> list[Section]:
    """What stands out, whether it can be trusted, what was asked, who serves what, who works, what is alike.

    Then, where the run says it, who works together, what knock-outs broke, what changed, where experts should live.

    Args:
        trace: the run.
        before: an earlier run of the same prompts, to say what changed since.
        seed: of permutations and draws.
    """
    found = findings(trace, before=before, seed=seed)
    sections = [_findings(found), _trust(trace), _asked(trace)]
    if trace.n_layers and (trace.n_tokens or trace.level == "counts"):
        sections += [_tasks(trace, seed=seed), _load(trace, seed=seed), _map(trace, seed=seed)]
        sections += view_sections(trace, before=before, seed=seed)
    return sections


def _findings(found: list[Finding]) -> Section:
    if not found:
        return Section(
            title="What stands out",
            sentences=("Nothing beyond what chance gives: load is even, and no expert prefers a task.",),
        )
    columns = ["kind", "sentence", "effect", "effect_low", "effect_high", "unit", "strength", "p_value", "q_value"]
    table = pd.DataFrame([{name: getattr(each, name) for name in columns} for each in found], columns=columns)
    return Section(
        title="What stands out",
        sentences=tuple(
            f"**{number}.** {sentences.escaped(each.sentence)} ({sentences.escaped(each.uncertainty)})"
            for number, each in enumerate(found, start=1)
        ),
        panels=(
            Panel(
                title="All findings",
                figure=None,
                reading=f"Strongest first, at a false-discovery rate of {LEVEL:.0%} over all that was asked.",
                table=lambda: table,
                definitions=("findings",),
                key="findings",
            ),
        ),
    )


def _trust(trace: RoutingTrace) -> Section:
    signs = {"good": "✓", "doubt": "△", "unknown": "?"}
    told = tuple(f"{signs[check.verdict]} {check.sentence}" for check in checks(summary(trace)))
    return Section(title="Can it be trusted?", sentences=told)


def _asked(trace: RoutingTrace) -> Section:
    scores = task_scores(trace)
    first = trace.prompts.drop_duplicates("task").set_index("task")
    table = scores.reset_index().assign(
        example=[prompt_lead(str(first.loc[task, "text"]), n_characters=160) for task in scores.index]
    )
    known = scores.dropna(subset=["score"]).sort_values(["task_type", "score"], ascending=[True, False], kind="stable")
    figure = None
    if not known.empty:
        figure = score_dots(
            known, task_types=trace.task_types, value_title="mean score (accuracy, exact match or F1)", mode="light"
        )
    return Section(
        title="What was asked, and how well the model did",
        panels=(
            Panel(
                title="Score of each task",
                figure=figure,
                reading=sentences.of_scores(scores),
                table=lambda: table,
                definitions=("task_scores",),
                key="scores",
            ),
        ),
    )


def _tasks(trace: RoutingTrace, *, seed: int) -> Section:
    tested = trace.level != "counts"
    special = specialization(trace, n_permutations=1000 if tested else 0, seed=seed)
    names = list(task_order(trace, values="lift").names) if len(trace.tasks) > 1 else list(trace.tasks)
    special = special.sel(group=names)
    muted = ~special["significant"].astype(bool) & special["lift"].notnull() if tested else None
    details = ((special["lift"], np.exp2), special["rate"], special["q_value"])
    cells = cells_of(special["lift"], exists=trace.expert_exists, rows=names, muted=muted, details=details)
    counted = cells.values if cells.muted is None else cells.values[~cells.muted]
    heatmap = task_expert_heatmap(
        cells,
        scale=log2_scale([counted], title="use ÷ overall use", most=4.0, quantile=0.95),
        value_text="×%{customdata[0]:.2f} its overall use<br>%{customdata[1]:.1%} of its use<br>q %{customdata[2]:.3f}",
        task_types=trace.task_types,
        row_tree=None,
        blocks=True,
        selected=(),
        names=trace.expert_names,
        mode="light",
    )
    columns = ["rate", "lift", "z", "p_value", "q_value", "significant"]
    panels = [
        Panel(
            title="Use of each expert against its overall use, tasks × experts",
            figure=heatmap,
            reading=task_sentences.of_lift(special) if tested else "Of counts alone nothing can be tested.",
            table=lambda: special[columns].to_dataframe().reset_index().dropna(subset=["rate"]),
            definitions=("lift", "q_value", "specialization"),
            key="tasks",
        )
    ]
    by_type = feature_correlation(trace, seed=seed)
    if by_type.sizes["feature"]:
        panels.append(
            Panel(
                title="Single experts for a type of task",
                figure=feature_dots(by_type, mode="light"),
                reading=task_sentences.of_features(by_type),
                table=lambda: by_type[["r", "p_value", "p_any"]].to_dataframe().dropna(subset=["r"]).reset_index(),
                definitions=("feature_correlation",),
                key="types",
            )
        )
    return Section(title="Which experts serve which tasks?", panels=tuple(panels))


def _load(trace: RoutingTrace, *, seed: int) -> Section:
    load, balance, idle = expert_load(trace), load_balance(trace, seed=seed), idle_experts(trace)
    if balance["max_over_mean"].isna().all():
        return Section(title="Who does the work?", sentences=("No token was routed.",))
    healthy = pd.DataFrame(load_health(trace, seed=seed)).drop(columns="selection_query")
    panels = (
        Panel(
            title="Is the load healthy?",
            figure=None,
            reading=of_all_verdicts(healthy),
            table=lambda: healthy,
            definitions=("load_health",),
            key="load_health",
        ),
        Panel(
            title="Load of every expert against the even share of its layer",
            figure=load_heatmap(load, exists=trace.expert_exists, names=trace.expert_names, mode="light"),
            reading=sentences.of_balance(balance, threshold=_UNEVEN),
            table=lambda: load.to_dataframe(name="load").dropna().reset_index(),
            definitions=("expert_load", "max_over_mean"),
            key="load",
        ),
        Panel(
            title="How even each layer is",
            figure=layer_tracks(balance, _TRACKS, other=None, names=("this run", ""), mode="light"),
            reading="Bars are 95 % intervals from drawing prompts again; entropy 1 means an even layer.",
            table=lambda: balance.reset_index(),
            definitions=("load_balance", *(track.column for track in _TRACKS)),
            key="balance",
        ),
        Panel(
            title="Idle experts",
            figure=None,
            reading=sentences.of_idle(idle, n_experts=int(trace.expert_exists.sum())),
            table=lambda: idle,
            definitions=("idle_experts",),
            key="idle",
        ),
    )
    return Section(title="Who does the work, and how evenly?", panels=panels)


def _map(trace: RoutingTrace, *, seed: int) -> Section:
    plain = routing_map(trace, of="expert", method="pca", seed=seed)
    # A UMAP takes a minute to make; the one that the app made before is as good.
    kept = stored_map(trace, of="expert", method="umap", seed=seed)
    shown = plain if kept is None else kept
    if shown.points.empty:
        return Section(title="What is routed alike?", sentences=("No expert can be placed.",))
    points = _described(trace, shown.points)
    served = points["serves"].astype(object).where(points["serves"].notna(), None).reset_index(drop=True)
    color = PointColor(title="Serves most", values=served, colors=color_of_tasks(trace), missing="none beyond chance")
    axis, unit = ("UMAP", "no unit") if shown.method == "umap" else ("Component", "log₂ ratio")
    figure = scatter(points, color=color, mode="light", axis=axis, unit=unit, labels=kind_labels(points, color.values))
    believed = map_sentences.of_map(shown, noun="expert", beside=None if kept is None else plain.quality)
    panel = Panel(
        title=f"{sentences.count(len(points), 'expert')} by the lift of their tasks",
        figure=figure,
        reading=f"{believed} {sentences.escaped(shown.note)}".strip(),
        table=lambda: points.drop(columns=["text"]),
        definitions=("project", "map_quality"),
        key="map",
    )
    return Section(title="What is routed alike?", panels=(panel,))


def _described(trace: RoutingTrace, points: pd.DataFrame) -> pd.DataFrame:
    """The points with what the app writes beside them, computed here rather than through its cache."""
    if trace.level == "counts":
        return points.assign(name=points["item"], text="", serves=None, lift=np.nan)
    strongest = strongest_groups(trace, over="task")
    best = strongest.reindex(pd.MultiIndex.from_arrays([points["layer"], points["expert"]])).reset_index(drop=True)
    texts = ["serves no task beyond chance" if group is None or pd.isna(group) else f"serves {group} most"
             for group in best["group"]]  # fmt: skip
    named = points.assign(name=points["item"], text=texts)
    return named.assign(serves=best["group"].to_numpy(), lift=best["lift"].to_numpy())
