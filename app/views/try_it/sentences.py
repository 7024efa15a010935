"""What a typed text and a change of its routing say; in Markdown, with every text escaped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from app.commands.terminal import bytes_in_words
from app.sentences import and_list, count, escaped, percent
from app.tries.asked import Changed, Found
from app.tries.models import Reader
from app.views.tokens.sentences import token_name
from figures.pieces import shown_piece
from routing import RoutingTrace

__all__ = [
    "effect",
    "next_reading",
    "of_memory",
    "of_no_model",
    "of_whole_text",
    "routing_reading",
    "runner_up_reading",
    "shift_reading",
    "surprise_reading",
]

# Smaller differences are those of the last digits of a sum.
_NOTHING = 5e-4


def of_no_model(folder: str) -> str:
    """That a folder which was named holds no model."""
    return (
        f"There is no model in {escaped(folder)}: no weights (safetensors files) were found there. Name a folder of "
        "this machine with config.json, safetensors files and a tokenizer."
    )


def of_memory(reader: Reader, *, held: int, is_warmed: bool) -> str:
    """What memory reading takes, and until when.

    Args:
        reader: the model.
        held: bytes that the process which reads holds now; 0 where no text was read yet.
        is_warmed: whether the model is loaded before a text is typed.
    """
    weights = bytes_in_words(reader.weight_bytes)
    until = "until nobody has read a text for ten minutes"
    if held:
        return f"The process that reads texts holds {bytes_in_words(held)} of this machine's memory, {until}."
    if is_warmed:
        return (
            f"While you type, the model is loaded: {weights} of weights, and some hundred megabytes for the libraries. "
            f"They stay in memory {until}."
        )
    return f"The model is loaded with the first text: {weights} of weights, which stay in memory {until}."


def next_reading(shown: pd.DataFrame, *, tokens: pd.DataFrame | None, row: int) -> str:
    """What the model expects, beside what the text has.

    Args:
        shown: the likeliest next tokens, likeliest first: token_id, piece, probability.
        tokens: of the text, with piece, token_id, nll; None where the text as a whole is meant.
        row: of the token after which it is asked.
    """
    first = shown.iloc[0]
    text = f"The likeliest is {_quoted(first['piece'])} with {percent(float(first['probability']))}; "
    text += f"these {len(shown)} together have {percent(float(shown['probability'].sum()))}."
    if tokens is None:
        return text
    if row + 1 >= len(tokens):
        return f"{text} The text ends here."
    following = tokens.iloc[row + 1]
    text += f" The text goes on with {_quoted(following['piece'])}"
    known = pd.notna(following["nll"])
    return f"{text}, which gets {percent(float(np.exp(-following['nll'])))}." if known else f"{text}."


def shift_reading(shown: pd.DataFrame, *, written: int | None, divergence: float) -> str:
    """How the next token's distribution moved.

    Args:
        shown: next tokens that are among the likeliest of either reading: token_id, piece, before, after.
        written: token id of what the text has there, None at its end.
        divergence: Kullback–Leibler, before against after, in nats.
    """
    old, new = (shown.loc[shown[side].idxmax()] for side in ("before", "after"))
    if divergence < _NOTHING:
        return f"Nothing moved here: the divergence of the two distributions is {divergence:.4f} nats."
    if old["token_id"] == new["token_id"]:
        text = f"{_quoted(old['piece'])} stays the likeliest: {_from_to(old)}."
    else:
        text = f"The likeliest was {_quoted(old['piece'])} ({_from_to(old)}) and is now {_quoted(new['piece'])} "
        text += f"({_from_to(new)})."
    there = shown[shown["token_id"] == written]
    if len(there) and written not in (old["token_id"], new["token_id"]):
        text += f" What the text has there, {_quoted(there.iloc[0]['piece'])}, goes {_from_to(there.iloc[0])}."
    return f"{text} The divergence of the two distributions is {divergence:.3f} nats."


def effect(found: Found, change: Changed, *, table: pd.DataFrame, churn: xr.Dataset, tokens: pd.DataFrame) -> str:
    """What was changed, and what came of it, in figures.

    Args:
        found: what came back.
        change: what was asked.
        table: a row a token: nll_before, nll_after, divergence.
        churn: as `token_churn` gives it.
        tokens: of the text, with piece.
    """
    layer = escaped(change.layer)
    moved = (table["nll_after"] - table["nll_before"]).to_numpy(float)
    if change.position is None:
        n_hit = int((churn["churn"].sel(layer=change.layer) > 0).sum())
        text = f"Without **{layer}·E{found.taken_out}**, {count(n_hit, 'token')} of {len(tokens)} "
        text += f"{'goes' if n_hit == 1 else 'go'} elsewhere in that layer. "
        after, where = np.flatnonzero(np.isfinite(moved)), "all tokens"
    else:
        at = change.position
        text = f"In **{layer}**, {token_name(tokens, at)} goes to **E{found.put_in}** in place of "
        text += f"**E{found.taken_out}**. "
        if at + 1 < len(tokens):
            text += f"The token behind it, {token_name(tokens, at + 1)}, {_surprise(table.iloc[at + 1])}. "
        after, where = np.arange(at + 2, len(tokens)), "the tokens after that"
    if len(after):
        mean = float(np.nanmean(moved[after]))
        by = f"{mean:+.3f} nats" if abs(mean) >= _NOTHING else "less than 0.001 nats"
        text += f"Over {where} ({len(after)}) the mean nll changes by {by}"
        worst = int(after[np.nanargmax(np.abs(moved[after]))])
        if abs(moved[worst]) > _NOTHING:
            text += f", most at {token_name(tokens, worst)}: {moved[worst]:+.3f}"
        text += ". "
    return text + _later(churn, change)


def surprise_reading(table: pd.DataFrame, *, position: int | None, tokens: pd.DataFrame) -> str:
    """Which tokens became easier, which harder."""
    moved = (table["nll_after"] - table["nll_before"]).to_numpy(float)
    harder, easier = int((moved > _NOTHING).sum()), int((moved < -_NOTHING).sum())
    if not harder and not easier:
        return "No token of the text surprises the model more or less than before."
    text = f"{count(harder, 'token')} {'is' if harder == 1 else 'are'} harder now and {easier} easier, "
    text += f"by {np.nanmin(moved):+.3f} to {np.nanmax(moved):+.3f} nats"
    before = "" if not position else f"; the {count(position + 1, 'token')} up to the change cannot have changed"
    return (
        f"{text}{before}. Both readings are of this one text and exact; what such a change costs over many texts is "
        "in Causes."
    )


def routing_reading(churn: xr.Dataset, change: Changed) -> str:
    """Where the routing parted, layer by layer."""
    values = churn["churn"]
    by_layer = (values > 0).sum("token")
    there = [(str(layer), int(n)) for layer, n in zip(values["layer"].values, by_layer.values, strict=True) if n]
    if not there:
        return "Every token goes to the experts that it went to before."
    counted = and_list([f"{escaped(layer)} {n}" for layer, n in there], most=12)
    return (
        f"Tokens with other experts than before, of {values.sizes['token']}: {counted}. Colored is the share of the "
        f"experts that were exchanged; layers before {escaped(change.layer)} cannot change."
    )


def runner_up_reading(table: pd.DataFrame, change: Changed, *, divergence: float) -> str:
    """Where a runner-up would matter most for this token, and how the change that was made compares.

    Args:
        table: a row a layer: layer, nll_change, divergence.
        change: what was made.
        divergence: what that did to the next token's distribution, in nats.
    """
    most, least = (table.loc[table["divergence"].agg(end)] for end in ("idxmax", "idxmin"))
    text = (
        f"For this token the runner-up matters most in {escaped(str(most['layer']))} ({most['divergence']:.3f} nats) "
    )
    text += f"and least in {escaped(str(least['layer']))} ({least['divergence']:.3f})."
    others = table.loc[table["layer"] != change.layer, "divergence"]
    n_less = int((others < divergence).sum())
    text += f" The change made here, {divergence:.3f} nats, is more than the runner-up does in {n_less} of the "
    return f"{text}{len(others)} other layers. Click a bar to change that layer."


def of_whole_text(trace: RoutingTrace, *, task: str | None) -> str:
    """Why no decision of a single token can be changed, and what can be tried instead."""
    if any(facts.score_function == "cosine" for facts in trace.layer_facts):
        return (
            "What is shown is the prototype that was retrieved for this text; nothing is routed token by token, so no "
            "other expert can be forced. Choose another task above to read the text with that task's adapters."
        )
    named = f" of “{escaped(task)}”" if task else ""
    return (
        f"This model routes once a task: the route is that{named}, whatever the text says, so no single token's expert "
        "can be forced. Choose another task above to see its route; Causes knocks experts out."
    )


def _later(churn: xr.Dataset, change: Changed) -> str:
    layers = [str(layer) for layer in churn["layer"].values]
    after = churn["churn"].isel(layer=slice(layers.index(change.layer) + 1, None))
    if not after.sizes["layer"]:
        return "It is the last layer, so no routing follows from it."
    differs = (after > 0).to_numpy()
    n_later = int(np.isfinite(after.to_numpy()).sum())
    if not differs.any():
        return f"No later layer routes any token otherwise (0 of {n_later:,} decisions)."
    n_changed, n_tokens = int(differs.sum()), int(differs.any(axis=0).sum())
    by_layer = differs.sum(axis=1)
    where = escaped(str(after["layer"].values[int(by_layer.argmax())]))
    if n_changed == 1:
        return f"In later layers 1 of {n_later:,} decisions changes, in {where}."
    most = f", most in {where} ({int(by_layer.max())})" if int((by_layer > 0).sum()) > 1 else f", all in {where}"
    return f"In later layers {n_changed:,} of {n_later:,} decisions change, of {count(n_tokens, 'token')}{most}."


def _surprise(row: pd.Series) -> str:
    before, after = float(row["nll_before"]), float(row["nll_after"])
    if abs(after - before) < _NOTHING:
        return f"is as likely as before ({before:.3f} nats)"
    word = "less" if after > before else "more"
    return f"becomes {word} likely: {before:.3f} → {after:.3f} nats ({after - before:+.3f})"


def _from_to(row: pd.Series) -> str:
    return f"{percent(float(row['before']))} → {percent(float(row['after']))}"


def _quoted(piece: object) -> str:
    shown = shown_piece(str(piece))
    return f"“{escaped(shown.text.strip())}”" if shown.name is None else f"a {escaped(shown.name)}"
