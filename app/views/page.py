"""What the shell needs to know of a view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from routing import RoutingTrace, Selection

__all__ = ["View", "what_is_missing"]

Render = Callable[[RoutingTrace, Selection], None]

_MISSING = {
    "logits": (
        "logits",
        "This run was recorded without logits (level {level}). Record it with `--level full` to open this view.",
    ),
    "assignments": (
        "experts",
        "This run holds counts per task only, not what happened to each token (level {level}). "
        "Record it with `--level assignments` or `--level full` to open this view.",
    ),
}

_NO_TOKENS = (
    "This run holds no token: none is recorded yet, or the run was read off weights alone. "
    "What weights say of adapters and prototypes is on the Unselected and Adapters views."
)


@dataclass(frozen=True, kw_only=True)
class View:
    """One question, and the function that answers it on the page.

    Attributes:
        title: in the navigation.
        question: beneath the title, as a user would ask it.
        url: the view's path.
        icon: a Material symbol, as Streamlit names them; they ship with it.
        load: gives the view's render function; called when the view is opened, so that others stay
            unimported.
        needs: what a trace must hold, of "assignments" and "logits".
        reads_weights: whether it has something to show of adapters in a run without a token.
        group: heading that it stands under in the navigation; none where it is empty.
    """

    title: str
    question: str
    url: str
    icon: str
    load: Callable[[], Render]
    needs: tuple[str, ...] = ()
    reads_weights: bool = False
    group: str = ""


def what_is_missing(view: View, trace: RoutingTrace) -> str | None:
    """A sentence on the first thing that the view needs and the trace lacks, None where it has all."""
    if view.needs and trace.n_tokens == 0 and trace.level != "counts":
        return None if view.reads_weights and trace.adapters is not None else _NO_TOKENS
    for need in view.needs:
        part, sentence = _MISSING[need]
        if getattr(trace, part) is None:
            return sentence.format(level=trace.level)
    return None
