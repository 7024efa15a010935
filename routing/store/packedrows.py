"""Rows of a packed array: decompressed a chunk at a time."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from routing.errors import TraceError
from routing.store.storedrows import StoredRows

__all__ = ["PackedRows"]


class PackedRows(StoredRows):
    """The rows of a compressed array, as many as the header promises, read through the zarr library."""

    def __init__(self, folder: Path, n_rows: int, *, decoded: bool = True) -> None:
        super().__init__(folder, n_rows, decoded=decoded)
        self._kept = lru_cache(maxsize=2)(self._decompressed)

    @cached_property
    def _array(self) -> Any:
        # Slow to import, and only packed traces need it.
        import zarr

        try:
            array = zarr.open_array(self._folder, mode="r")
        except Exception as error:
            msg = f"{self._folder} cannot be opened as a Zarr array: {error}. Restore it from a copy, or pack again."
            raise TraceError(msg) from error
        if array.shape[0] != self._n_rows:
            msg = (
                f"{self._folder} has {array.shape[0]} rows, but the header promises {self._n_rows}. "
                "Restore the folder from a copy, or pack again."
            )
            raise TraceError(msg)
        return array

    def _chunk(self, number: int) -> np.ndarray:
        return self._kept(number)

    def _decompressed(self, number: int) -> np.ndarray:
        path, array = self.metadata.chunk_path(number), self._array
        # To Zarr a missing chunk means "all fill values"; to us it is a loss.
        if not path.exists():
            msg = f"{path} is missing, but a packed trace keeps every chunk. Restore it from a copy, or pack again."
            raise TraceError(msg)
        start = number * self.metadata.chunk_rows
        try:
            values = np.asarray(array[start : min(start + self.metadata.chunk_rows, self._n_rows)])
        except Exception as error:
            msg = f"{path} cannot be decompressed: {error}. It was cut off or changed; restore it, or pack again."
            raise TraceError(msg) from error
        values.flags.writeable = False
        return values
