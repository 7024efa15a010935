"""Rows of a stored array: mapped for scans, read one by one for single tokens."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from routing.errors import TraceError
from routing.store.files import read_json
from routing.store.format import from_bfloat16

__all__ = ["RawRows", "StoredMetadata"]

N_ROWS_BY_PREAD = 64  # mapped look-ups drag in megabytes around each row


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


class RawRows:
    """The first `n_rows` rows of an uncompressed array.

    Args:
        folder: the array's folder.
        n_rows: how many rows are whole.
        decoded: whether bfloat16 is handed out as float32 rather than as its codes.
    """

    def __init__(self, folder: Path, n_rows: int, *, decoded: bool = True) -> None:
        self._folder, self._n_rows, self._decoded = folder, n_rows, decoded
        self._maps: dict[int, np.ndarray] = {}

    @cached_property
    def metadata(self) -> StoredMetadata:
        """What the array's zarr.json says."""
        found = StoredMetadata(self._folder)
        if found.codecs != ["bytes"]:
            msg = f"{self._folder} is encoded by {found.codecs}, but here plain bytes are expected. Restore it."
            raise TraceError(msg)
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return (self._n_rows, *self.metadata.tail)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are handed out."""
        return np.dtype(np.float32) if self._as_bfloat16 else self.metadata.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view of the mapped file where they lie in one chunk."""
        size = self.metadata.chunk_rows
        stop = min(stop, self._n_rows)
        parts = []
        for number in range(start // size, (max(start, stop - 1)) // size + 1):
            first = number * size
            if stop > start:
                parts.append(self._mapped(number)[max(start - first, 0) : stop - first])
        if not parts:
            return self._handed(np.zeros((0, *self.metadata.tail), dtype=self.metadata.dtype))
        return self._handed(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy. A few rows are read without mapping the file."""
        rows = np.asarray(rows, dtype=np.int64)
        rows = np.where(rows < 0, rows + self._n_rows, rows)
        if rows.size and (rows.min() < 0 or rows.max() >= self._n_rows):
            msg = f"row {int(rows.max())} is outside the {self._n_rows} rows of {self._folder.name}"
            raise IndexError(msg)
        values = np.empty((len(rows), *self.metadata.tail), dtype=self.metadata.dtype)
        size = self.metadata.chunk_rows
        if len(rows) <= N_ROWS_BY_PREAD:
            for place, row in enumerate(rows):
                values[place] = self._pread(*divmod(int(row), size))
            return self._handed(values)
        numbers = rows // size
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = self._mapped(int(number))[rows[here] - number * size]
        return self._handed(values)

    @property
    def _as_bfloat16(self) -> bool:
        return self._decoded and self.metadata.encoding == "bfloat16"

    def _handed(self, values: np.ndarray) -> np.ndarray:
        return from_bfloat16(values) if self._as_bfloat16 else values

    def _rows_in(self, number: int) -> int:
        return min(self.metadata.chunk_rows, self._n_rows - number * self.metadata.chunk_rows)

    def _mapped(self, number: int) -> np.ndarray:
        if number not in self._maps:
            path, n_rows = self.metadata.chunk_path(number), self._rows_in(number)
            self._require_bytes(path, n_rows * self.metadata.row_bytes)
            shape = (n_rows, *self.metadata.tail)
            self._maps[number] = np.memmap(path, dtype=self.metadata.dtype, mode="r", shape=shape).view(np.ndarray)
        return self._maps[number]

    def _pread(self, number: int, row: int) -> np.ndarray:
        path, row_bytes = self.metadata.chunk_path(number), self.metadata.row_bytes
        self._require_bytes(path, self._rows_in(number) * row_bytes)
        fd = os.open(path, os.O_RDONLY)
        try:
            content = os.pread(fd, row_bytes, row * row_bytes)
        finally:
            os.close(fd)
        return np.frombuffer(content, dtype=self.metadata.dtype).reshape(self.metadata.tail)

    def _require_bytes(self, path: Path, n_bytes: int) -> None:
        try:
            found = path.stat().st_size
        except OSError as error:
            msg = f"{path} is missing, but the trace says that its rows are whole. Restore the file from a copy."
            raise TraceError(msg) from error
        if found < n_bytes:
            msg = (
                f"{path} has {found} bytes, but its whole rows take {n_bytes}. It was cut off; restore it from a copy."
            )
            raise TraceError(msg)
