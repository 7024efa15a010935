"""Makers of stored traces: a trace written batch by batch, as a recording does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from routing import RoutingTrace, TokenBatch, TraceWriter
from routing.chunks import TOKEN_ARRAYS


def batch_of(trace: RoutingTrace, start: int, stop: int, *, fields: tuple[str, ...] = ()) -> TokenBatch:
    """Tokens start to stop of a trace as a batch."""
    names = (*TOKEN_ARRAYS, *fields)
    rows = {name: trace.storage.rows(name) for name in names}
    columns = ("prompt", "position", "token_id", "phase", "stack", "nll")
    rows |= {name: trace.storage.rows(name) for name in columns}
    return TokenBatch(
        **{name: None if each is None else np.array(each.read(start, stop)) for name, each in rows.items()}
    )


def writer_for(trace: RoutingTrace, path: Path, **options: Any) -> TraceWriter:
    """A writer that a trace fits into, its prompts set."""
    options = {"level": trace.level, "logits_dtype": "float32" if trace.level == "full" else None} | options
    writer = TraceWriter(path, layer_facts=trace.layer_facts, n_ranks=trace.n_ranks, **options)
    writer.set_prompts(trace.prompts)
    return writer


def append_all(writer: TraceWriter, trace: RoutingTrace, *, n_tokens_a_batch: int) -> None:
    """Append every token of a trace, batch by batch."""
    for start in range(0, trace.n_tokens, n_tokens_a_batch):
        writer.append(batch_of(trace, start, min(start + n_tokens_a_batch, trace.n_tokens)))


def require_same(one: RoutingTrace, other: RoutingTrace, *, n_tokens: int | None = None) -> None:
    """Fail unless two traces hold the same, in the first `n_tokens` tokens or in all."""
    n_tokens = one.n_tokens if n_tokens is None else n_tokens
    assert other.n_tokens == n_tokens
    assert one.layer_facts == other.layer_facts
    for name in TOKEN_ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left.values[:n_tokens], right.values, err_msg=name)
    assert one.tokens.iloc[:n_tokens].equals(other.tokens)
    assert one.prompts.equals(other.prompts)
