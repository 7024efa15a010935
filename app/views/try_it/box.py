"""What is read, and by which model."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import cache, choices, state
from app.panel import empty
from app.tries.asked import TryRequest
from app.tries.models import Reader, reader_of, readers
from app.views.try_it.sentences import of_no_model
from routing import RoutingTrace, Selection

__all__ = ["asked_for", "is_warmed"]

_MOST_CHARACTERS = 20_000
# A model up to this size is loaded while its first text is being typed. A larger one takes what others may need of the
# machine, so it is loaded when there is a text, and not for whoever only looks around.
_WARMED_BYTES = 1_000_000_000
_ANOTHER = "another folder …"
_PLACEHOLDER = "Type or paste a text, in any language."
_HELP = (
    "The text is read on this machine, by a process that the app starts; it goes nowhere else. The link to this page "
    "keeps the model, layer, token and expert, but not the text: links are stored and sent in places where a text "
    "may not belong. Nothing of it is kept after your session, unless you keep it as a recording."
)


@dataclass
class _Box:
    """What this session typed last, and the prompt that it came from, if it was one of the run's."""

    text: str = ""
    focus: str | None = None
    n_filled: int = 0


def asked_for(trace: RoutingTrace, selection: Selection) -> tuple[Reader, TryRequest | None] | None:
    """Draw the box.

    Returns:
        the model, and what it is asked, None where nothing was typed · None where there is no model.
    """
    reader = _pick_reader(trace)
    if reader is None:
        return None
    if is_warmed(reader):
        cache.tries().prepare(reader.folder)
    task = None
    if reader.tasks:
        with st.container(width=320):
            task = choices.choose(
                "Task", reader.tasks, name="as_task", kind="select",
                help="This model is told the task of each text; the route depends on it.",
            )  # fmt: skip
    text = _typed(trace, selection)
    return reader, TryRequest(model=reader.folder, text=text, task=task) if text else None


def is_warmed(reader: Reader) -> bool:
    """Whether a model is loaded before a text is typed."""
    return 0 < reader.weight_bytes <= _WARMED_BYTES


def _pick_reader(trace: RoutingTrace) -> Reader | None:
    known = {each.name: each for each in readers(trace)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        with st.container(width=320):
            name = choices.choose(
                "Read by", [*known, _ANOTHER], name="reader", kind="select",
                help="The model of this run, where its weights are at hand, and the others that the app knows.",
            )  # fmt: skip
        if name in known:
            return known[name]
        with st.container(width=460):
            folder = choices.search("Model folder on this machine", name="reader_folder", placeholder="/path/to/model")
    if not folder:
        empty(
            "" if known else "The weights of this run are not where the app looks for models.",
            "Name a folder with config.json, safetensors files and a tokenizer.",
        )
        return None
    reader = reader_of(folder)
    if not reader.weight_bytes:
        st.error(of_no_model(folder), icon=":material/error:")
        return None
    return reader


def _typed(trace: RoutingTrace, selection: Selection) -> str:
    box = state.remembered("try_box", "", _Box)
    focus = selection.focus.prompt if selection.focus is not None else None
    if focus != box.focus:
        box.focus = focus
        if text := _text_of(trace, focus):
            box.text, box.n_filled = text, box.n_filled + 1
    with st.form("try_form", border=False):
        # Another key for another text: a widget keeps what it shows.
        text = st.text_area(
            "Text",
            value=box.text,
            key=f"try_text_{box.n_filled}",
            height=104,
            max_chars=_MOST_CHARACTERS,
            placeholder=_PLACEHOLDER,
            help=_HELP,
        )
        st.form_submit_button("Read it", type="primary", icon=":material/play_arrow:")
    box.text = text or ""
    return box.text


def _text_of(trace: RoutingTrace, prompt: str | None) -> str:
    if prompt is None:
        return ""
    found = trace.prompts.loc[trace.prompts["prompt"] == prompt, "text"]
    return str(found.iloc[0]) if len(found) and isinstance(found.iloc[0], str) else ""
