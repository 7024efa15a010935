"""The panel of one expert: what it serves, by task, token and prompt."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from analysis.experts import ExpertProfile, expert_profile
from app import cache, headings, sentences
from app.links import expert_link, view_link
from app.panel import mode, panel
from figures.bars import task_bars
from figures.pieces import shown_piece, snippet
from routing import Focus, RoutingTrace, Selection, expert_name

__all__ = ["expert_detail", "task_panel", "token_table"]

_SHOWN_TOKENS = 12
_SHOWN_PROMPTS = 6


def expert_detail(trace: RoutingTrace, selection: Selection, *, expert: tuple[str, int]) -> None:
    """Draw what one expert serves, among the selected tasks and prompts."""
    layer, number = expert
    within = replace(selection, experts=(), layers=(), focus=None)
    profile = cache.answer(trace, expert_profile, within=within, layer=layer, expert=number)
    left, right = st.columns([3, 2], gap="large")
    with left:
        task_panel(trace, profile, layer=layer, expert=number, key="expert_tasks")
        expert_link(trace, layer, number)
    with right:
        token_table(profile)
    if profile.prompts is not None:
        _prompts(profile.prompts, selection)


def task_panel(
    trace: RoutingTrace, profile: ExpertProfile, *, layer: str, expert: int, key: str, sentence: str = ""
) -> None:
    """Draw what an expert serves, task by task.

    Args:
        trace: the trace.
        profile: of the expert.
        layer: label of its layer.
        expert: its number.
        key: of the panel.
        sentence: what else is to be said below it, in Markdown.
    """
    table = profile.by_task.sort_values("rate", ascending=False, kind="stable")
    renamed = table.rename(columns={"rate": "value", "rate_low": "value_low", "rate_high": "value_high"})
    panel(
        f"What {sentences.escaped(expert_name(layer, expert, names=trace.expert_names))} serves",
        task_bars(
            renamed,
            value_title="share of a task's tokens that choose it",
            task_types=trace.task_types,
            reference=profile.overall_rate,
            reference_name="all tokens",
            mode=mode(),
        ),
        key=key,
        reading=f"{sentences.of_profile(profile, layer=layer, expert=expert)} {sentence}".strip(),
        table=lambda: table.reset_index(),
        definitions=("expert_profile",),
    )


def token_table(profile: ExpertProfile) -> None:
    """Draw the tokens that choose an expert most reliably."""
    headings.part("Tokens that choose it most reliably")
    if profile.tokens is None:
        st.markdown("This run holds counts only; record it at level `assignments` to see tokens.")
        return
    if profile.tokens.empty:
        st.markdown("No token chose it.")
        return
    shown = profile.tokens.head(_SHOWN_TOKENS)
    st.dataframe(
        pd.DataFrame(
            {
                "token": [shown_piece(piece).text if piece else f"id {token}" for piece, token in _pieces(shown)],
                "share": shown["rate"],
                "seen": shown["n_seen"],
            }
        ),
        hide_index=True,
        height="content",
        column_config={
            "share": st.column_config.ProgressColumn(
                "choose it", format="percent", min_value=0.0, max_value=1.0, help="Share of the token's occurrences."
            ),
            "seen": st.column_config.NumberColumn("seen", help="How often the token occurs.", width="small"),
        },
    )
    st.caption("Ranked by the lower end of Wilson's 95 % interval: a token seen once says little.")


def _pieces(tokens: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(tokens["piece"], tokens["token_id"], strict=True))


def _prompts(prompts: pd.DataFrame, selection: Selection) -> None:
    headings.part("Prompts that choose it most")
    for row in prompts.head(_SHOWN_PROMPTS).itertuples():
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.markdown(f"**{sentences.percent(row.rate)}**", width=64)
            view_link(
                "tokens",
                sentences.escaped(snippet(f"{row.task} · {row.text}", n_characters=130)),
                selection=replace(selection, focus=Focus(prompt=row.prompt)),
            )
