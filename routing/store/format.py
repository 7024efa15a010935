"""What a stored trace is made of; docs/format.md says it in sentences."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from routing.adapters import ABSENT_ADAPTER
from routing.errors import TraceError
from routing.facts import LayerFacts
from routing.storage import COLUMN_TYPES, id_dtype

__all__ = [
    "CHUNK_TOKENS",
    "FORMAT",
    "ArraySpec",
    "LogitsType",
    "array_specs",
    "check_format",
    "checksum",
    "chunk_rows_of",
    "content_digest",
    "from_bfloat16",
    "to_bfloat16",
]

NAME, VERSION = "routescope-trace", 1
FORMAT = f"{NAME}/{VERSION}"
CHUNK_TOKENS = 65536
MAX_CHUNK_BYTES = 128 * 2**20
BLOCK_BYTES = 8192
ZARR_GROUP = "trace.zarr"

LogitsType = Literal["bfloat16", "float16", "float32"]

BFLOAT16_NAN = 0x7FC0


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One array of the Zarr group.

    Attributes:
        name: name in the group.
        dtype: type of the stored values.
        tail: sizes of the axes after the token axis.
        dims: names of all axes.
        fill: value where nothing was recorded, as JSON.
        chunk_rows: rows a chunk.
        encoding: "bfloat16" where the stored uint16 is one, else None.
    """

    name: str
    dtype: np.dtype
    tail: tuple[int, ...]
    dims: tuple[str, ...]
    fill: Any
    chunk_rows: int
    encoding: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one token."""
        return self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk."""
        return self.row_bytes * self.chunk_rows

    def chunk_path(self, group: Path, number: int) -> Path:
        """File of a chunk."""
        return group.joinpath(self.name, "c", str(number), *("0" for _ in self.tail))

    def metadata(self, n_rows: int, *, chunk_rows: int | None = None) -> dict[str, Any]:
        """The array's zarr.json."""
        sized = {"endian": "little"} if self.dtype.itemsize > 1 else None
        codec: dict[str, Any] = {"name": "bytes"} | ({"configuration": sized} if sized else {})
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [n_rows, *self.tail],
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [chunk_rows or self.chunk_rows, *self.tail]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": self.fill,
            "codecs": [codec],
            "attributes": {"encoding": self.encoding} if self.encoding else {},
            "dimension_names": list(self.dims),
            "storage_transformers": [],
        }


def array_specs(
    layer_facts: tuple[LayerFacts, ...],
    *,
    n_ranks: int,
    logits_dtype: LogitsType | None,
    with_dropped: bool,
    n_sites: int = 0,
    chunk_tokens: int = CHUNK_TOKENS,
) -> dict[str, ArraySpec]:
    """The arrays of a trace of tokens, in the order in which a batch is written and checksummed."""
    n_layers = len(layer_facts)
    n_experts = max(facts.n_experts for facts in layer_facts)
    top_k = max(facts.top_k for facts in layer_facts)
    ids = id_dtype(n_experts)
    half = np.dtype(np.float16)
    shapes: list[tuple[str, np.dtype, tuple[int, ...], tuple[str, ...], Any]] = [
        ("experts", ids, (n_layers, n_ranks), ("layer", "rank"), int(np.iinfo(ids).max)),
        ("scores", half, (n_layers, n_ranks), ("layer", "rank"), "NaN"),
        # A dimension of its own: xarray wants each name to have one size.
        ("weights", half, (n_layers, top_k), ("layer", "selected_rank"), "NaN"),
    ]
    if with_dropped:
        shapes.append(("dropped", np.dtype(bool), (n_layers, top_k), ("layer", "selected_rank"), False))
    if logits_dtype is not None:
        stored = np.dtype(np.uint16 if logits_dtype == "bfloat16" else logits_dtype)
        nothing = BFLOAT16_NAN if logits_dtype == "bfloat16" else "NaN"
        shapes.append(("logits", stored, (n_layers, n_experts), ("layer", "expert"), nothing))
    if n_sites:
        shapes.append(("adapter_index", np.dtype(np.int32), (n_sites,), ("site",), ABSENT_ADAPTER))
        shapes.append(("adapter_ratio", half, (n_sites,), ("site",), "NaN"))
    fills = {"token_id": -1, "nll": "NaN"}
    shapes += [(name, dtype, (), (), fills.get(name, 0)) for name, dtype in COLUMN_TYPES.items()]
    specs: dict[str, ArraySpec] = {}
    for name, dtype, tail, dims, fill in shapes:
        row_bytes = max(1, dtype.itemsize * int(np.prod(tail, dtype=np.int64)))
        encoding = "bfloat16" if name == "logits" and logits_dtype == "bfloat16" else None
        specs[name] = ArraySpec(
            name=name,
            dtype=dtype,
            tail=tail,
            dims=("token", *dims),
            fill=fill,
            chunk_rows=chunk_rows_of(chunk_tokens, row_bytes),
            encoding=encoding,
        )
    return specs


def chunk_rows_of(chunk_tokens: int, row_bytes: int) -> int:
    """Rows a chunk: halved until a chunk is small enough, so that chunks of all arrays nest."""
    while chunk_tokens > 1 and chunk_tokens * row_bytes > MAX_CHUNK_BYTES:
        chunk_tokens = (chunk_tokens + 1) // 2
    return chunk_tokens


def check_format(header: Any, path: Path) -> None:
    """Refuse what we cannot read.

    Raises:
        TraceError: the header is not a trace's, or is of a version that we do not know.
    """
    written = header.get("format") if isinstance(header, Mapping) else None
    name, _, version = str(written).partition("/")
    if name != NAME:
        msg = f"{path} is not the header of a trace: its format is {written!r}, not {FORMAT!r}. Open a trace's folder."
        raise TraceError(msg)
    if version != str(VERSION):
        msg = (
            f"{path.parent} is written in format version {version}, but this RouteScope reads version {VERSION}. "
            "Open it with the RouteScope that wrote it, or a newer one."
        )
        raise TraceError(msg)


def checksum(content: Any, start: int = 0) -> int:
    """Checksum of a contiguous array or bytes, continued from `start`.

    The whole blocks of 8 KiB are added up, word by word of 64 bits, into one block; the checksum is the CRC-32 of
    that block and of the bytes after the last whole one. A plain CRC-32 would cost more than the writing itself.
    """
    size = content.nbytes if isinstance(content, np.ndarray) else len(content)
    if size == 0:
        return start
    flat = np.frombuffer(content.data.cast("B") if isinstance(content, np.ndarray) else content, dtype=np.uint8)
    whole = size - size % BLOCK_BYTES
    if whole:
        words = flat[:whole].view("<u8").reshape(-1, BLOCK_BYTES // 8)
        start = zlib.crc32(np.add.reduce(words, axis=0, dtype="<u8").data.cast("B"), start)
    return zlib.crc32(flat[whole:].data, start)


def content_digest(
    commits: list[tuple[int, int]],
    prompts_crc: int | None,
    header: Mapping[str, Any],
    *,
    beside: Mapping[str, Any] | None = None,
) -> str:
    """Name of a stored trace's content: its batches, its prompts, its router facts, all by checksum.

    What lies `beside`, adapters and vectors, counts where there is any.
    """
    facts = [header.get(name) for name in ("unit", "level", "layers")]
    held = [{name: each for name, each in (beside or {}).items() if each}]
    content = json.dumps([commits, prompts_crc, facts, *filter(None, held)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 as the uint16 codes of bfloat16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(values), BFLOAT16_NAN, rounded).astype(np.uint16)


def from_bfloat16(codes: np.ndarray) -> np.ndarray:
    """The uint16 codes of bfloat16 as float32, exactly."""
    return np.left_shift(codes, 16, dtype=np.uint32).view(np.float32)
