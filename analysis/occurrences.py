"""How often a token, or an expert, occurs in each prompt: what a search through a run asks for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.one_expert import NOT_ROUTED, rank_of_expert
from analysis.scan import require_tokens
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["expert_occurrences", "matching_tokens", "token_occurrences"]


def matching_tokens(trace: RoutingTrace, *, text: str) -> pd.Series:
    """Tokens of the vocabulary that are this text, and where none is, those that hold it; case does not matter.

    Blanks around a token do not count, for tokenizers keep the one before a word with the word.

    Returns:
        token id (index) · piece · text.
    """
    pieces = trace.vocabulary.astype(str)
    plain = pieces.str.strip().str.casefold()
    wanted = text.strip().casefold()
    # A blank is what is looked for where there is nothing else.
    exact = pieces[plain == wanted] if wanted else pieces[pieces == text]
    return exact if len(exact) or not wanted else pieces[plain.str.contains(wanted, regex=False)]


def token_occurrences(trace: RoutingTrace, *, text: str) -> np.ndarray:
    """How often the tokens that `matching_tokens` finds occur in each prompt.

    Returns:
        (prompt) · tokens · 0 and up.

    Raises:
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a search for tokens")
    wanted = matching_tokens(trace, text=text).index.to_numpy()
    n_P = np.zeros(trace.n_prompts, dtype=np.int64)
    if len(wanted):
        is_wanted = np.zeros(int(wanted.max()) + 1, dtype=bool)
        is_wanted[wanted] = True
        for chunk in trace.chunks(fields=()):
            known = (chunk.token_id >= 0) & (chunk.token_id < len(is_wanted))
            hits = np.flatnonzero(known)[is_wanted[chunk.token_id[known]]]
            n_P += np.bincount(chunk.prompt[hits], minlength=trace.n_prompts)
    return n_P


def expert_occurrences(trace: RoutingTrace, *, layer: str, expert: int) -> pd.DataFrame:
    """How many tokens of each prompt select the expert, of those that its layer routed.

    Returns:
        (prompt) · n_chosen, n_routed · tokens · 0 and up.

    Raises:
        SelectionError: the trace has no such layer.
        TraceError: the trace holds counts only.
    """
    require_tokens(trace, for_what="a search for tokens")
    if layer not in trace.layers:
        msg = f"This trace has no MoE layer {layer!r}; it holds {list(trace.layers)}. Choose among them."
        raise SelectionError(msg)
    number = trace.layers.index(layer)
    top_k = trace.layer_facts[number].top_k
    chosen_P, routed_P = (np.zeros(trace.n_prompts, dtype=np.int64) for _ in range(2))
    for chunk in trace.chunks(fields=("experts",)):
        rank = rank_of_expert(chunk, number=number, expert=expert, ranks=slice(0, top_k))
        chosen_P += np.bincount(chunk.prompt[rank >= 0], minlength=trace.n_prompts)
        routed_P += np.bincount(chunk.prompt[rank != NOT_ROUTED], minlength=trace.n_prompts)
    rows = pd.RangeIndex(trace.n_prompts, name="prompt")
    frame = pd.DataFrame({"n_chosen": chosen_P, "n_routed": routed_P}, index=rows)
    frame.attrs["unit"] = {"n_chosen": "tokens", "n_routed": "tokens"}
    return frame
