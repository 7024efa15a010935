"""The load of each expert so far, while a recording grows: counted beside the recorder, read by every session."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from app.recordings.kept import write_json
from routing import RoutingError, RoutingTrace, open_trace

__all__ = ["Live", "LiveCounts", "live_of"]

_FILE = "live.json"
_SECONDS_BETWEEN_LOOKS = 2.0
_ROWS_AT_ONCE = 32768


@dataclass(frozen=True, kw_only=True, eq=False)
class Live:
    """What the routers have chosen so far.

    Attributes:
        load: (layer, expert) · share of assignments, sums to 1 over expert; NaN where there is no expert.
        exists: (layer, expert) · which experts a layer has.
        n_rows: rows that were counted.
        unit: what a row is.
    """

    load: xr.DataArray
    exists: xr.DataArray
    n_rows: int
    unit: str


class LiveCounts:
    """Counts the rows that a growing trace has committed, those that are new each time.

    Args:
        out: folder of the trace.
        folder: where the counts are left.
    """

    def __init__(self, out: Path, folder: Path) -> None:
        self._out, self._folder = out, folder
        self._counts_LE: np.ndarray | None = None
        self._n_rows = 0
        self._looked = 0.0
        (folder / _FILE).unlink(missing_ok=True)

    def refresh(self) -> None:
        """Count what is new and leave it for whoever looks, unless that was done a moment ago."""
        if time.monotonic() - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        # What cannot be read yet is read the next time: to watch must never end a recording.
        with suppress(RoutingError, OSError):
            trace = open_trace(self._out)
            if trace.n_tokens > self._n_rows:
                self._count(trace)
                self._leave(trace)
        self._looked = time.monotonic()

    def _count(self, trace: RoutingTrace) -> None:
        if trace.counts is not None:
            self._counts_LE, self._n_rows = trace.counts.sum("task").to_numpy(), trace.n_tokens
            return
        if self._counts_LE is None:
            self._counts_LE = np.zeros((trace.n_layers, trace.n_experts), np.int64)
        experts = trace.experts
        assert experts is not None, "a trace holds counts or experts"
        top_k = [facts.top_k for facts in trace.layer_facts]
        # Taken over as a whole: what was counted before a look that failed would be counted again.
        counts_LE = self._counts_LE.copy()
        for start in range(self._n_rows, trace.n_tokens, _ROWS_AT_ONCE):
            rows_TLR = experts[start : min(start + _ROWS_AT_ONCE, trace.n_tokens)].to_numpy()
            for layer, k in enumerate(top_k):
                chosen = rows_TLR[:, layer, :k].ravel()
                found = np.bincount(chosen[chosen != trace.absent], minlength=trace.n_experts)
                counts_LE[layer] += found
        self._counts_LE, self._n_rows = counts_LE, trace.n_tokens

    def _leave(self, trace: RoutingTrace) -> None:
        assert self._counts_LE is not None, "what is left was counted"
        told = {
            "layers": list(trace.layers),
            "n_experts": [facts.n_experts for facts in trace.layer_facts],
            "counts": self._counts_LE.tolist(),
            "n_rows": self._n_rows,
            "unit": trace.unit,
        }
        write_json(self._folder / _FILE, told)


def live_of(folder: Path) -> Live | None:
    """What a recording has counted so far; None before its first batch.

    Args:
        folder: of the recording, beside the runs.
    """
    try:
        told = json.loads((folder / _FILE).read_text("utf-8"))
        counts_LE = np.array(told["counts"], dtype=np.float64)
        exists_LE = np.arange(counts_LE.shape[1]) < np.array(told["n_experts"])[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            share_LE = np.where(exists_LE, counts_LE / counts_LE.sum(axis=1, keepdims=True), np.nan)
        axes = {"layer": told["layers"], "expert": np.arange(counts_LE.shape[1])}
        return Live(
            load=xr.DataArray(share_LE, dims=("layer", "expert"), coords=axes),
            exists=xr.DataArray(exists_LE, dims=("layer", "expert"), coords=axes),
            n_rows=int(told["n_rows"]),
            unit=str(told["unit"]),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
