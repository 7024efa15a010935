"""Rows of a packed array: decompressed a chunk at a time."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from routing.errors import TraceError
from routing.store.format import from_bfloat16
from routing.store.rawrows import StoredMetadata

__all__ = ["PackedRows"]


class PackedRows:
    """The rows of a compressed array, read through the zarr library.

    Args:
        folder: the array's folder.
        n_rows: rows that the header promises.
        decoded: whether bfloat16 is handed out as float32 rather than as its codes.
    """

    def __init__(self, folder: Path, n_rows: int, *, decoded: bool = True) -> None:
        self._folder, self._n_rows, self._decoded = folder, n_rows, decoded
        self._chunk = lru_cache(maxsize=2)(self._decompressed)

    @cached_property
    def metadata(self) -> StoredMetadata:
        """What the array's zarr.json says."""
        return StoredMetadata(self._folder)

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return (self._n_rows, *self.metadata.tail)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are handed out."""
        return np.dtype(np.float32) if self._as_bfloat16 else self.metadata.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view of the decompressed chunk where they lie in one."""
        size, stop = self.metadata.chunk_rows, min(stop, self._n_rows)
        if stop <= start:
            return self._handed(np.zeros((0, *self.metadata.tail), dtype=self.metadata.dtype))
        parts = [
            self._chunk(number)[max(start - number * size, 0) : stop - number * size]
            for number in range(start // size, (stop - 1) // size + 1)
        ]
        return self._handed(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        rows = np.asarray(rows, dtype=np.int64)
        rows = np.where(rows < 0, rows + self._n_rows, rows)
        values = np.empty((len(rows), *self.metadata.tail), dtype=self.metadata.dtype)
        numbers = rows // self.metadata.chunk_rows
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = self._chunk(int(number))[rows[here] - number * self.metadata.chunk_rows]
        return self._handed(values)

    @property
    def _as_bfloat16(self) -> bool:
        return self._decoded and self.metadata.encoding == "bfloat16"

    def _handed(self, values: np.ndarray) -> np.ndarray:
        return from_bfloat16(values) if self._as_bfloat16 else values

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
