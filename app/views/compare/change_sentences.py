"""What changed for single prompts, tokens and answers between two runs, in Markdown with every text escaped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from app.sentences import and_list, count, escaped, percent
from figures.pieces import shown_piece

__all__ = ["of_prompts", "of_scores", "of_tokens"]

_STANDS_OUT = 3.0


def of_scores(table: pd.DataFrame, *, names: tuple[str, str]) -> str:
    """Whose answers got better or worse."""
    overall: dict[str, Any] = table.attrs["overall"]
    n_prompts, n_up, n_down = (int(overall[name]) for name in ("n_prompts", "n_up", "n_down"))
    if not n_up + n_down:
        return f"No score of {count(n_prompts, 'prompt')} changed."
    told = (
        f"From {escaped(names[0])} to {escaped(names[1])} the mean score of {count(n_prompts, 'prompt')} went from "
        f"{overall['score_before']:.2f} to {overall['score_after']:.2f}: {count(n_up, 'prompt')} better, {n_down:,} "
        f"worse (sign test p {_p(overall['p_value'])})."
    )
    called = table[table["q_value"] <= 0.05]
    up, down = ([escaped(str(task)) for task in called.index[sign * called["difference"] > 0]] for sign in (1, -1))
    if not up and not down:
        return f"{told} No task alone changed beyond chance (q at most 0.05)."
    parts = [f"{and_list(tasks)} {word}" for tasks, word in ((up, "better"), (down, "worse")) if tasks]
    return f"{told} Beyond chance in single tasks (q at most 0.05): {'; '.join(parts)}."


def of_prompts(table: pd.DataFrame) -> str:
    """Which prompts stand out of their task."""
    known = table.dropna(subset=["churn"])
    if known.empty:
        return "No token of these prompts was routed in both runs."
    if not known["churn"].any():
        return "No prompt changed."
    beyond = known[known["z"] > _STANDS_OUT]
    first = known.iloc[0]
    told = (
        f"Most changed is **{escaped(str(known.index[0]))}**: {percent(first['churn'])}, the mean of "
        f"{escaped(str(first['task']))} being {percent(first['task_mean'])}."
    )
    if beyond.empty:
        return f"{told} No prompt stands out of its task by more than {_STANDS_OUT:g} standard deviations."
    which = and_list([escaped(str(each)) for each in beyond.sort_values("z", ascending=False).index[:4]], most=4)
    stand = "prompt stands out of its" if len(beyond) == 1 else "prompts stand out of their"
    others = " and others" if len(beyond) > 4 else ""
    return f"{told} {len(beyond)} {stand} task by more than {_STANDS_OUT:g} standard deviations: {which}{others}."


def of_tokens(table: xr.Dataset, *, names: tuple[str, str]) -> str:
    """Where in a text the two runs part.

    Args:
        table: of `token_churn`.
        names: of the two runs.
    """
    churn = table["churn"]
    known = churn.notnull().any("layer").to_numpy()
    if not known.any():
        return "No token of this text can be compared."
    of_token = churn.mean("layer", skipna=True).to_numpy()
    n_same, n_left = int((of_token[known] == 0).sum()), int((~known).sum())
    are = "is" if n_left == 1 else "are"
    left = f" {count(n_left, 'token')} {are} not compared, for there the two texts differ." if n_left else ""
    if n_same == known.sum():
        return f"All {count(n_same, 'token')} keep their experts in every layer.{left}"
    best = int(np.nanargmax(of_token))
    piece = escaped(shown_piece(str(table["piece"].values[best])).text)
    told = (
        f"The churn is {percent(float(churn.mean()))} on average, most at “{piece}” (token {best}, "
        f"{percent(float(of_token[best]))}); {n_same} of {count(int(known.sum()), 'token')} keep their experts in "
        "every layer."
    )
    flipped, kept = table["margin"].where(churn > 0).mean(), table["margin"].where(churn == 0).mean()
    if np.isfinite(flipped) and np.isfinite(kept):
        told += f" Where experts changed, the mean margin in {escaped(names[0])} was {float(flipped):.3f}, "
        told += f"else {float(kept):.3f}."
    return f"{told}{left} This is one text; the layers above say what holds of all."


def _p(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"
