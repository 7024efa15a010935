"""Arrays with one row a token, read a piece at a time.

A trace may be larger than memory, so its arrays are not arrays but `Rows`: they know their shape and hand out
runs of rows (as views where they can) and scattered rows (as copies).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

__all__ = ["MemoryRows", "PickedRows", "Rows", "labelled"]


class Rows(Protocol):
    """An array whose first axis is the token axis."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that are handed out."""
        ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view where possible, so not to be written into."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        ...


class MemoryRows:
    """Rows of an array in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array.view()
        self._array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop, as a view."""
        return self._array[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        return self._array[rows]


class PickedRows:
    """Some rows, and some layers, of other rows.

    Args:
        base: the rows to pick from.
        rows: numbers of the picked rows, increasing; None picks all.
        layers: numbers of the picked layers (second axis); None picks all.
        width: how much of the last axis to keep; None keeps all.
        recode: table that replaces each value, for columns whose meaning shifts with the pick.
    """

    def __init__(
        self,
        base: Rows,
        *,
        rows: np.ndarray | None = None,
        layers: np.ndarray | None = None,
        width: int | None = None,
        recode: np.ndarray | None = None,
    ) -> None:
        self._base, self._rows, self._width, self._recode = base, rows, width, recode
        # A run of layers as a slice keeps views views.
        self._layers: slice | np.ndarray | None = layers
        self._n_layers = None if layers is None else len(layers)
        if layers is not None and len(layers) and np.array_equal(layers, np.arange(layers[0], layers[-1] + 1)):
            self._layers = slice(int(layers[0]), int(layers[-1]) + 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        sizes = list(self._base.shape)
        if self._rows is not None:
            sizes[0] = len(self._rows)
        if self._n_layers is not None:
            sizes[1] = self._n_layers
        if self._width is not None:
            sizes[-1] = self._width
        return tuple(sizes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._base.dtype if self._recode is None else self._recode.dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop; a view where the picked rows lie together."""
        if self._rows is None:
            return self._picked(self._base.read(start, stop))
        rows = self._rows[start:stop]
        if len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            return self._picked(self._base.read(int(rows[0]), int(rows[-1]) + 1))
        return self._picked(self._base.take(rows))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, in the given order; a copy."""
        return self._picked(self._base.take(rows if self._rows is None else self._rows[rows]))

    def _picked(self, values: np.ndarray) -> np.ndarray:
        if self._layers is not None:
            values = values[:, self._layers]
        if self._width is not None:
            values = values[..., : self._width]
        return values if self._recode is None else self._recode[values]


class _LazyArray(BackendArray):
    """The bridge from `Rows` to xarray's lazy indexing."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.shape = rows.shape
        self.dtype = rows.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> np.ndarray:
        first, *rest = key
        if isinstance(first, slice):
            start, stop, step = first.indices(self.shape[0])
            if step < 0:
                values = self._rows.take(np.arange(start, stop, step))
            else:
                values = self._rows.read(start, max(start, stop))[::step]
        else:
            values = self._rows.take(np.atleast_1d(np.asarray(first)))
        for axis, part in enumerate(rest, start=1):
            if isinstance(part, slice):
                values = values[(slice(None),) * axis + (part,)]
            else:
                values = np.take(values, np.atleast_1d(np.asarray(part)), axis=axis)
        squeezed = tuple(axis for axis, part in enumerate(key) if isinstance(part, int | np.integer))
        return values.squeeze(axis=squeezed) if squeezed else values


def labelled(rows: Rows, dims: tuple[str, ...], coords: dict[str, Any]) -> xr.DataArray:
    """The rows as a labelled array that reads only what is indexed.

    Returns:
        dims as given · unit of the rows · range of the rows.
    """
    return xr.DataArray(xr.Variable(dims, indexing.LazilyIndexedArray(_LazyArray(rows))), coords=coords)
