"""Small labelled tables beside the arrays: prototypes, embeddings, similarities."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from routing.errors import RecordingError, TraceError
from routing.store.files import read_json, write_atomically, write_json
from routing.store.format import checksum
from routing.store.labels import described, labelled_again

__all__ = ["VECTORS", "read_vectors", "require_vectors", "vector_checksums", "write_vectors"]

VECTORS = "vectors"


def require_vectors(tables: Mapping[str, xr.DataArray]) -> None:
    """Refuse tables that cannot be stored.

    Raises:
        RecordingError: a name, a type of values or a coordinate cannot be written.
    """
    for name, table in tables.items():
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            msg = f"{name!r} cannot name vectors; letters, digits and '_' can. Choose such a name."
            raise RecordingError(msg)
        if table.dtype.kind not in "fiub":
            msg = f"The vectors {name!r} are of type {table.dtype}, but only numbers are kept. Convert them."
            raise RecordingError(msg)
        if table.dtype.kind == "f" and np.isinf(table.values).any():
            msg = f"The vectors {name!r} hold infinite numbers. Check the checkpoint and its precision."
            raise RecordingError(msg)


def write_vectors(folder: Path, tables: Mapping[str, xr.DataArray]) -> None:
    """Write tables into a trace's folder, each as NAME.npy and NAME.json."""
    require_vectors(tables)
    (folder / VECTORS).mkdir(exist_ok=True)
    for name, table in tables.items():
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(table.values), allow_pickle=False)
        write_atomically(folder / VECTORS / f"{name}.npy", content.getvalue())
        about = described(table) | {"crc32": f"{checksum(content.getvalue()):08x}"}
        write_json(folder / VECTORS / f"{name}.json", about)


def read_vectors(folder: Path, names: Sequence[str], *, complete: bool) -> dict[str, xr.DataArray]:
    """The tables that a header names.

    Args:
        folder: the trace's folder.
        names: what the header names.
        complete: whether the run came to its end; if it did not, what is not whole is left out.

    Raises:
        TraceError: a table of a complete run is missing or was changed.
    """
    found = {}
    for name in names:
        try:
            about = read_json(folder / VECTORS / f"{name}.json")
            content = (folder / VECTORS / f"{name}.npy").read_bytes()
            if f"{checksum(content):08x}" != about["crc32"]:
                raise ValueError("its checksum differs")  # noqa: EM101, TRY003
            found[name] = labelled_again(np.load(io.BytesIO(content), allow_pickle=False), about)
        except (OSError, ValueError, KeyError, TypeError, TraceError) as error:
            if complete:
                msg = f"The vectors {name!r} of {folder} cannot be read: {error}. Restore {VECTORS}/ from a copy."
                raise TraceError(msg) from error
    return found


def vector_checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Checksum of each table, as written beside it; those that cannot be read are left out."""
    found = {}
    for name in names:
        try:
            found[name] = str(read_json(folder / VECTORS / f"{name}.json")["crc32"])
        except (TraceError, KeyError, TypeError):
            continue
    return found
