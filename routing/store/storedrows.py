"""Rows of a stored array, whichever way its chunks are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from routing.errors import TraceError
from routing.store.files import read_json
from routing.store.format import from_bfloat16

__all__ = ["StoredMetadata", "StoredRows"]


class StoredMetadata:
    """What the zarr.json of an array says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        content = read_json(folder / "zarr.json")
        try:
            self.tail = tuple(int(size) for size in content["shape"][1:])
            self.chunk_rows = int(content["chunk_grid"]["configuration"]["chunk_shape"][0])
            self.dtype = np.dtype(content["data_type"]).newbyteorder("<")
            self.codecs = [codec["name"] for codec in content["codecs"]]
            self.encoding = content.get("attributes", {}).get("encoding")
            valid = self.chunk_rows > 0 and self.encoding in (None, "bfloat16")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            valid = False
        if not valid:
            msg = f"{folder / 'zarr.json'} describes no array of a trace. Restore it from a copy."
            raise TraceError(msg)

    @property
    def row_bytes(self) -> int:
        """Bytes of one token."""
        return self.dtype.itemsize * int(np.prod(self.tail, dtype=np.int64))

    def chunk_path(self, number: int) -> Path:
        """File of a chunk."""
        return self.folder.joinpath("c", str(number), *("0" for _ in self.tail))


class StoredRows(ABC):
    """The first `n_rows` rows of an array, read a chunk at a time.

    Args:
        folder: the array's folder.
        n_rows: how many rows are whole.
        decoded: whether bfloat16 is handed out as float32 rather than as its codes.
    """

    def __init__(self, folder: Path, n_rows: int, *, decoded: bool = True) -> None:
        self._folder, self._n_rows, self._decoded = folder, n_rows, decoded

    @cached_property
    def metadata(self) -> StoredMetadata:
        """What the array's zarr.json says."""
        return StoredMetadata(self._folder)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return (self._n_rows, *self.metadata.tail)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are handed out."""
        return np.dtype(np.float32) if self._as_bfloat16 else self.metadata.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view of the chunk where they lie in one."""
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
        if rows.size and (rows.min() < 0 or rows.max() >= self._n_rows):
            msg = f"row {int(rows.max())} is outside the {self._n_rows} rows of {self._folder.name}"
            raise IndexError(msg)
        return self._handed(self._taken(rows))

    @abstractmethod
    def _chunk(self, number: int) -> np.ndarray:
        """The rows of a chunk that are whole, as they are stored."""

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        """A copy of rows that are there, as they are stored."""
        values = np.empty((len(rows), *self.metadata.tail), dtype=self.metadata.dtype)
        numbers = rows // self.metadata.chunk_rows
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = self._chunk(int(number))[rows[here] - number * self.metadata.chunk_rows]
        return values

    @property
    def _as_bfloat16(self) -> bool:
        return self._decoded and self.metadata.encoding == "bfloat16"

    def _handed(self, values: np.ndarray) -> np.ndarray:
        return from_bfloat16(values) if self._as_bfloat16 else values
