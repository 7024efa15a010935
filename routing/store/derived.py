"""Results made from a trace and kept beside it, each with its parameters and what it was made from."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from routing.errors import RecordingError, RoutingError, TraceError
from routing.store.files import read_json, read_table, write_json, write_table
from routing.store.labels import described, labelled_again
from routing.trace import RoutingTrace

__all__ = ["load_derived", "save_derived"]

RESULT, VERSION = "result.json", 1


def save_derived(
    trace: RoutingTrace, name: str, results: Mapping[str, Any], *, params: Mapping[str, Any]
) -> Path | None:
    """Keep results beside a trace, under a name and the parameters that made them.

    Args:
        trace: what the results were made from.
        name: what they are: letters, digits, "-" and "_".
        results: tables, arrays, labelled arrays, and what JSON can say.
        params: everything that the results depend on besides the trace.

    Returns:
        The folder; None where nothing can be kept: a trace in memory, or a folder that cannot be written.
    """
    folder = _folder(trace, name, params)
    if folder is None:
        return None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    except OSError:
        return None
    try:
        kinds = {key: _write(beside, key, value) for key, value in results.items()}
        about = {"version": VERSION, "name": name, "params": dict(params), "digest": trace.digest, "results": kinds}
        write_json(beside / RESULT, about)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
    except (OSError, RecordingError):
        shutil.rmtree(beside, ignore_errors=True)
        return None
    return folder


def load_derived(trace: RoutingTrace, name: str, *, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Results kept under a name and these parameters for this very content; None where there are none.

    Results that cannot be read count as none: they can be made again.
    """
    folder = _folder(trace, name, params)
    if folder is None or not (folder / RESULT).exists():
        return None
    try:
        about = read_json(folder / RESULT)
        if about["version"] != VERSION or about["digest"] != trace.digest:
            return None
        return {key: _read(folder, key, kind) for key, kind in about["results"].items()}
    except (RoutingError, OSError, ValueError, KeyError, TypeError):
        return None


def _folder(trace: RoutingTrace, name: str, params: Mapping[str, Any]) -> Path | None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        msg = f"{name!r} cannot name a result; letters, digits, '-' and '_' can. Choose such a name."
        raise TraceError(msg)
    if trace.path is None:
        return None
    key = json.dumps([trace.digest, dict(params)], sort_keys=True, default=str)
    return trace.path / "derived" / name / hashlib.sha256(key.encode()).hexdigest()[:16]


def _write(folder: Path, key: str, value: Any) -> dict[str, Any]:
    """Write one result; what is needed to read it back."""
    if isinstance(value, pd.DataFrame):
        write_table(folder / f"{key}.parquet", value.reset_index() if value.index.names != [None] else value)
        return {"kind": "table", "index": [name for name in value.index.names if name is not None]}
    if isinstance(value, xr.DataArray):
        np.save(folder / f"{key}.npy", np.ascontiguousarray(value.values), allow_pickle=False)
        return {"kind": "labelled"} | described(value)
    if isinstance(value, np.ndarray):
        np.save(folder / f"{key}.npy", value, allow_pickle=False)
        return {"kind": "array"}
    return {"kind": "value", "value": value}


def _read(folder: Path, key: str, kind: Mapping[str, Any]) -> Any:
    if kind["kind"] == "table":
        table = read_table(folder / f"{key}.parquet")
        return table.set_index(kind["index"]) if kind["index"] else table
    if kind["kind"] == "value":
        return kind["value"]
    array = np.load(folder / f"{key}.npy", allow_pickle=False)
    if kind["kind"] == "array":
        return array
    return labelled_again(array, kind)
