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
from routing.store.batch import TokenBatch
from routing.store.files import full_disk, write_json, write_table
from routing.store.finish import header_of
from routing.store.format import CHUNK_TOKENS, ZARR_GROUP, LogitsType, array_specs
from routing.store.stored import HEADER, open_trace
from routing.store.tables import PROMPTS, write_counts, write_vocabulary
from routing.store.writer import TraceWriter
from routing.trace import RoutingTrace

__all__ = ["pack_trace", "save_trace"]

N_TOKENS_A_BATCH = 8192
MANTISSA_BITS = 10  # of float16


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
    )
    with writer:
        writer.set_prompts(trace.prompts)
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
        )
        for name, spec in specs.items():
            rows = logits if name == "logits" else trace.storage.rows(name)
            if rows is None:
                continue
            n_chunks = -(-trace.n_tokens // spec.chunk_rows)
            bits = score_mantissa_bits if name == "scores" else MANTISSA_BITS
            attributes = spec.metadata(0)["attributes"] | ({"mantissa_bits": bits} if bits < MANTISSA_BITS else {})
            size = -(-trace.n_tokens // n_chunks)
            first = _rounded(rows.read(0, size), bits)
            array = group.create_array(
                name,
                shape=(trace.n_tokens, *spec.tail),
                chunks=(size, *spec.tail),
                dtype=spec.dtype,
                fill_value=np.nan if spec.fill == "NaN" else spec.fill,
                compressors=_smallest_codecs(first.astype(spec.dtype, copy=False)),
                dimension_names=spec.dims,
                attributes=attributes,
                config={"write_empty_chunks": True},
            )
            for start in range(0, trace.n_tokens, size):
                stop = min(start + size, trace.n_tokens)
                array[start:stop] = _rounded(rows.read(start, stop), bits)
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
    )
    write_json(folder / HEADER, header | {"packed": True, "digest": trace.digest})


def _smallest_codecs(sample: np.ndarray) -> list[Any]:
    """Zstandard with or without byte shuffling, whichever makes this array smaller, and a checksum."""
    from numcodecs import Blosc  # type: ignore[import-untyped]
    from zarr.codecs import BloscCodec, Crc32cCodec

    sizes = {
        mode: len(Blosc(cname="zstd", clevel=5, shuffle=number).encode(np.ascontiguousarray(sample)))
        for mode, number in (("noshuffle", Blosc.NOSHUFFLE), ("shuffle", Blosc.SHUFFLE))
    }
    mode = min(sizes, key=lambda each: sizes[each])
    return [BloscCodec(cname="zstd", clevel=9, shuffle=mode, typesize=sample.dtype.itemsize), Crc32cCodec()]


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Float16 values rounded to that many mantissa bits; monotone, so order never turns around."""
    if bits >= MANTISSA_BITS:
        return values
    lost = MANTISSA_BITS - bits
    codes = np.ascontiguousarray(values).view(np.uint16).astype(np.uint32)
    half = (1 << (lost - 1)) - 1 + ((codes >> lost) & 1)
    rounded = ((codes + half) >> lost << lost).astype(np.uint16).view(np.float16)
    return np.where(np.isfinite(values), rounded, values)


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


def _unchanged(trace: RoutingTrace) -> dict[str, Any]:
    """What a copy keeps of the original's provenance."""
    known = trace.provenance
    return {"complete": known.complete, "n_tokens": trace.n_tokens, "n_bytes": known.n_bytes}


def _pieces(trace: RoutingTrace) -> dict[int, str] | None:
    pieces = trace.vocabulary
    return dict(zip(pieces.index.tolist(), pieces.tolist(), strict=True)) if len(pieces) else None
