"""Adapters that were made while a model ran: one dictionary of distinct ones, and which row used which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from routing.errors import TraceError
from routing.facts import JsonFacts
from routing.rows import MemoryRows, PickedRows, Rows, labelled

__all__ = [
    "ABSENT_ADAPTER",
    "MAX_PARAMETERS",
    "MISSING_ADAPTER",
    "AdapterSite",
    "Adapters",
    "adapters_of",
    "flattened_adapter",
    "selected_set_key",
    "stored_parameters",
]

ABSENT_ADAPTER, MISSING_ADAPTER = -1, -2
"""Indices that say that no adapter was applied to a row, or one that the trace does not hold."""

MAX_PARAMETERS = 16384
"""Numbers stored of an adapter; of a larger one that many random projections are stored instead."""

N_ROWS_A_COUNT = 1 << 18


@dataclass(frozen=True, kw_only=True)
class AdapterSite(JsonFacts):
    """One place in the model where generated adapters are applied.

    Attributes:
        label: name of the place: the label of the router's layer where the router decides which adapter is applied,
            else "dec00", "L03", …
        number: number of the layer in the model, as the model counts.
        stack: which stack of the model.
        module: path of the adapter's block in the model.
        hidden: width of what goes in and comes out.
        width: width inside the adapter.
        n_parameters: numbers in one adapter: down, up and both biases.
        made_from: what an adapter is made from: the set of selected experts, the task, or the single example.
        proof: how the recording of this place was proven.
        note: what a reader must know.
    """

    label: str
    hidden: int
    width: int
    n_parameters: int
    made_from: Literal["selected_set", "task", "instance"]
    number: int = 0
    stack: str = "decoder"
    module: str = ""
    proof: str = "none"
    note: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapters:
    """The distinct adapters of a trace. Parameters are read when they are indexed.

    Attributes:
        sites: where adapters are applied.
        keys: columns site (label) and key, one row an adapter: what it was made from, as text: the selected experts in
            ascending order ("3 7"), the name of the task, or the id of the prompt.
        parameter_rows: (adapter, parameter) float32, see `parameters`.
        conditioning_rows: for each name, (adapter, feature) float32, see `conditioning`.
        n_parameters_full: numbers in the largest adapter, before any projection.
        projected: whether random projections are stored in place of the parameters.
        seed: seed of the projection.
        index: (row, site) int32, which adapter each row used; None where nobody asks.
    """

    sites: tuple[AdapterSite, ...]
    keys: pd.DataFrame
    parameter_rows: Rows
    conditioning_rows: Mapping[str, Rows] = field(default_factory=dict)
    n_parameters_full: int = 0
    projected: bool = False
    seed: int = 0
    index: Rows | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        kept = f"{self.parameters.shape[1]} projections of " if self.projected else ""
        return f"Adapters({len(self)} at {len(self.sites)} sites, {kept}{self.n_parameters_full} parameters each)"

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row an adapter: site, key, and n_uses, how many rows of the trace used it."""
        n_uses = np.zeros(len(self.keys), dtype=np.int64)
        n_rows = 0 if self.index is None else self.index.shape[0]
        for start in range(0, n_rows, N_ROWS_A_COUNT):
            assert self.index is not None
            used = self.index.read(start, min(start + N_ROWS_A_COUNT, n_rows))
            n_uses += np.bincount(used[used >= 0], minlength=len(n_uses))
        return self.keys.assign(n_uses=n_uses)

    @cached_property
    def parameters(self) -> xr.DataArray:
        """The adapters as rows of numbers.

        The order is down (hidden × width, row by row), up (width × hidden), bias of down, bias of up. Where
        `attrs["projected"]` is true the numbers are random projections, which keep lengths and angles on average.

        Returns:
            (adapter, parameter) · parameter · any; NaN beyond the end of a smaller site's adapter.
        """
        found = labelled(self.parameter_rows, ("adapter", "parameter"), self._coords())
        about = {"unit": "parameter", "projected": self.projected}
        found.attrs.update(about | {"n_parameters_full": self.n_parameters_full, "seed": self.seed})
        return found

    @cached_property
    def conditioning(self) -> dict[str, xr.DataArray]:
        """What the adapters were made from, as vectors: "selection_embedding", "hypernetwork_input", ….

        Returns:
            for each name (adapter, feature) · feature · any, or NaN where a site has none.
        """
        coords = self._coords()
        return {name: labelled(rows, ("adapter", "feature"), coords) for name, rows in self.conditioning_rows.items()}

    def site_number(self, label: str) -> int:
        """Place of a site along the site axis of `trace.adapter_index`.

        Raises:
            TraceError: there is no such site.
        """
        labels = [site.label for site in self.sites]
        if label not in labels:
            msg = f"Adapters are applied at {labels}, not at {label!r}. Choose one of these sites."
            raise TraceError(msg)
        return labels.index(label)

    def picked(self, rows: np.ndarray, sites: Sequence[AdapterSite]) -> Adapters:
        """These adapters of these sites only, numbered anew, without an index."""
        return replace(
            self,
            sites=tuple(sites),
            keys=self.keys.iloc[rows].reset_index(drop=True),
            parameter_rows=PickedRows(self.parameter_rows, rows=rows),
            conditioning_rows={name: PickedRows(each, rows=rows) for name, each in self.conditioning_rows.items()},
            index=None,
        )

    def _coords(self) -> dict[str, object]:
        names = {name: ("adapter", self.keys[name].astype(object).to_numpy()) for name in ("site", "key")}
        return {"adapter": np.arange(len(self.keys)), **names}


def adapters_of(
    sites: Sequence[AdapterSite],
    keys: pd.DataFrame,
    parameters: np.ndarray,
    *,
    conditioning: Mapping[str, np.ndarray] | None = None,
    max_parameters: int = MAX_PARAMETERS,
    seed: int = 0,
) -> Adapters:
    """Adapters in memory.

    Args:
        sites: where they are applied.
        keys: columns site and key, one row an adapter.
        parameters: (adapter, parameter), each row as `flattened_adapter` makes it, NaN beyond a smaller site's end.
        conditioning: for each name (adapter, feature).
        max_parameters: numbers kept of an adapter; above, random projections.
        seed: seed of the projection.

    Raises:
        TraceError: the parts do not fit.
    """
    named = {"parameters": np.asarray(parameters), **{k: np.asarray(v) for k, v in (conditioning or {}).items()}}
    for name, values in named.items():
        if values.ndim != 2 or len(values) != len(keys):
            msg = f"The {name} have shape {values.shape} for {len(keys)} adapters. Give one row of numbers an adapter."
            raise TraceError(msg)
    largest = max((site.n_parameters for site in sites), default=0)
    if named["parameters"].shape[1] != largest:
        msg = (
            f"The adapters have {named['parameters'].shape[1]} parameters, but the sites say {largest}. "
            "Flatten down, up and both biases, or correct n_parameters."
        )
        raise TraceError(msg)
    kept = stored_parameters(named.pop("parameters"), max_parameters=max_parameters, seed=seed)
    return Adapters(
        sites=tuple(sites),
        keys=keys[["site", "key"]].reset_index(drop=True).astype("str"),
        parameter_rows=MemoryRows(kept),
        conditioning_rows={name: MemoryRows(values.astype(np.float32)) for name, values in named.items()},
        n_parameters_full=largest,
        projected=largest > max_parameters,
        seed=seed,
    )


def flattened_adapter(
    down: np.ndarray, up: np.ndarray, bias_down: np.ndarray | None = None, bias_up: np.ndarray | None = None
) -> np.ndarray:
    """Adapters as rows of numbers, in the order in which traces keep them.

    Args:
        down: (…, hidden, width).
        up: (…, width, hidden).
        bias_down: (…, width), or None for zeros.
        bias_up: (…, hidden), or None for zeros.

    Returns:
        (…, parameter) · parameter · any.
    """
    lead = down.shape[:-2]
    hidden, width = down.shape[-2:]
    parts = [
        down.reshape(*lead, hidden * width),
        up.reshape(*lead, hidden * width),
        np.zeros((*lead, width)) if bias_down is None else bias_down,
        np.zeros((*lead, hidden)) if bias_up is None else bias_up,
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def selected_set_key(experts: Sequence[int]) -> str:
    """Key of the adapter that is made from a set of selected experts: "3 7"."""
    return " ".join(str(int(expert)) for expert in sorted(experts))


def stored_parameters(parameters: np.ndarray, *, max_parameters: int = MAX_PARAMETERS, seed: int = 0) -> np.ndarray:
    """What is kept of adapters: their parameters, or random projections where they are larger than the cap.

    The projection adds each parameter, under a random sign, to one of `max_parameters` sums; scalar products stay
    right on average, and a cosine is off by about 1/√max_parameters.

    Returns:
        (adapter, at most max_parameters) · parameter or projection · any.

    References:
        Charikar, Chen, Farach-Colton 2002 (count sketch); Weinberger et al. 2009 (feature hashing).
    """
    values = np.ascontiguousarray(parameters, dtype=np.float32)
    n_adapters, n_full = values.shape
    if n_full <= max_parameters:
        return values
    rng = np.random.default_rng(seed)
    place = rng.integers(0, max_parameters, n_full)
    sign = rng.choice(np.array([-1.0, 1.0]), n_full)
    projected = np.empty((n_adapters, max_parameters), dtype=np.float32)
    for number, row in enumerate(values):
        # Beyond the end of a smaller site's adapter there is nothing to add.
        projected[number] = np.bincount(place, weights=np.nan_to_num(row, nan=0.0) * sign, minlength=max_parameters)
    return projected
