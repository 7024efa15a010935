"""Groups: what sets two groups of prompts apart?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from analysis.differential import differential
from app import cache, choices, groups, headings, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import and_list, count, escaped, percent, times
from app.views.expert.companions import expert_lines
from figures.differential import differential_heatmap
from routing import RoutingTrace, Selection, SelectionError, expert_name

__all__ = ["group_differences", "render"]

_WITHIN = ("any task", "the same task")
_SHOWN = 8
_LOST = ":material/link_off:"
_NOTHING = {"A": "nothing yet", "B": "all other prompts"}
_SELECTED = "what was selected"

Query = tuple[tuple[str, str], ...]


def render(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the view."""
    made = groups.made(trace)
    for name in groups.lost(trace):
        st.warning(f"This link has a group {name} of tasks or prompts that this run does not hold.", icon=_LOST)
    _pickers(trace, made)
    if not made:
        empty(
            "No group is made yet.",
            "Choose one here, or select tasks or prompts in any view and make them a group with “A | B” at the top.",
        )
        return
    one, other = made.get("A") or made["B"], made.get("B") if "A" in made else None
    within = choices.chosen("compared", _WITHIN)
    try:
        table = cache.answer(
            trace,
            group_differences,
            one=_query(one),
            other=None if other is None else _query(other),
            within_task=within == _WITHIN[1],
        )
    except SelectionError as error:
        st.warning(escaped(str(error)), icon=":material/rule:")
        _controls()
        return
    layers = list(selection.layers or trace.layers)
    shown = table[table["layer"].isin(layers)]

    def clicked(click: Click) -> None:
        expert = (layers[round(click.y)], round(click.x))
        state.select(replace(selection, experts=() if selection.experts == (expert,) else (expert,)))

    names = ("A", "B" if other is not None else "the rest")
    panel(
        f"Use of each expert by {names[0]} against {names[1]}",
        differential_heatmap(
            shown,
            exists=trace.expert_exists.sel(layer=layers),
            names=names,
            selected=selection.experts,
            mode=mode(),
        ),
        key="groups_heatmap",
        reading=_reading(trace, shown, names=names) + " Click a cell to pick that expert.",
        table=lambda: shown,
        definitions=("differential",),
        on_click=clicked,
        controls=_controls,
    )
    _lists(trace, shown, names=names)


def _pickers(trace: RoutingTrace, made: dict[str, Selection]) -> None:
    """Let each group be a task, or all tasks of a type; what was selected elsewhere stays until another is chosen."""
    kinds: dict[str, list[str]] = {}
    for task, kind in trace.task_types.items():
        kinds.setdefault(kind, []).append(task)
    known = {f"{kind}: {len(tasks)} tasks": tuple(tasks) for kind, tasks in kinds.items() if len(tasks) > 1}
    known |= {task: (task,) for task in trace.tasks}
    offered = {label: Selection(tasks=tasks) for label, tasks in known.items()}
    with st.container(horizontal=True, gap="medium"):
        for name in groups.NAMES:
            now = made.get(name)
            nothing = _NOTHING[name]
            chosen = next((label for label, group in offered.items() if group == now), _SELECTED if now else nothing)

            def picked(label: str, name: str = name) -> None:
                if label in offered:
                    groups.make(name, offered[label])
                else:
                    groups.forget(name)

            with st.container(width=320):
                choices.choose_one(
                    f"Group {name}",
                    [nothing, *([_SELECTED] if chosen == _SELECTED else []), *offered],
                    key=f"pick_group_{name}",
                    chosen=chosen,
                    on_change=picked,
                )


def group_differences(
    trace: RoutingTrace, *, one: Query, other: Query | None, within_task: bool = False
) -> pd.DataFrame:
    """As `differential`, with the groups as queries so that the cache can tell them apart."""
    groups_of = [None if query is None else Selection.from_query(dict(query), trace) for query in (one, other)]
    assert groups_of[0] is not None
    return differential(trace, groups_of[0], other=groups_of[1], within="task" if within_task else None)


def _query(group: Selection) -> Query:
    return tuple(sorted(group.to_query().items()))


def _controls() -> None:
    choices.choose(
        "Prompts are compared with those of",
        _WITHIN,
        name="compared",
        help="Within the same task, another mix of tasks is no difference.",
    )


def _reading(trace: RoutingTrace, table: pd.DataFrame, *, names: tuple[str, str]) -> str:
    if table.empty:
        return "Nothing can be compared: no layer routed tokens of both groups."
    n_one, n_other = int(table["n_one"].max()), int(table["n_other"].max())
    called = table[table["significant"]]
    text = f"{count(len(called), 'expert')} of {len(table):,} " if len(called) else f"None of {len(table):,} experts "
    text += f"{'is' if len(called) < 2 else 'are'} used differently by {count(n_one, 'prompt')} ({names[0]}) and "
    text += f"{count(n_other, 'prompt')} ({names[1]}) beyond chance."
    if len(called):
        best = called.iloc[0]
        name = escaped(expert_name(str(best["layer"]), int(best["expert"]), names=trace.expert_names))
        text += (
            f" Most of all **{name}**: {percent(float(best['rate_one']))} of {names[0]}'s tokens choose it, "
            f"{percent(float(best['rate_other']))} of {names[1]}'s."
        )
        layers = called["layer"].value_counts()
        text += f" They stand mostly in {and_list([escaped(str(layer)) for layer in layers.index[:3]])}."
    return text


def _lists(trace: RoutingTrace, table: pd.DataFrame, *, names: tuple[str, str]) -> None:
    called = table[table["significant"]]
    for column, name, rows in zip(
        st.columns(2, gap="large"),
        names,
        (called[called["difference"] > 0], called[called["difference"] < 0]),
        strict=True,
    ):
        with column:
            headings.part(f"Used more by {name}")
            if rows.empty:
                st.markdown("No expert, beyond chance.")
            expert_lines(trace, [_line(row, more_first=name == names[0]) for row in rows.head(_SHOWN).itertuples()])


def _line(row: Any, *, more_first: bool) -> tuple[str, int, str, bool]:
    more, less = (row.rate_one, row.rate_other) if more_first else (row.rate_other, row.rate_one)
    factor = times(more / less) if less else "only here"
    return str(row.layer), int(row.expert), f"{percent(more)} against {percent(less)} · {factor}", True
