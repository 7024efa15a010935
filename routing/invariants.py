"""What is true of every trace, checked in one place.

Letters: T token, L layer, R rank, K selected rank, E expert.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from routing.adapter_invariants import of_adapter_rows, of_adapter_table
from routing.chunks import ROUTER_ARRAYS, Chunk
from routing.errors import TraceError
from routing.trace import RoutingTrace

__all__ = ["check_invariants", "violations"]

N_TOKENS_A_CHECK = 8192  # bounds the memory of the temporaries


def check_invariants(trace: RoutingTrace) -> None:
    """Raise if the trace breaks an invariant.

    Raises:
        TraceError: with the first violations, each naming layer and token.
    """
    if found := violations(trace, limit=3):
        msg = f"The trace breaks {len(found)} invariant(s) or more: {' '.join(found)} Record it again."
        raise TraceError(msg)


def violations(trace: RoutingTrace, *, limit: int = 20) -> list[str]:
    """What is wrong with a trace: one sentence a finding, none if it is sound.

    Checked: layer labels, prompt ids and positions are unique; ids are in range, distinct, and without a gap
    along rank; a token that a layer routes has exactly that layer's top_k selected (so counts sum to tokens ×
    top_k); weights of selected experts are finite and do not increase along rank; runners-up do not increase
    in score; logits are there for existing experts and not NaN; every token's prompt is known; experts have as many
    names as there are experts, or none; and of adapters what `routing.adapter_invariants` says.
    """
    found: list[str] = []
    for sentence in _all(trace):
        found.append(sentence)
        if len(found) == limit:
            break
    return found


def _all(trace: RoutingTrace) -> Iterator[str]:
    if len(set(trace.layers)) != len(trace.layers):
        yield f"Layer labels are not unique: {list(trace.layers)}."
    for facts in trace.layer_facts:
        if facts.expert_names is not None and len(facts.expert_names) != facts.n_experts:
            yield f"{facts.label} names {len(facts.expert_names)} of {facts.n_experts} experts."
    if trace.prompts["prompt"].duplicated().any():
        yield "Prompt ids are not unique."
    if trace.level == "counts":
        yield from _of_counts(trace)
        return
    if not _prompts_are_known(trace):
        yield f"Tokens name prompts outside the table of {trace.n_prompts}."
        return
    yield from of_adapter_table(trace)
    for chunk in trace.chunks(fields=ROUTER_ARRAYS, n_tokens=N_TOKENS_A_CHECK):
        yield from _of_keys(trace, chunk)
        for layer in range(trace.n_layers):
            yield from _of_layer(trace, chunk, layer)
    yield from of_adapter_rows(trace, n_tokens=N_TOKENS_A_CHECK)
    yield from _of_positions(trace)


def _of_counts(trace: RoutingTrace) -> Iterator[str]:
    counts = trace.counts
    if counts is None:
        yield "A trace of level 'counts' holds no counts."
        return
    if (counts.values < 0).any():
        yield "Counts are negative."
    if (counts.values * ~trace.expert_exists.values).any():
        yield "Experts that do not exist have counts."
    for number, facts in enumerate(trace.layer_facts):
        total = int(counts.values[:, number].sum())
        if total % facts.top_k or total > trace.n_tokens * facts.top_k:
            yield f"{facts.label} counts {total} assignments; {trace.n_tokens} tokens × {facts.top_k} differ."


def _prompts_are_known(trace: RoutingTrace) -> bool:
    prompts = trace.storage.require_rows("prompt") if trace.n_tokens else None
    for start in range(0, trace.n_tokens, N_TOKENS_A_CHECK):
        assert prompts is not None
        part = prompts.read(start, min(start + N_TOKENS_A_CHECK, trace.n_tokens))
        if part.min() < 0 or part.max() >= trace.n_prompts:
            return False
    return True


def _of_keys(trace: RoutingTrace, chunk: Chunk) -> Iterator[str]:
    if (chunk.phase > 1).any() or (chunk.stack >= len(trace.stacks)).any():
        yield f"Tokens {chunk.start} to {chunk.stop} have an unknown phase or stack."
    if (chunk.nll < 0).any():
        yield f"Tokens {chunk.start} to {chunk.stop} have a negative nll."


def _of_layer(trace: RoutingTrace, chunk: Chunk, layer: int) -> Iterator[str]:
    facts = trace.layer_facts[layer]
    assert chunk.experts is not None
    ids_TR = chunk.experts[:, layer]
    there_TR = ids_TR != trace.absent

    def first(bad_T: Any) -> str:
        return f"{facts.label}, token {chunk.start + int(np.argmax(bad_T))}"

    if (bad := (there_TR & (ids_TR >= facts.n_experts)).any(axis=1)).any():
        yield f"{first(bad)}: an expert id is not below {facts.n_experts}."
    if (bad := (there_TR[:, 1:] & ~there_TR[:, :-1]).any(axis=1)).any():
        yield f"{first(bad)}: a rank is absent before one that is there."
    ordered = np.sort(ids_TR, axis=1)
    if (bad := ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != trace.absent)).any(axis=1)).any():
        yield f"{first(bad)}: an expert stands at two ranks."
    n_selected = there_TR[:, : facts.top_k].sum(axis=1)
    routed_T = n_selected > 0
    if (bad := routed_T & (n_selected != facts.top_k)).any():
        yield f"{first(bad)}: not {facts.top_k} selected experts."
    if chunk.weights is not None:
        weights_TK = chunk.weights[:, layer, : facts.top_k].astype(np.float32)
        if (bad := routed_T & ~np.isfinite(weights_TK).all(axis=1)).any():
            yield f"{first(bad)}: a weight is not finite."
        rises = weights_TK[:, 1:] > weights_TK[:, :-1]
        if chunk.dropped is not None:
            kept = ~chunk.dropped[:, layer, : facts.top_k]
            rises &= kept[:, 1:] & kept[:, :-1]
        if (bad := rises.any(axis=1)).any():
            yield f"{first(bad)}: weights increase along rank."
    if chunk.scores is not None:
        next_TR = chunk.scores[:, layer, facts.top_k :].astype(np.float32)
        if (bad := (next_TR[:, 1:] > next_TR[:, :-1]).any(axis=1)).any():
            yield f"{first(bad)}: scores of runners-up increase along rank."
    if (
        chunk.logits is not None
        and (bad := routed_T & np.isnan(chunk.logits[:, layer, : facts.n_experts]).any(axis=1)).any()
    ):
        yield f"{first(bad)}: a logit is NaN."


def _of_positions(trace: RoutingTrace) -> Iterator[str]:
    if trace.unit == "prompt":
        return
    place = trace.tokens[["prompt", "position", "stack"]]
    if (twice := place.duplicated()).any():
        row = int(np.argmax(twice.to_numpy()))
        yield f"Token {row} repeats position {int(place['position'].iloc[row])} of its prompt."
