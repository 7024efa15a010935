"""What a reader may ask of a map, and what was asked."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import cache, choices
from app.runs import Run
from app.views.map import adapters as map_adapters
from app.views.map import tokens as map_tokens
from app.views.map.cloud_colors import CLOUD_COLORS, prompt_columns
from app.views.map.kept import Mapped, MapQuestion
from routing import RoutingTrace

__all__ = ["METHODS", "NO_RUN", "Asked", "controls", "described_by", "other_runs", "values_of"]

METHODS = {"umap": "UMAP", "pca": "PCA", "both": "Side by side"}
_COLORS: dict[Mapped, tuple[str, ...]] = {
    "expert": ("task", "type", "cluster", "layer"),
    "prompt": ("task", "type", "cluster", "score"),
    "token": map_tokens.COLORS,
    "adapter": map_adapters.COLORS,
}
_SIGNATURES = {"lift": "lift", "load": "load", "rate": "activation rate"}
_ROUTES = {"weight": "weighted overlap of their routes", "selected": "overlap of selected experts"}
_NEIGHBORS = ("5", "10", "15", "30", "50")
_DISTANCES = ("0.0", "0.1", "0.3", "0.5")
_SEEDS = ("0", "1", "2", "3", "4")
_SIZES = ("1000", "4000", "16000")
_CLOUDS = ("100000", "1000000")
_MOST_BESIDE = 6
NO_RUN = "no other run"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the controls ask for.

    Attributes:
        color: what the color of a point says.
        method: "umap", "pca" or "both".
        question: which map.
    """

    color: str
    method: str
    question: MapQuestion


def controls(trace: RoutingTrace) -> Asked:
    """Draw the widgets of the Map view."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", key="map_controls"):
        mapped: list[Mapped] = ["expert"] if trace.experts is None else ["expert", "prompt"]
        # Where the router decides once a prompt, its rows are the prompts.
        if trace.experts is not None and trace.unit == "token":
            mapped.append("token")
        if trace.adapters is not None and len(trace.adapters):
            mapped.append("adapter")
        with st.container(width="content"):
            of = choices.choose("Map of", mapped, name="of", shown=lambda each: f"{each.capitalize()}s")
        # What an expert serves beyond chance takes prompts to tell.
        colors = _COLORS[of] if trace.level != "counts" else ("layer", "cluster")
        large = of == "token" and choices.chosen("size", _SIZES + _CLOUDS, default="4000") in _CLOUDS
        columns = prompt_columns(trace) if of in ("prompt", "token") else {}
        offered = (*(CLOUD_COLORS if large else colors), *columns)
        with st.container(width="content" if len(offered) <= _MOST_BESIDE else 170):
            color = choices.choose(
                "Color by",
                offered,
                name="color",
                shown=lambda each: columns[each].capitalize() if each in columns else _shown(each),
                kind="segmented" if len(offered) <= _MOST_BESIDE else "select",
            )
        method = "pca"
        if not large:
            with st.container(width="content"):
                method = choices.choose("Layout", list(METHODS), name="layout", shown=METHODS.__getitem__)
        if others := other_runs(trace):
            with st.container(width=140):
                choices.choose("Beside it", [NO_RUN, *others], name="base", kind="select")
        with st.popover("Parameters", icon=":material/tune:", key="map_parameters"):
            values = choices.choose(
                "Described by",
                list(values_of(trace, of)),
                name="values",
                shown=values_of(trace, of).__getitem__,
                help="What nearness is measured by.",
            )
            near = choices.choose(
                "Neighbors",
                _NEIGHBORS,
                name="near",
                default="15",
                help="How many neighbors UMAP tries to keep, and how many the quality is judged by.",
            )
            apart = choices.choose(
                "Least distance", _DISTANCES, name="apart", default="0.1", help="How close UMAP may put points."
            )
            seed = choices.choose("Seed", _SEEDS, name="seed", help="Another seed, another map; what stays is real.")
            size = (
                choices.choose(
                    "At most",
                    _SIZES + _CLOUDS if of == "token" else _SIZES,
                    name="size",
                    default="4000",
                    shown=lambda each: f"{int(each):,} {of}s",
                    help="Of more, as many of each task and phase (adapters: of each site) are drawn by the seed. "
                    "Above 16,000, tokens are placed on principal components.",
                )
                if of in ("token", "adapter")
                else "4000"
            )
    question = MapQuestion(
        of=of,
        values=values,
        n_neighbors=int(near),
        min_dist=float(apart),
        seed=int(seed),
        most_items=int(size),
    )
    return Asked(color=color, method=method, question=question)


def other_runs(trace: RoutingTrace) -> dict[str, Run]:
    """The runs that can be laid beside this one, by name."""
    return {run.name: run for run in cache.runs() if run.path != str(trace.path)}


def values_of(trace: RoutingTrace, of: Mapped) -> dict[str, str]:
    """What points of this kind may be described by, and how the page calls it."""
    if of == "token":
        return _ROUTES
    if of == "adapter":
        conditioning = () if trace.adapters is None else trace.adapters.conditioning_rows
        return {"parameters": "parameters"} | {name: name.replace("_", " ") for name in conditioning}
    return _SIGNATURES


def described_by(trace: RoutingTrace, question: MapQuestion) -> str:
    """What the points of a map are laid out by, to follow their number."""
    words = values_of(trace, question.of)[question.values]
    match question.of:
        case "token":
            return f"by the {words}"
        case "adapter":
            return f"by their {words}"
        case "expert":
            return f"by the {words} of their tasks"
    return f"by the {words} of their experts"


def _shown(color: str) -> str:
    return "NLL" if color == "nll" else color.capitalize()
