"""One array of the Zarr group, written by plain append, without the zarr library."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from routing.store.files import write_json
from routing.store.format import ArraySpec

__all__ = ["ArrayAppender", "finish_array"]


class ArrayAppender:
    """Appends rows to an array's chunk files.

    A chunk file gets its full size when it is made, so that readers of the Zarr format find whole chunks, and the
    shape in zarr.json grows whenever a full chunk is committed.
    """

    def __init__(self, group: Path, spec: ArraySpec) -> None:
        self.spec, self.n_rows = spec, 0
        self._group, self._fd, self._n_published = group, -1, 0
        (group / spec.name).mkdir(parents=True)
        write_json(group / spec.name / "zarr.json", spec.metadata(0))

    def append(self, rows: np.ndarray) -> None:
        """Write rows after those written before; `rows` is contiguous and of the stored type."""
        content = rows.data.cast("B") if rows.size else memoryview(b"")
        row_bytes, chunk_rows = self.spec.row_bytes, self.spec.chunk_rows
        written = 0
        while written < len(rows):
            number, row = divmod(self.n_rows, chunk_rows)
            if row == 0:
                self._open(number)
            count = min(len(rows) - written, chunk_rows - row)
            _write_all(self._fd, content[written * row_bytes : (written + count) * row_bytes], row * row_bytes)
            written += count
            self.n_rows += count

    def publish(self) -> None:
        """Let readers of the Zarr format see the chunks that are full; to be called when their rows are committed."""
        full = self.n_rows // self.spec.chunk_rows
        if full > self._n_published:
            self._n_published = full
            shape = full * self.spec.chunk_rows
            write_json(self._group / self.spec.name / "zarr.json", self.spec.metadata(shape))

    def sync(self) -> None:
        """Have the system put the open chunk on the disk."""
        if self._fd >= 0:
            os.fsync(self._fd)

    def close(self) -> None:
        """Close the open chunk; the appender can be closed twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, number: int) -> None:
        self.close()
        path = self.spec.chunk_path(self._group, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._fd, self.spec.chunk_bytes)


def _write_all(fd: int, content: memoryview, offset: int) -> None:
    while len(content):
        count = os.pwrite(fd, content, offset)
        content, offset = content[count:], offset + count


def finish_array(group: Path, spec: ArraySpec, n_rows: int) -> None:
    """Make an array of `n_rows` whole rows well-formed: its shape, its tail, nothing beyond.

    An array of a single chunk is cut to its rows, so that small traces are small.
    """
    last = max(0, n_rows - 1) // spec.chunk_rows
    beyond = last + 1 if n_rows else 0
    while (path := spec.chunk_path(group, beyond)).exists():
        path.unlink()
        beyond += 1
    metadata = group / spec.name / "zarr.json"
    if n_rows == 0 or last > 0:
        if n_rows:
            os.truncate(spec.chunk_path(group, last), spec.chunk_bytes)
        write_json(metadata, spec.metadata(n_rows))
        return
    write_json(metadata, spec.metadata(n_rows, chunk_rows=n_rows))
    os.truncate(spec.chunk_path(group, 0), n_rows * spec.row_bytes)
