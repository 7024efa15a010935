"""Rows of an uncompressed array: mapped for scans, read run by run for single tokens and their neighbours."""

from __future__ import annotations

import os
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from routing.errors import TraceError
from routing.store.storedrows import StoredMetadata, StoredRows

__all__ = ["RawRows"]

N_RUNS_BY_PREAD = 64  # mapped look-ups drag in megabytes around each row


class RawRows(StoredRows):
    """The rows of an uncompressed array, which a recording may still be adding to."""

    def __init__(self, folder: Path, n_rows: int, *, decoded: bool = True) -> None:
        super().__init__(folder, n_rows, decoded=decoded)
        self._maps: dict[int, np.ndarray] = {}

    @cached_property
    def metadata(self) -> StoredMetadata:
        """What the array's zarr.json says."""
        found = StoredMetadata(self._folder)
        if found.codecs != ["bytes"]:
            msg = f"{self._folder} is encoded by {found.codecs}, but here plain bytes are expected. Restore it."
            raise TraceError(msg)
        return found

    def _chunk(self, number: int) -> np.ndarray:
        if number not in self._maps:
            path, n_rows = self.metadata.chunk_path(number), self._rows_in(number)
            self._require_bytes(path, n_rows * self.metadata.row_bytes)
            shape = (n_rows, *self.metadata.tail)
            self._maps[number] = np.memmap(path, dtype=self.metadata.dtype, mode="r", shape=shape).view(np.ndarray)
        return self._maps[number]

    def _taken(self, rows: np.ndarray) -> np.ndarray:
        # Rows that follow one another within a chunk lie side by side in its file.
        number = rows // self.metadata.chunk_rows
        ends = np.flatnonzero((np.diff(rows) != 1) | (np.diff(number) != 0)) + 1
        if len(ends) >= N_RUNS_BY_PREAD:
            return super()._taken(rows)
        values = np.empty((len(rows), *self.metadata.tail), dtype=self.metadata.dtype)
        bounds = [0, *ends.tolist(), len(rows)]
        for start, end in pairwise(bounds):
            if end > start:
                first = int(rows[start]) - int(number[start]) * self.metadata.chunk_rows
                values[start:end] = self._pread(int(number[start]), first, n_rows=end - start)
        return values

    def _rows_in(self, number: int) -> int:
        return min(self.metadata.chunk_rows, self._n_rows - number * self.metadata.chunk_rows)

    def _pread(self, number: int, first: int, *, n_rows: int) -> np.ndarray:
        path, row_bytes = self.metadata.chunk_path(number), self.metadata.row_bytes
        self._require_bytes(path, self._rows_in(number) * row_bytes)
        fd = os.open(path, os.O_RDONLY)
        try:
            content = os.pread(fd, n_rows * row_bytes, first * row_bytes)
        finally:
            os.close(fd)
        return np.frombuffer(content, dtype=self.metadata.dtype).reshape(n_rows, *self.metadata.tail)

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
