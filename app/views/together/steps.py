"""Which expert follows which in the next layer, and whether it can be guessed."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from app import choices, headings, slow_answers, state
from app.components.plot_bridge import Click
from app.panel import empty, mode, panel
from app.sentences import escaped
from app.views.together import sentences as told
from app.views.together.pairs import SLOW_PAIRS
from app.views.together.tables import Tables, step_tables, table_of
from figures.paths import guess_dots
from figures.structure import transition_matrix
from routing import RoutingTrace, Selection

__all__ = ["steps_part"]

_ORDERS = {"likes": "followers along the diagonal", "number": "by number"}
_GUESSES = ("1", "2", "4")


def steps_part(trace: RoutingTrace, selection: Selection, within: Selection) -> None:
    """Draw what follows what.

    Args:
        trace: the trace.
        selection: what is looked at.
        within: the tasks and prompts that are counted.
    """
    found = slow_answers.tables(
        trace,
        step_tables,
        what="Transitions are being counted",
        slow=slow_answers.cells_to_scan(trace) > SLOW_PAIRS,
        within=within,
    )
    if found is None:
        return
    steps = found["steps"]
    if selection.layers:
        # A selected layer has a step that leads to it and one that leads on.
        steps = steps[steps["layer"].isin(selection.layers) | steps["next_layer"].isin(selection.layers)]
    if steps.empty:
        empty("No two layers of this run follow each other in one stack.", "There is no step to look at.")
        return
    left, right = st.columns([3, 2], gap="large")
    with left:
        _matrix(trace, selection, found, steps)
    with right:
        _guesses(found["guesses"], steps)


def _matrix(trace: RoutingTrace, selection: Selection, found: Tables, steps: pd.DataFrame) -> None:
    names = steps["step"].astype(str).tolist()
    default = _default_step(selection, steps)
    step = choices.chosen("step", names, default=default)
    about = steps.set_index("step").loc[step]
    layer, next_layer = str(about["layer"]), str(about["next_layer"])
    order = choices.chosen("order", tuple(_ORDERS))
    rows, columns = (_drawn(found[name], step=step, order=order) for name in ("experts", "next_experts"))
    pairs = found["pairs"][found["pairs"]["step"] == step]

    def clicked(click: Click) -> None:
        pair = (layer, rows[round(click.y)]), (next_layer, columns[round(click.x)])
        same = set(selection.experts) == set(pair)
        state.select(replace(selection, experts=() if same else pair), step=step)

    def controls() -> None:
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            if len(names) > 1:
                with st.container(width=300):
                    choices.choose("Step", names, name="step", default=default, kind="slider")
            choices.choose("Order of experts", tuple(_ORDERS), name="order", shown=_ORDERS.__getitem__)

    known = trace.expert_names
    picked = [[expert for label, expert in selection.experts if label == each] for each in (layer, next_layer)]
    panel(
        f"From {escaped(layer)} to {escaped(next_layer)}: which first expert follows which",
        transition_matrix(
            table_of(pairs, "step", "expert", "next_expert").assign_coords(
                layer=("step", [layer]), next_layer=("step", [next_layer])
            ),
            step=step,
            orders=(rows, columns),
            names=(known[layer], known[next_layer]) if layer in known and next_layer in known else None,
            framed=[(one, other) for one in picked[0] for other in picked[1]],
            mode=mode(),
        ),
        key="together_steps",
        reading=told.of_steps(pairs, layer=layer, next_layer=next_layer, names=known, unit=trace.unit)
        + " Click a cell to select both experts.",
        table=lambda: pairs,
        definitions=("transitions", "q_value"),
        on_click=clicked,
        controls=controls,
    )


def _guesses(guesses: pd.DataFrame, steps: pd.DataFrame) -> None:
    if guesses.empty:
        headings.part("Guessing ahead")
        st.markdown(told.of_guesses(pd.DataFrame({"accuracy": []}), guesses=1))
        return
    number = choices.chosen("guesses", _GUESSES)
    rows = guesses[(guesses["guesses"] == int(number)) & guesses["step"].isin(steps["step"])]
    panel(
        "Guessing ahead",
        guess_dots(rows, mode=mode()),
        key="together_guesses",
        reading=told.of_guesses(rows, guesses=int(number)),
        table=lambda: guesses,
        definitions=("next_layer_predictability",),
        controls=lambda: choices.choose(
            "Guesses",
            _GUESSES,
            name="guesses",
            help="How many experts may be named: as many as would be fetched ahead of time.",
        ),
    )


def _default_step(selection: Selection, steps: pd.DataFrame) -> str:
    """That between the selected experts, else the one in which most pairs hold up."""
    layers = [layer for layer, _ in selection.experts]
    both = steps[steps["layer"].isin(layers) & steps["next_layer"].isin(layers)]
    one = steps[steps["layer"].isin(layers)]
    for chosen in (both, one):
        if len(chosen):
            return str(chosen["step"].iloc[0])
    return str(steps.loc[steps["n_called"].idxmax(), "step"])


def _drawn(experts: pd.DataFrame, *, step: str, order: str) -> list[int]:
    own = experts[experts["step"] == step]
    by = "place" if order == "likes" else "expert"
    return [int(each) for each in own.sort_values(by)["expert"]]
