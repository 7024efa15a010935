"""What stands beside the routing of a trace: generated adapters, and small tables of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from hooks.adapter_books import AdapterBook
from hooks.assembly import RowBatch
from hooks.vectors import InstanceVectors
from routing import AdapterSite, TraceWriter

__all__ = ["Beside"]


class Beside:
    """Writes adapters and vectors into a trace while its rows are written.

    Args:
        vectors: tables read off the model.
        book: the dictionary of adapters, or None where the model generates none.
    """

    def __init__(self, vectors: Mapping[str, xr.DataArray], *, book: AdapterBook | None = None) -> None:
        self._vectors, self._book = dict(vectors), book
        self._instances = InstanceVectors()

    @property
    def sites(self) -> tuple[AdapterSite, ...]:
        """Where adapters are applied."""
        return () if self._book is None else self._book.sites

    @property
    def note(self) -> str | None:
        """What a reader must know, or None."""
        return None if self._book is None else self._book.note

    def begin(self, writer: TraceWriter) -> None:
        """Write what the weights alone say."""
        if self._vectors:
            writer.set_vectors(self._vectors)

    def take(self, batch: RowBatch, *, name_of_prompt: Callable[[int], str]) -> None:
        """Complete a batch by the adapters of its rows; on the writing thread."""
        if self._book is not None:
            index, ratio = self._book.rows(batch, name_of_prompt=name_of_prompt)
            batch.arrays.update(adapter_index=index, adapter_ratio=ratio)
        if "instance" in batch.carried:
            names = [name_of_prompt(int(each)) for each in batch.columns["prompt"]]
            self._instances.take(names, batch.carried["instance"])

    def errands(self, writer: TraceWriter) -> list[Callable[[], Any]]:
        """What the writing thread is to write: the adapters that were new. For the recording thread, which makes them.

        Raises:
            RecordingError: the weights that generate adapters have changed.
        """
        supplies = [] if self._book is None else self._book.supplies()
        return [
            lambda each=each: writer.add_adapters(each.keys, parameters=each.parameters, conditioning=each.conditioning)
            for each in supplies
        ]

    def finish(self, writer: TraceWriter) -> None:
        """Write what is left, once the writing thread has ended."""
        for errand in self.errands(writer):
            errand()
        if found := self._instances.table():
            writer.set_vectors(found)
