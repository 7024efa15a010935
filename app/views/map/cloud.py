"""A map of up to a million tokens: what is drawn around, what is picked, and what each point says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.reading import prompt_tokens
from analysis.token_places import TokenPlaces
from app import cache, headings, slow_answers, state
from app.components.point_map import Lasso, PointMarks, point_map
from app.jobs import Job
from app.panel import mode, panel
from app.sentences import count, escaped, percent
from app.views.map import sentences as map_sentences
from app.views.map.cloud_colors import kinds_of, selected_points, with_rest
from app.views.map.controls import Asked, described_by
from app.views.map.hidden import hidden_groups, hide
from app.views.map.kept import cloud_job, token_cloud
from app.views.map.neighbors import nearest_to_focus
from app.views.map.picked import MOST_PICKED
from app.waiting import found_or_waiting
from figures.map_places import inside
from figures.pieces import shown_piece, snippet
from figures.scatter import PointColor, scatter
from routing import Focus, RoutingTrace, Selection

__all__ = ["LEAST", "render_cloud"]

LEAST = 16_000
"""Most tokens that are drawn one by one."""

_MOST_AT_ONCE = 400_000
_MOST_CORNERS = 32
_AROUND = 7


def render_cloud(
    trace: RoutingTrace, selection: Selection, asked: Asked, *, key: str = "map_cloud", alone: bool = True
) -> None:
    """Draw all tokens, or a large draw of them.

    Args:
        trace: the trace.
        selection: what the reader selected, as far as the trace holds it.
        asked: what the controls ask for.
        key: of the map.
        alone: whether this is the run that is looked at, and not one beside it: places in the address are its own.
    """
    cloud = _cloud(trace, asked)
    if cloud is None:
        return
    points = cloud.points
    if points.empty:
        st.caption("No token of this run was routed, so none has a place.")
        return
    corners = _corners(state.option("lasso")) if alone else None
    around = inside(points, polygons=[corners]) if corners else np.zeros(0, int)
    focused = _focused(trace, points, selection)
    near = nearest_to_focus(trace, selection, values=asked.question.values, quiet=True) if alone else None
    near_rows = np.zeros(0, int) if near is None else _rows_of(points, near["token"].to_numpy())
    layer = selection.layers[0] if selection.layers else trace.layers[-1]
    kinds = with_rest(
        kinds_of(trace, points, color=asked.color, layer=layer, mode=mode()), selected_points(trace, points, selection)
    )
    marks = PointMarks(
        picked=focused,
        near=near_rows,
        outline=tuple(zip(*corners, strict=True)) if corners else (),
    )

    def clicked(row: int) -> None:
        point = points.iloc[row]
        prompt = str(trace.prompts["prompt"].iloc[int(point["prompt"])])
        state.select(replace(selection, focus=Focus(prompt=prompt, position=int(point["position"]))))

    def lassoed(lasso: Lasso) -> None:
        if not alone:
            return
        step = -(-len(lasso.x) // _MOST_CORNERS)
        drawn = list(zip(lasso.x, lasso.y, strict=True))[::step]
        state.set_options(lasso=";".join(f"{x:.4g},{y:.4g}" for x, y in drawn))

    def cleared() -> None:
        state.select(replace(selection, focus=None), lasso=None)

    name = "" if alone else f"{escaped(run.name)}: " if (run := cache.run_of(trace)) else ""
    title = f"{name}{count(len(points), 'token')} {described_by(trace, asked.question)}"
    panel(
        title,
        _figure(trace, points),
        key=key,
        reading=map_sentences.of_cloud(cloud, n_tokens=trace.n_tokens),
        table=lambda: points.assign(
            prompt=trace.prompts["prompt"].to_numpy()[points["prompt"]], task=_tasks(trace, points)
        ),
        definitions=("project", "map_quality", "token_overlap", "token_sample"),
        drawn=lambda: point_map(
            points,
            kinds,
            marks,
            key=key,
            name=f"Map of {title}. Arrow keys move it, plus and minus zoom, 0 shows all of it, Enter picks the middle.",
            on_click=clicked,
            on_lasso=lassoed,
            on_clear=cleared,
            on_hide=partial(hide, kinds.title),
            hidden=hidden_groups(kinds.title),
            told=partial(_told, trace, points),
        ),
    )
    if corners:
        _taken_in(trace, selection, points, around)


def _cloud(trace: RoutingTrace, asked: Asked) -> TokenPlaces | None:
    question = asked.question
    options: dict[str, Any] = {
        "values": question.values,
        "most_items": question.most_items,
        "n_neighbors": question.n_neighbors,
        "seed": question.seed,
    }
    if slow_answers.cells_to_scan(trace) <= _MOST_AT_ONCE or trace.path is None:
        return cache.answer(trace, token_cloud, **options)

    def cloud_or_job() -> TokenPlaces | Job:
        job = cloud_job(trace, jobs=cache.jobs(), **options)
        return cache.answer(trace, token_cloud, **options) if job.state == "done" else job

    return found_or_waiting(cloud_or_job, "Tokens are being placed", failed="Placing the tokens ended with an error.")


def _corners(text: str | None) -> tuple[list[float], list[float]] | None:
    """The polygon that the URL names; None where it names none."""
    try:
        pairs = [tuple(map(float, each.split(","))) for each in (text or "").split(";") if each]
        x, y = zip(*pairs, strict=True)
    except ValueError:
        return None
    known = len(x) > 2 and bool(np.isfinite([*x, *y]).all())
    return (list(x), list(y)) if known else None


def _focused(trace: RoutingTrace, points: pd.DataFrame, selection: Selection) -> np.ndarray:
    if selection.focus is None or selection.focus.position is None:
        return np.zeros(0, int)
    row = np.flatnonzero(trace.prompts["prompt"].to_numpy() == selection.focus.prompt)
    if not len(row):
        return np.zeros(0, int)
    hit = (points["prompt"].to_numpy() == row[0]) & (points["position"].to_numpy() == selection.focus.position)
    return np.flatnonzero(hit)


def _rows_of(points: pd.DataFrame, tokens: np.ndarray) -> np.ndarray:
    held = points["token"].to_numpy()
    places = np.minimum(np.searchsorted(held, tokens), len(held) - 1)
    return places[held[places] == tokens]


def _tasks(trace: RoutingTrace, points: pd.DataFrame) -> pd.Categorical:
    return pd.Categorical.from_codes(trace.task_of_prompt[points["prompt"].to_numpy()], list(trace.tasks))


def _told(trace: RoutingTrace, points: pd.DataFrame, row: int) -> tuple[str, str]:
    """Name and text of one point."""
    point = points.iloc[row]
    prompt, position = trace.prompts.iloc[int(point["prompt"])], int(point["position"])
    pieces = cache.answer(trace, prompt_tokens, prompt=str(prompt["prompt"]))
    at = np.flatnonzero(pieces["position"].to_numpy() == position)
    words = pieces["piece"].astype(str).tolist()
    here = int(at[0]) if len(at) else 0
    name = shown_piece(words[here]).text.strip() or "∅" if words else "token"
    before, after = "".join(words[max(0, here - _AROUND) : here]), "".join(words[here + 1 : here + 1 + _AROUND])
    nll = f" · NLL {point['nll']:.1f}" if np.isfinite(point["nll"]) else ""
    about = f"{prompt['task']} ({prompt['task_type']}) · {prompt['prompt']} · position {position}{nll}"
    return name, f"{about}\n{snippet(f'{before}⟦{words[here] if words else name}⟧{after}', n_characters=160)}"


def _figure(trace: RoutingTrace, points: pd.DataFrame) -> object:
    """What a report keeps of the map: its density, and a sample to point at."""
    thin = points.iloc[:: max(1, -(-len(points) // 4000))]
    kinds = pd.Series(np.asarray(_tasks(trace, thin)), dtype=object)
    return scatter(
        thin.assign(name=kinds.to_numpy(), text="").reset_index(drop=True),
        color=PointColor(title="Task", values=kinds),
        mode=mode(),
        axis="Component",
    )


def _taken_in(trace: RoutingTrace, selection: Selection, points: pd.DataFrame, rows: np.ndarray) -> None:
    """What the lasso holds: its tasks, beside what as many tokens at random would hold."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        headings.part(f"{count(len(rows), 'token')} in the lasso", width="stretch")
        prompts = np.unique(points["prompt"].to_numpy()[rows])
        few = 0 < len(prompts) <= MOST_PICKED
        names = tuple(trace.prompts["prompt"].iloc[prompts].astype(str)) if few else ()
        st.button(
            f"Select {count(len(prompts), 'prompt')}",
            key="select_lasso",
            disabled=not few,
            help=f"A selection is part of the link and carries up to {MOST_PICKED} prompts.",
            on_click=lambda: state.select(replace(selection, prompts=names, focus=None)),
        )
        st.button("Let go", key="clear_lasso", on_click=lambda: state.set_options(lasso=None))
    if not len(rows):
        return
    table = lasso_tasks(trace, points, rows)
    first = table.iloc[0]
    st.markdown(
        f"Most of it is {escaped(str(first['task']))}: {percent(first['share'])} of these tokens, "
        f"{percent(first['share of all'])} of all on the map."
    )
    st.dataframe(
        table,
        hide_index=True,
        height=min(360, 38 + 35 * len(table)),
        column_config={
            "share": st.column_config.NumberColumn(format="percent"),
            "share of all": st.column_config.NumberColumn(format="percent"),
            "ratio": st.column_config.NumberColumn("times as much as on the map", format="%.2f"),
        },
    )


def lasso_tasks(trace: RoutingTrace, points: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Tasks of the tokens in a lasso, beside their share of the whole map.

    Returns:
        (task) · task, tokens, share, share of all, ratio · the most tokens first.
    """
    task_T = trace.task_of_prompt[points["prompt"].to_numpy()]
    all_ = np.bincount(task_T, minlength=len(trace.tasks))
    held = np.bincount(task_T[rows], minlength=len(trace.tasks))
    table = pd.DataFrame({"task": trace.tasks, "tokens": held, "share": held / max(1, held.sum())})
    table["share of all"] = all_ / max(1, all_.sum())
    table["ratio"] = table["share"] / table["share of all"].where(table["share of all"] > 0)
    return table[table["tokens"] > 0].sort_values("tokens", ascending=False, kind="stable").reset_index(drop=True)
