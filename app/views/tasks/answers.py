"""Which experts are used more where the answer is right, within tasks?"""

from __future__ import annotations

from app import slow_answers
from app.panel import empty, mode, panel
from app.views.tasks.part import is_large, layers_of, narrowed, picked_row
from app.views.tasks.part_sentences import of_answers
from app.views.tasks.questions import answer_links
from figures.comparisons import difference_dots
from routing import RoutingTrace, Selection

__all__ = ["draw_answers"]

_MOST_ROWS = 20


def draw_answers(trace: RoutingTrace, selection: Selection) -> None:
    """Draw the experts that prompts answered right use differently from prompts of the same task answered wrong."""
    if trace.level == "counts":
        empty("This run holds counts only, and answers belong to prompts.", "Record it at level `assignments`.")
        return
    found = slow_answers.tables(
        trace,
        answer_links,
        what="Right and wrong answers are compared",
        slow=is_large(trace),
        within=narrowed(selection),
    )
    if found is None:
        return
    about = found["about"].iloc[0]
    if not bool(about["has_scores"]):
        empty(
            "This run holds no scores of answers.", "Record tasks that have targets, with `routescope record --tasks`."
        )
        return
    layers = layers_of(trace, selection)
    table = found["experts"]
    shown = table[table["layer"].isin(layers)] if len(table) else table
    reading = of_answers(shown, n_tasks=int(about["n_tasks"]), names=trace.expert_names, picked=selection.experts)
    if shown.empty:
        empty(reading, "Select more tasks, or record more prompts.")
        return
    drawn = shown.head(_MOST_ROWS)
    panel(
        "Use where the answer is right against where it is wrong, within tasks",
        difference_dots(drawn, one="right answers", other="wrong answers", n_shown=_MOST_ROWS, mode=mode()),
        key="tasks_answers",
        reading=f"{reading} Filled is beyond chance; click a dot to see that expert.",
        table=lambda: shown,
        definitions=("correctness_link",),
        on_click=lambda click: picked_row(selection, drawn, click),
    )
