"""What a number is, on the page beside it: the section of docs/metrics.md, and what went into this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import streamlit as st
from streamlit.column_config import Column

from app import cache
from app.definitions import Definition, column_meaning, definition_of, resolved
from app.sentences import count, escaped
from routing import RoutingTrace, Selection, TraceSummary, summary

__all__ = ["column_hints", "explanation", "hint", "looking_at"]

# Which parts of a section are shown, in which order, and what they are called on the page.
_LABELS = {
    "Definition": "What it is",
    "Unit": "Unit",
    "Null": "Chance",
    "Interval": "Interval",
    "Reading": "How to read it",
    "How it misleads": "How it misleads",
    "Source": "Source",
}
_LOOKED_AT: ContextVar[tuple[RoutingTrace, Selection] | None] = ContextVar("looked_at", default=None)


@contextmanager
def looking_at(trace: RoutingTrace, selection: Selection) -> Iterator[None]:
    """Let explanations that are drawn meanwhile say how much they speak of."""
    token = _LOOKED_AT.set((trace, selection))
    try:
        yield
    finally:
        _LOOKED_AT.reset(token)


def explanation(names: Sequence[str], *, made_of: Mapping[str, str] | None = None) -> None:
    """Draw the sections of these names, one at a time where they are several.

    Args:
        names: headings of docs/metrics.md.
        made_of: what went into the numbers at hand: symbol or name → value, as Markdown.
    """
    sections = [section for name in names if (section := definition_of(name)) is not None]
    if len(sections) == 1:
        _draw(sections[0])
    else:
        tabs = st.tabs([_title(section) for section in sections])
        for tab, section in zip(tabs, sections, strict=True):
            with tab:
                _draw(section)
    if ground := _ground():
        st.caption(ground)
    if made_of:
        st.markdown("\n".join(f"- {name}: **{value}**" for name, value in made_of.items()))


def hint(column: str, *, within: Sequence[str]) -> str | None:
    """What a single number is, for the question mark beside it; None where docs/metrics.md does not tell.

    Args:
        column: column of a table, or heading.
        within: headings that it belongs to.
    """
    told = column_meaning(column, within=within)
    # A symbol such as p_e stays as it is.
    return told if told is None or not told[:2].isalpha() else told[:1].upper() + told[1:]


def column_hints(columns: Sequence[str], names: Sequence[str]) -> dict[str, Column]:
    """What the heads of a table say when pointed at.

    Args:
        columns: of the table.
        names: headings of docs/metrics.md that it belongs to.
    """
    told = {column: hint(column, within=names) for column in columns}
    return {column: Column(help=text) for column, text in told.items() if text is not None}


def _title(section: Definition) -> str:
    return section.name.replace("_", " ")


def _draw(section: Definition) -> None:
    question = section.parts.get("Question")
    st.markdown(f"**{_title(section)}**" + (f" · {question}" if question else ""))
    rows = [f"**{_label(label)}** {resolved(section, label)}" for label in section.parts if label != "Question"]
    st.markdown("\n\n".join(rows))


def _label(label: str) -> str:
    return f"{_LABELS.get(label, label)}:"


def _ground() -> str:
    looked = _LOOKED_AT.get()
    if looked is None:
        return ""
    trace, selection = looked
    found = cache.answer(trace, summary, within=selection)
    return f"What is looked at here: {_amounts(found)}."


def _amounts(found: TraceSummary) -> str:
    experts = sorted({facts.n_experts for facts in found.layers})
    top_k = sorted({facts.top_k for facts in found.layers})
    amounts = [
        f"{count(found.n_tokens, escaped(found.unit))} (T)",
        count(found.n_prompts, "prompt"),
        count(len(found.tasks), "task"),
        count(found.n_layers, "layer"),
    ]
    if len(experts) == 1 and len(top_k) == 1:
        amounts += [f"{experts[0]:,} experts a layer (E)", f"{top_k[0]:,} of them selected at a time (k)"]
    return ", ".join(amounts)
