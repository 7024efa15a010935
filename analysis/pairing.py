"""The same tokens in two traces.

Legend: T token, L layer, R stored rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.scan import require_tokens
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["BLOCK_TOKENS", "Pairs", "paired_experts", "paired_rows", "read_tokens"]

BLOCK_TOKENS = 16384


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Tokens that two traces share, one a row.

    Attributes:
        rows: their rows in the first trace.
        other_rows: their rows in the second.
        prompt: row of the first trace's prompt table.
        position: place in the prompt.
    """

    rows: np.ndarray
    other_rows: np.ndarray
    prompt: np.ndarray
    position: np.ndarray


def paired_rows(one: RoutingTrace, other: RoutingTrace) -> Pairs:
    """The tokens of the prompts, in both traces; what was generated is left out, for models write different answers.

    Raises:
        TraceError: the traces hold different prompts, tokens, layers or top-k.
    """
    for trace in (one, other):
        require_tokens(trace, for_what="a comparison of checkpoints")
    mine, theirs = ([(each.label, each.n_experts, each.top_k) for each in t.layer_facts] for t in (one, other))
    if mine != theirs:
        msg = (
            f"The two traces have the routers (layer, experts, top-k) {mine} and {theirs}, which differ. "
            "Compare checkpoints of one model."
        )
        raise TraceError(msg)
    if set(one.prompts["prompt"]) != set(other.prompts["prompt"]):
        n_missing = len(set(one.prompts["prompt"]) ^ set(other.prompts["prompt"]))
        msg = f"The two traces differ in {n_missing} prompts. Record both over the same prompts."
        raise TraceError(msg)
    found, also = read_tokens(one), read_tokens(other)
    if not all(np.array_equal(found[name], also[name]) for name in ("rank", "stack", "position", "token_id")):
        msg = (
            f"The two traces hold {len(found['row']):,} and {len(also['row']):,} tokens of their prompts, and these "
            "are not the same tokens. Record both checkpoints over the same tasks with the same tokenizer."
        )
        raise TraceError(msg)
    return Pairs(
        rows=found["row"],
        other_rows=also["row"],
        prompt=found["prompt"].astype(np.int64),
        position=found["position"].astype(np.int64),
    )


def paired_experts(
    one: RoutingTrace, other: RoutingTrace, pairs: Pairs
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """A run of pairs at a time: which, and (T, L, R) ids of both traces."""
    mine, theirs = (trace.storage.require_rows("experts") for trace in (one, other))
    for first in range(0, len(pairs.rows), BLOCK_TOKENS):
        part = slice(first, min(first + BLOCK_TOKENS, len(pairs.rows)))
        yield part, mine.take(pairs.rows[part]), theirs.take(pairs.other_rows[part])


def read_tokens(trace: RoutingTrace) -> dict[str, np.ndarray]:
    """Tokens that were read, not generated, in an order that batching does not change: by prompt, stack, position."""
    # As narrow as they may be: of a long run these columns are what a comparison holds.
    types = {"row": np.int64, "prompt": np.int32, "stack": np.int8, "position": np.int32, "token_id": np.int32}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in types}
    for chunk in trace.chunks(fields=(), n_tokens=1 << 20):
        read = np.flatnonzero(chunk.phase == 0)
        columns["row"].append(chunk.start + read)
        for name in ("prompt", "stack", "position", "token_id"):
            columns[name].append(getattr(chunk, name)[read].astype(types[name]))
    whole = {name: np.concatenate([np.zeros(0, type_), *columns.pop(name)]) for name, type_ in types.items()}
    # Two traces may list the same prompts in different order.
    rank = np.argsort(np.argsort(trace.prompts["prompt"].to_numpy(dtype=str), kind="stable"), kind="stable")
    whole["rank"] = rank.astype(np.int32)[whole["prompt"]] if len(whole["prompt"]) else whole["prompt"]
    keys = [whole[name] for name in ("rank", "stack", "position")]
    if _are_sorted(keys):
        return whole
    order = np.lexsort(keys[::-1])
    for name in whole:
        whole[name] = whole[name][order]
    return whole


def _are_sorted(keys: list[np.ndarray]) -> bool:
    """Whether rows are in the order of the first key, where that is the same of the second, and so on."""
    tied = np.ones(max(0, len(keys[0]) - 1), dtype=bool)
    for key in keys:
        if (tied & (key[1:] < key[:-1])).any():
            return False
        tied &= key[1:] == key[:-1]
    return True
