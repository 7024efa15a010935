"""What a folder needs beyond its arrays: the header, and the parts of the token table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routing.chunks import TOKEN_COLUMNS
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.rows import Rows
from routing.storage import Level, Unit
from routing.store.format import FORMAT, ZARR_GROUP, ArraySpec, LogitsType
from routing.store.rawrows import RawRows
from routing.store.tables import TOKENS, write_token_part

__all__ = ["header_of", "write_missing_parts"]


def header_of(
    *,
    layer_facts: Sequence[LayerFacts],
    level: Level,
    unit: Unit,
    n_ranks: int,
    arrays: Sequence[str],
    chunk_tokens: int,
    logits_dtype: LogitsType | None,
    tasks: Sequence[Mapping[str, Any]],
    provenance: Provenance,
    n_tokens: int,
    adapters: Mapping[str, Any] | None = None,
    vectors: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of header.json: all that a list of traces needs."""
    return {
        "format": FORMAT,
        "unit": unit,
        "level": level,
        "n_tokens": n_tokens,
        "n_ranks": n_ranks,
        "n_experts": max(facts.n_experts for facts in layer_facts),
        "top_k": max(facts.top_k for facts in layer_facts),
        "stacks": list(stacks_of(tuple(layer_facts))),
        "chunk_tokens": chunk_tokens,
        "arrays": list(arrays),
        "logits_dtype": logits_dtype if "logits" in arrays else None,
        "packed": False,
        "tasks": list(tasks),
        "layers": [facts.to_json() for facts in layer_facts],
        "provenance": provenance.to_json(),
        **({} if adapters is None else {"adapters": dict(adapters)}),
        **({"vectors": list(vectors)} if vectors else {}),
    }


def write_missing_parts(
    path: Path, stacks: Sequence[str], specs: Mapping[str, ArraySpec], *, n_tokens: int, whole_only: bool = False
) -> int:
    """Write the parts of the token table that are not there yet; gives back how many there are.

    Args:
        path: folder of the trace.
        stacks: names of the stacks.
        specs: the arrays.
        n_tokens: rows that are whole.
        whole_only: whether a last part that is not full is left for later.
    """
    size = specs["prompt"].chunk_rows
    columns: dict[str, Rows] = {name: RawRows(path / ZARR_GROUP / name, n_tokens) for name in TOKEN_COLUMNS}
    n_parts = n_tokens // size if whole_only else -(-n_tokens // size)
    for number in range(n_parts):
        if not (path / TOKENS / f"part-{number:05d}.parquet").exists():
            stop = min((number + 1) * size, n_tokens)
            write_token_part(path, number, columns, start=number * size, stop=stop, stacks=stacks)
    return n_parts
