"""What the model would write after a token."""

from __future__ import annotations

import pandas as pd

from app.panel import mode, panel
from app.views.tokens.sentences import token_name
from app.views.try_it.sentences import next_reading, shift_reading
from figures.next_tokens import next_token_bars

__all__ = ["next_panel"]

_N_SHOWN = 10


def next_panel(
    likeliest: pd.DataFrame, *, tokens: pd.DataFrame | None, row: int, divergence: float | None = None
) -> None:
    """Draw the likeliest next tokens, and what became of them where something was changed.

    Args:
        likeliest: as `Found` has it.
        tokens: of the text; None where the model writes in another stack, or for the text as a whole.
        row: of the token after which it is asked.
        divergence: of the two distributions, in nats, where there are two.
    """
    here = likeliest[likeliest["position"] == row]
    columns = ["before", "after"] if "after" in here else ["probability"]
    order = here[columns].max(axis=1).sort_values(ascending=False, kind="stable").index
    shown = here.loc[order].head(_N_SHOWN)
    name, written = None, None
    if tokens is not None:
        name = token_name(tokens, row)
        written = None if row + 1 >= len(tokens) else int(tokens["token_id"].iloc[row + 1])
    if divergence is None:
        reading = next_reading(shown, tokens=tokens, row=row)
    else:
        reading = shift_reading(shown, written=written, divergence=divergence)
    panel(
        "What the model would write first" if name is None else f"What the model would write after {name}",
        next_token_bars(shown, written=written, mode=mode()),
        key="next_tokens",
        reading=reading,
        table=lambda: shown.reset_index(drop=True),
        definitions=("next_tokens",),
    )
