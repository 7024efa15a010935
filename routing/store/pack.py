"""Traces written whole: as the recorder writes them, or packed for keeping and sending."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from routing.chunks import TOKEN_ARRAYS, TOKEN_COLUMNS
from routing.errors import RecordingError, TraceError
from routing.rows import Rows
from routing.storage import Storage
from routing.store.adapters import ADAPTERS
from routing.store.batch import TokenBatch
from routing.store.files import full_disk, write_json, write_table
from routing.store.finish import header_of
from routing.store.format import CHUNK_TOKENS, ZARR_GROUP, LogitsType, array_specs
from routing.store.packedparts import MANTISSA_BITS, facts_of_adapters, packed_array, write_packed_adapters
from routing.store.stored import HEADER, open_trace
from routing.store.tables import PROMPTS, write_counts, write_vocabulary
from routing.store.vectors import write_vectors
from routing.store.writer import TraceWriter
from routing.trace import RoutingTrace

__all__ = ["pack_trace", "save_trace"]

N_TOKENS_A_BATCH = 8192
N_ADAPTERS_A_BATCH = 1024


def save_trace(trace: RoutingTrace, path: str | Path, *, chunk_tokens: int = CHUNK_TOKENS) -> Path:
    """Write a trace into a new folder, in the form in which a recording leaves it.

    Raises:
        RecordingError: the folder holds a trace, or cannot be written.
    """
    logits, logits_dtype = _stored_rows(trace.storage, "logits")
    rows = {name: trace.storage.rows(name) for name in (*TOKEN_ARRAYS, *TOKEN_COLUMNS)} | {"logits": logits}
    n_runners_up = trace.n_ranks - max(facts.top_k for facts in trace.layer_facts)
    writer = TraceWriter(
        path,
        layer_facts=trace.layer_facts,
        level=trace.level,
        n_ranks=trace.n_ranks,
        n_runners_up=n_runners_up,
        unit=trace.unit,
        logits_dtype=logits_dtype,
        provenance=trace.provenance,
        vocabulary=_pieces(trace),
        chunk_tokens=chunk_tokens,
        **_options_of_adapters(trace),
    )
    with writer:
        writer.set_prompts(trace.prompts)
        _add_all_adapters(trace, writer)
        if trace.vectors:
            writer.set_vectors(trace.vectors)
        if trace.counts is not None:
            writer.set_counts(trace.counts.values, tasks=trace.counts["task"].values.tolist(), n_tokens=trace.n_tokens)
        for start in range(0, trace.n_tokens if trace.level != "counts" else 0, N_TOKENS_A_BATCH):
            stop = min(start + N_TOKENS_A_BATCH, trace.n_tokens)
            parts = {name: None if each is None else each.read(start, stop) for name, each in rows.items()}
            writer.append(TokenBatch(**_with_all_arrays(parts, writer)))
        writer.close(**_unchanged(trace))
    return writer.path


def pack_trace(
    source: RoutingTrace | str | Path, path: str | Path, *, score_mantissa_bits: int = MANTISSA_BITS
) -> Path:
    """Write a trace into a new folder, compressed: smaller to keep and send, slower to scan.

    Args:
        source: a trace, or the folder of one.
        path: the new folder.
        score_mantissa_bits: how much of the selection scores' mantissa is kept; fewer bits than 10 round the
            scores (never their order into its reverse) and make the folder smaller.

    Raises:
        TraceError: the source cannot be read, or the bits are not 0 to 10.
        RecordingError: the new folder holds a trace, or cannot be written.
    """
    trace = open_trace(source) if isinstance(source, str | Path) else source
    folder = Path(path)
    if not 0 <= score_mantissa_bits <= MANTISSA_BITS:
        msg = f"A float16 has {MANTISSA_BITS} mantissa bits, but {score_mantissa_bits} were asked for. Ask for 0 to 10."
        raise TraceError(msg)
    if (folder / HEADER).exists():
        msg = f"{folder} already holds a trace, and a trace is written once. Choose another folder or remove it."
        raise RecordingError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_packed(trace, folder, score_mantissa_bits=score_mantissa_bits)
    except OSError as error:
        raise full_disk(error, folder, kept="The source is untouched.") from error
    return folder


def _write_packed(trace: RoutingTrace, folder: Path, *, score_mantissa_bits: int) -> None:
    import zarr

    write_table(folder / PROMPTS, trace.prompts)
    adapters = trace.adapters
    if adapters is not None:
        shutil.rmtree(folder / ADAPTERS, ignore_errors=True)
        write_packed_adapters(folder, adapters)
    if trace.vectors:
        write_vectors(folder, trace.vectors)
    if pieces := _pieces(trace):
        write_vocabulary(folder, pieces)
    logits, logits_dtype = _stored_rows(trace.storage, "logits")
    names: list[str] = []
    if trace.counts is not None:
        tasks = trace.counts["task"].values.tolist()
        write_counts(folder, trace.counts.values, tasks=tasks, layers=trace.layers, n_tokens=trace.n_tokens)
    elif trace.n_tokens:
        # An interrupted packing left its arrays, and zarr would refuse to overwrite them.
        shutil.rmtree(folder / ZARR_GROUP, ignore_errors=True)
        group = zarr.create_group(folder / ZARR_GROUP, attributes={"layers": list(trace.layers)})
        specs = array_specs(
            trace.layer_facts,
            n_ranks=trace.n_ranks,
            logits_dtype=logits_dtype,
            with_dropped=trace.storage.rows("dropped") is not None,
            n_sites=0 if adapters is None else len(adapters.sites),
        )
        for name, spec in specs.items():
            rows = logits if name == "logits" else trace.storage.rows(name)
            if rows is None:
                continue
            bits = score_mantissa_bits if name == "scores" else MANTISSA_BITS
            packed_array(group, spec, rows, n_rows=trace.n_tokens, bits=bits)
            names.append(name)
    grouped = trace.prompts.groupby("task", sort=False)["task_type"].agg(["first", "size"])
    tasks_listed = [
        {"name": str(name), "task_type": str(row["first"]), "n_prompts": int(row["size"])}
        for name, row in grouped.iterrows()
    ]
    header = header_of(
        layer_facts=trace.layer_facts,
        level=trace.level,
        unit=trace.unit,
        n_ranks=trace.n_ranks,
        arrays=names,
        chunk_tokens=CHUNK_TOKENS,
        logits_dtype=logits_dtype,
        tasks=tasks_listed,
        provenance=replace(trace.provenance, **_unchanged(trace)),
        n_tokens=trace.n_tokens,
        adapters=None if adapters is None else facts_of_adapters(adapters),
        vectors=sorted(trace.vectors),
    )
    write_json(folder / HEADER, header | {"packed": True, "digest": trace.digest})


def _stored_rows(storage: Storage, name: str) -> tuple[Rows | None, LogitsType | None]:
    """Logits in the type in which they are stored, so that copying loses and gains nothing."""
    rows = storage.rows(name)
    if rows is None:
        return None, None
    stored = getattr(storage, "stored_rows", None)
    if stored is not None:
        rows = stored(name, decoded=False)
    assert rows is not None
    kind: LogitsType = "float16" if rows.dtype == np.float16 else "float32"
    return rows, "bfloat16" if rows.dtype == np.uint16 else kind


def _with_all_arrays(parts: Mapping[str, np.ndarray | None], writer: TraceWriter) -> dict[str, Any]:
    """Scores and weights that were not recorded as NaN, so that a stored trace always has them."""
    experts = parts["experts"]
    assert experts is not None
    filled = dict(parts)
    for name, width in (("scores", writer.n_ranks), ("weights", writer.top_k)):
        if filled[name] is None:
            filled[name] = np.full((*experts.shape[:2], width), np.nan, dtype=np.float16)
    return filled


def _options_of_adapters(trace: RoutingTrace) -> dict[str, Any]:
    """What a writer must know of a trace's adapters."""
    held = trace.adapters
    if held is None:
        return {}
    cap = held.parameter_rows.shape[1] if held.projected else max(held.n_parameters_full, 1)
    return {"adapter_sites": held.sites, "adapter_seed": held.seed, "max_adapter_parameters": cap}


def _add_all_adapters(trace: RoutingTrace, writer: TraceWriter) -> None:
    held = trace.adapters
    for start in range(0, 0 if held is None else len(held), N_ADAPTERS_A_BATCH):
        assert held is not None
        stop = min(start + N_ADAPTERS_A_BATCH, len(held))
        writer.add_adapters(
            list(held.keys[["site", "key"]].iloc[start:stop].itertuples(index=False, name=None)),
            held.parameter_rows.read(start, stop),
            conditioning={name: rows.read(start, stop) for name, rows in held.conditioning_rows.items()},
        )


def _unchanged(trace: RoutingTrace) -> dict[str, Any]:
    """What a copy keeps of the original's provenance."""
    known = trace.provenance
    return {"complete": known.complete, "n_tokens": trace.n_tokens, "n_bytes": known.n_bytes}


def _pieces(trace: RoutingTrace) -> dict[int, str] | None:
    pieces = trace.vocabulary
    return dict(zip(pieces.index.tolist(), pieces.tolist(), strict=True)) if len(pieces) else None
