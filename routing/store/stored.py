"""A trace in a folder: the header is read at once, everything else when it is asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from routing.adapters import Adapters
from routing.errors import TraceError
from routing.facts import LayerFacts, Provenance
from routing.rows import Rows
from routing.storage import Level, Unit, with_prompt_columns
from routing.store.adapters import KnownRows, StoredAdapters
from routing.store.commits import Commits, last_committed, read_commits
from routing.store.files import read_json
from routing.store.format import ZARR_GROUP, check_format, checksum, content_digest
from routing.store.rawrows import RawRows
from routing.store.tables import PROMPTS, read_counts, read_prompts, read_vocabulary
from routing.store.vectors import read_vectors, vector_checksums
from routing.trace import RoutingTrace

__all__ = ["HEADER", "StoredStorage", "batch_checksum", "open_trace"]

HEADER = "header.json"


class StoredStorage:
    """The data of a trace in a folder."""

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.header: dict[str, Any] = read_json(path / HEADER)
        check_format(self.header, path / HEADER)
        try:
            self.layer_facts: tuple[LayerFacts, ...] = tuple(
                LayerFacts.from_json(each) for each in self.header["layers"]
            )
            self.unit: Unit = self.header["unit"]
            self.level: Level = self.header["level"]
            self.n_ranks = int(self.header["n_ranks"])
            self.packed = bool(self.header.get("packed", False))
            self._arrays: tuple[str, ...] = tuple(self.header["arrays"])
            self._provenance = Provenance.from_json(self.header["provenance"])
            sound = bool(self.layer_facts) and self.level in ("full", "assignments", "counts")
        except (KeyError, TypeError, ValueError, AttributeError):
            sound = False
        if not sound:
            msg = f"{path / HEADER} lacks what a trace's header must hold. Restore it from a copy, or record again."
            raise TraceError(msg)

    @cached_property
    def commits(self) -> Commits:
        """What the commit log says; of a run that was killed, only as far as the data agrees with it."""
        said = read_commits(self.path)
        # After a power loss the log may be ahead of the data. A closed trace was whole when it was closed.
        while not self._provenance.complete and said.batches and not self._last_agrees(said):
            said = said.without_last()
        return said

    @cached_property
    def n_tokens(self) -> int:
        """Rows of the token axis that are whole."""
        if self.level == "counts":
            return read_counts(self.path, self.layer_facts)[1]
        promised = int(self.header.get("n_tokens", 0))
        # A log of small batches is long, and of a whole trace its end says enough.
        if self.packed or (self._provenance.complete and last_committed(self.path) == promised):
            return promised
        return self.commits.n_rows

    @property
    def provenance(self) -> Provenance:
        """How the trace came to be; not complete if rows are missing that the header promised."""
        known = self._provenance
        if known.complete and self.n_tokens < int(self.header.get("n_tokens", 0)):
            note = f"Only {self.n_tokens} of {self.header['n_tokens']} tokens can be read. {known.note or ''}".strip()
            return replace(known, complete=False, note=note, n_tokens=self.n_tokens)
        return known if known.n_tokens else replace(known, n_tokens=self.n_tokens)

    @cached_property
    def digest(self) -> str:
        """Name of the content: as the header says, or made from the commit log."""
        if stated := self.header.get("digest"):
            return str(stated)
        if self.level == "counts":
            counts, n_tokens = read_counts(self.path, self.layer_facts)
            return content_digest([(n_tokens, checksum(counts.values))], None, self.header)
        said = self.commits
        return content_digest(list(said.batches), said.prompts_crc, self.header, beside=self.beside)

    @property
    def beside(self) -> dict[str, Any]:
        """Checksums of what lies beside the arrays: adapters and vectors."""
        held = self.stored_adapters
        batches = [] if held is None else [list(each[:2]) for each in held.batches]
        return {"adapters": batches, "vectors": vector_checksums(self.path, self.vector_names)}

    def rows(self, name: str) -> Rows | None:
        """An array or token column by name; None if it was not recorded."""
        if name not in self._arrays:
            return None
        if name not in self._opened:
            rows = self.stored_rows(name, decoded=True)
            if name == "adapter_index":
                held = self.stored_adapters
                rows = KnownRows(rows, 0 if held is None else held.n_adapters)
            self._opened[name] = rows
        return self._opened[name]

    def require_rows(self, name: str) -> Rows:
        """An array or token column that every trace of tokens has."""
        if (rows := self.rows(name)) is None:
            msg = f"The header of {self.path} names no array {name!r}, which every trace of tokens has. Restore it."
            raise TraceError(msg)
        return rows

    def stored_rows(self, name: str, *, decoded: bool) -> Rows:
        """An array as it lies in the folder (`decoded=False`: bfloat16 as codes)."""
        folder = self.path / ZARR_GROUP / name
        if self.packed:
            from routing.store.packedrows import PackedRows

            return PackedRows(folder, self.n_tokens, decoded=decoded)
        return RawRows(folder, self.n_tokens, decoded=decoded)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the arrays in the group, in the order in which a batch is checksummed."""
        return self._arrays

    def prompts(self) -> pd.DataFrame:
        """The prompt table; empty if the run was killed before it was written."""
        return read_prompts(self.path) if self._has_prompts else with_prompt_columns(pd.DataFrame({"prompt": []}))

    def prompt_tasks(self) -> pd.DataFrame:
        """Columns task and task_type of the prompt table."""
        return self._prompt_tasks

    def vocabulary(self) -> pd.Series:
        """Pieces by token id."""
        return read_vocabulary(self.path)

    def counts(self) -> xr.DataArray | None:
        """(task, layer, expert) · assignments · 0 and up; level "counts" only."""
        return read_counts(self.path, self.layer_facts)[0] if self.level == "counts" else None

    def adapters(self) -> Adapters | None:
        """The distinct adapters, or None; without the index of who used them."""
        return None if self.stored_adapters is None else self.stored_adapters.read()

    def vectors(self) -> dict[str, xr.DataArray]:
        """Small tables read off the model or the examples, by name."""
        return read_vectors(self.path, self.vector_names, complete=self._provenance.complete)

    @cached_property
    def stored_adapters(self) -> StoredAdapters | None:
        """The dictionary of adapters as it lies in the folder."""
        facts = self.header.get("adapters")
        if facts is None:
            return None
        return StoredAdapters(self.path, facts, self.packed, self._provenance.complete)

    @property
    def adapter_sites(self) -> list[Any] | None:
        """The sites of adapters, as the header says them."""
        facts = self.header.get("adapters")
        return None if facts is None else facts["sites"]

    @property
    def vector_names(self) -> tuple[str, ...]:
        """Names of the tables in the folder of vectors."""
        return tuple(self.header.get("vectors", ()))

    @cached_property
    def _prompt_tasks(self) -> pd.DataFrame:
        if not self._has_prompts:
            return self.prompts()[["task", "task_type"]]
        return read_prompts(self.path, columns=["task", "task_type"])

    @property
    def _has_prompts(self) -> bool:
        return self.n_tokens > 0 or (self.path / PROMPTS).exists()

    @cached_property
    def _opened(self) -> dict[str, Rows]:
        return {}

    def _last_agrees(self, said: Commits) -> bool:
        stop, crc = said.batches[-1]
        start = said.batches[-2][0] if len(said.batches) > 1 else 0
        try:
            return batch_checksum(self.path, self._arrays, start=start, stop=stop) == crc
        except TraceError:
            return False


def batch_checksum(path: Path, names: tuple[str, ...], *, start: int, stop: int) -> int:
    """CRC-32 of one batch of a raw trace, array by array in the header's order."""
    crc = 0
    for name in names:
        crc = checksum(RawRows(path / ZARR_GROUP / name, stop, decoded=False).read(start, stop), crc)
    return crc


def open_trace(path: str | Path) -> RoutingTrace:
    """The trace in a folder. Only its header is read; arrays and tables are read when they are asked for.

    Of a run that was killed or is still going on, what was committed is the trace.

    Raises:
        TraceError: the folder is no trace, is damaged, or is of a format version that we do not know.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        msg = f"{folder} {what}, but a trace is a folder with a {HEADER}. Name the folder that a recording wrote."
        raise TraceError(msg)
    if not (folder / HEADER).is_file():
        if parts := sorted(folder.glob("part-*/" + HEADER)):
            from routing.store.union import union_of

            return RoutingTrace(union_of([part.parent for part in parts], path=folder))
        msg = f"{folder} is no trace: it holds no {HEADER}. Name the folder that a recording wrote."
        raise TraceError(msg)
    return RoutingTrace(StoredStorage(folder))
