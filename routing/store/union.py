"""Several parts, one trace: what the ranks of a parallel run wrote, end to end."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from routing.adapters import Adapters
from routing.errors import TraceError
from routing.facts import LayerFacts, Provenance
from routing.rows import Rows
from routing.storage import Level, Unit, with_prompt_columns
from routing.store.stored import StoredStorage

__all__ = ["JoinedRows", "UnionStorage", "union_of"]


class JoinedRows:
    """Rows of several parts, end to end; prompt numbers can be shifted, other numbers recoded, part by part.

    Args:
        parts: the rows.
        shifts: what is added to the values of each part.
        recodes: for each part a table that replaces its values; the last entries answer for negative ones.
    """

    def __init__(
        self,
        parts: Sequence[Rows],
        *,
        shifts: Sequence[int] | None = None,
        recodes: Sequence[np.ndarray] | None = None,
    ) -> None:
        self._parts, self._shifts, self._recodes = list(parts), shifts, recodes
        self._ends = np.cumsum([part.shape[0] for part in self._parts])

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return (int(self._ends[-1]), *self._parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._parts[0].dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view where they lie in one part that is not shifted."""
        found = []
        for number, part in enumerate(self._parts):
            first = int(self._ends[number]) - part.shape[0]
            low, high = max(start - first, 0), min(stop - first, part.shape[0])
            if low < high:
                found.append(self._shifted(part.read(low, high), number))
        if not found:
            return self._parts[0].read(0, 0)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        rows = np.asarray(rows, dtype=np.int64)
        rows = np.where(rows < 0, rows + self.shape[0], rows)
        values = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers):
            here, part = numbers == number, self._parts[number]
            values[here] = self._shifted(part.take(rows[here] - (int(self._ends[number]) - part.shape[0])), int(number))
        return values

    def _shifted(self, values: np.ndarray, number: int) -> np.ndarray:
        if self._recodes is not None:
            return self._recodes[number][values]
        return values if self._shifts is None else values + values.dtype.type(self._shifts[number])


class UnionStorage:
    """The data of several part folders as one."""

    def __init__(self, parts: Sequence[StoredStorage], *, path: Path) -> None:
        self.path: Path = path
        self.parts = list(parts)
        first = self.parts[0]
        self.unit: Unit = first.unit
        self.level: Level = first.level
        self.layer_facts: tuple[LayerFacts, ...] = first.layer_facts
        self.n_ranks = first.n_ranks

    @cached_property
    def n_tokens(self) -> int:
        """Rows of the token axis of all parts."""
        return sum(part.n_tokens for part in self.parts)

    @cached_property
    def digest(self) -> str:
        """Name of the content: that of all parts, in order."""
        return hashlib.sha256(" ".join(part.digest for part in self.parts).encode()).hexdigest()[:16]

    @property
    def provenance(self) -> Provenance:
        """How the first part came to be, with the sums of all."""
        known = [part.provenance for part in self.parts]
        return replace(
            known[0],
            n_tokens=self.n_tokens,
            n_bytes=sum(each.n_bytes for each in known),
            n_dropped_records=sum(each.n_dropped_records for each in known),
            complete=all(each.complete for each in known),
        )

    def rows(self, name: str) -> Rows | None:
        """An array or token column by name; None if it was not recorded."""
        return self.stored_rows(name, decoded=True)

    def require_rows(self, name: str) -> Rows:
        """An array or token column that every trace of tokens has."""
        if (rows := self.rows(name)) is None:
            return self.parts[0].require_rows(name)
        return rows

    def stored_rows(self, name: str, *, decoded: bool) -> Rows | None:
        """An array as it lies in the folders (`decoded=False`: bfloat16 as codes)."""
        # A rank that was killed before its first batch has no arrays.
        begun = [part for part in self.parts if part.n_tokens]
        if not begun or any(name not in part.array_names for part in begun):
            return None
        if name == "adapter_index":
            recodes = [self._adapter_numbers[self.parts.index(part)] for part in begun]
            return JoinedRows([part.require_rows(name) for part in begun], recodes=recodes)
        shifts = [self._first_prompt[self.parts.index(part)] for part in begun] if name == "prompt" else None
        return JoinedRows([part.stored_rows(name, decoded=decoded) for part in begun], shifts=shifts)

    def prompts(self) -> pd.DataFrame:
        """The prompt tables of all parts."""
        return with_prompt_columns(pd.concat([part.prompts() for part in self.parts], ignore_index=True))

    def prompt_tasks(self) -> pd.DataFrame:
        """Columns task and task_type of the prompt table."""
        return pd.concat([part.prompt_tasks() for part in self.parts], ignore_index=True)

    def vocabulary(self) -> pd.Series:
        """Pieces by token id."""
        pieces = pd.concat([part.vocabulary() for part in self.parts])
        return pieces[~pieces.index.duplicated()].sort_index()

    def counts(self) -> xr.DataArray | None:
        """(task, layer, expert) · assignments · 0 and up; level "counts" only."""
        tables = [table for part in self.parts if (table := part.counts()) is not None]
        if not tables:
            return None
        tasks = list(dict.fromkeys(task for table in tables for task in table["task"].values.tolist()))
        filled = [table.reindex(task=tasks, fill_value=0) for table in tables]
        total = filled[0]
        for table in filled[1:]:
            total = total + table
        return total

    def adapters(self) -> Adapters | None:
        """The distinct adapters of all parts, each once, or None; without the index of who used them."""
        held = self._adapters_of_parts
        if not held:
            return None
        names = list(held[0].conditioning_rows)
        joined = replace(
            held[0],
            keys=pd.concat([each.keys for each in held], ignore_index=True),
            parameter_rows=JoinedRows([each.parameter_rows for each in held]),
            conditioning_rows={name: JoinedRows([each.conditioning_rows[name] for each in held]) for name in names},
        )
        return joined.picked(np.flatnonzero(~joined.keys.duplicated()), joined.sites)

    def vectors(self) -> dict[str, xr.DataArray]:
        """Small tables read off the model (of the first part that has them) or the examples (of all parts)."""
        found: dict[str, xr.DataArray] = {}
        for part in self.parts:
            for name, table in part.vectors().items():
                if name in found and table.dims[0] == "prompt":
                    found[name] = xr.concat([found[name], table], dim="prompt")
                found.setdefault(name, table)
        return found

    @cached_property
    def _adapters_of_parts(self) -> list[Adapters]:
        # A rank that was killed before its first adapter knows neither names nor sizes of what they are made from.
        held = [part.adapters() for part in self.parts]
        return [each for each in held if each is not None and len(each)] or [e for e in held[:1] if e is not None]

    @cached_property
    def _adapter_numbers(self) -> list[np.ndarray]:
        """For each part, the number in the union of each of its adapters; the marks of absence stay."""
        adapters = self.adapters()
        keys = [] if adapters is None else adapters.keys.itertuples(index=False, name=None)
        number_of = {key: number for number, key in enumerate(keys)}
        recodes = []
        for part in self.parts:
            held = part.adapters()
            own = [] if held is None else held.keys.itertuples(index=False, name=None)
            recodes.append(np.array([*(number_of[key] for key in own), -2, -1], dtype=np.int32))
        return recodes

    @cached_property
    def _first_prompt(self) -> list[int]:
        lengths = [len(part.prompt_tasks()) for part in self.parts]
        return [0, *np.cumsum(lengths).tolist()]


def union_of(folders: Sequence[Path], *, path: Path) -> UnionStorage:
    """The parts as one trace.

    Raises:
        TraceError: the parts were not written by one run: their routers, level or ranks differ.
    """
    parts = [StoredStorage(folder) for folder in folders]
    first = parts[0]
    for part in parts[1:]:
        if (part.layer_facts, part.level, part.unit, part.n_ranks, part.adapter_sites) != (
            first.layer_facts, first.level, first.unit, first.n_ranks, first.adapter_sites,
        ):  # fmt: skip
            msg = (
                f"{part.path} and {first.path} differ in routers, level or ranks, but parts of one trace agree. "
                "Keep the parts of different runs in different folders."
            )
            raise TraceError(msg)
    return UnionStorage(parts, path=path)
