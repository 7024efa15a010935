"""What a packed folder is made of: compressed arrays of rows, and the dictionary of adapters."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from routing.adapters import Adapters
from routing.rows import Rows
from routing.store.adapters import ADAPTERS, adapter_facts, adapter_specs
from routing.store.commits import LOG
from routing.store.files import write_atomically
from routing.store.format import ArraySpec

__all__ = ["MANTISSA_BITS", "facts_of_adapters", "packed_array", "write_packed_adapters"]

MANTISSA_BITS = 10  # of float16


def packed_array(group: Any, spec: ArraySpec, rows: Rows, *, n_rows: int, bits: int = MANTISSA_BITS) -> None:
    """Write rows as one compressed array.

    Args:
        group: the open Zarr group.
        spec: the array.
        rows: its rows, in the type in which they are stored.
        n_rows: how many there are, at least one.
        bits: how much of a float16's mantissa is kept.
    """
    n_chunks = -(-n_rows // spec.chunk_rows)
    attributes = spec.metadata(0)["attributes"] | ({"mantissa_bits": bits} if bits < MANTISSA_BITS else {})
    size = -(-n_rows // n_chunks)
    first = _rounded(rows.read(0, size), bits)
    array = group.create_array(
        spec.name,
        shape=(n_rows, *spec.tail),
        chunks=(size, *spec.tail),
        dtype=spec.dtype,
        fill_value=np.nan if spec.fill == "NaN" else spec.fill,
        compressors=_smallest_codecs(first.astype(spec.dtype, copy=False)),
        dimension_names=spec.dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    for start in range(0, n_rows, size):
        stop = min(start + size, n_rows)
        array[start:stop] = _rounded(rows.read(start, stop), bits)


def facts_of_adapters(adapters: Adapters) -> dict[str, Any]:
    """What the header of a copy says of the adapters."""
    return adapter_facts(
        adapters.sites,
        seed=adapters.seed,
        max_parameters=adapters.parameter_rows.shape[1],
        conditioning={name: rows.shape[1] for name, rows in adapters.conditioning_rows.items()},
        n_adapters=len(adapters),
    )


def write_packed_adapters(folder: Path, adapters: Adapters) -> None:
    """Write the dictionary of adapters compressed, its keys in a log of one line."""
    import zarr

    group = zarr.create_group(folder / ADAPTERS)
    for name, spec in adapter_specs(facts_of_adapters(adapters)).items():
        rows = adapters.parameter_rows if name == "parameters" else adapters.conditioning_rows[name]
        if len(adapters):
            packed_array(group, spec, rows, n_rows=len(adapters))
    keys = adapters.keys[["site", "key"]].to_numpy().tolist()
    line = {"n": len(adapters), "crc32": "00000000", "keys": keys, "time": round(time.time(), 3)}
    write_atomically(folder / ADAPTERS / LOG, (json.dumps(line) + "\n").encode())


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
