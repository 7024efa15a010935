"""Where a trace's data lies: in memory, in a folder, or behind a pick from another trace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import xarray as xr

from routing.adapters import Adapters
from routing.chunks import TOKEN_ARRAYS, TOKEN_COLUMNS
from routing.errors import TraceError
from routing.facts import LayerFacts, Provenance
from routing.rows import Rows

__all__ = [
    "COLUMN_TYPES",
    "Level",
    "MemoryStorage",
    "Storage",
    "Unit",
    "id_dtype",
    "text_column",
    "with_prompt_columns",
]

Level = Literal["full", "assignments", "counts"]
Unit = Literal["token", "prompt"]

COLUMN_TYPES: Mapping[str, np.dtype] = {
    "prompt": np.dtype(np.int32),
    "position": np.dtype(np.int32),
    "token_id": np.dtype(np.int32),
    "phase": np.dtype(np.uint8),
    "stack": np.dtype(np.uint8),
    "nll": np.dtype(np.float32),
}
"""Types of the token table's columns."""

PROMPT_TEXT_COLUMNS = ("prompt", "task", "task_type", "text", "target", "prediction", "metric", "source")


class Storage(Protocol):
    """What a trace needs of the place where its data lies."""

    @property
    def path(self) -> Path | None:
        """Folder of the trace, or None in memory."""
        ...

    @property
    def digest(self) -> str:
        """Stable name of the content."""
        ...

    @property
    def unit(self) -> Unit:
        """What one row of the token axis is."""
        ...

    @property
    def level(self) -> Level:
        """How much was recorded."""
        ...

    @property
    def layer_facts(self) -> tuple[LayerFacts, ...]:
        """Facts of the routers, in the order of the layer axis."""
        ...

    @property
    def n_ranks(self) -> int:
        """Stored ranks."""
        ...

    @property
    def n_tokens(self) -> int:
        """Rows of the token axis."""
        ...

    @property
    def provenance(self) -> Provenance:
        """How the trace came to be."""
        ...

    def rows(self, name: str) -> Rows | None:
        """An array or token column by name; None if it was not recorded."""
        ...

    def require_rows(self, name: str) -> Rows:
        """An array or token column that every trace of tokens has."""
        ...

    def prompts(self) -> pd.DataFrame:
        """The prompt table."""
        ...

    def prompt_tasks(self) -> pd.DataFrame:
        """Columns task and task_type of the prompt table."""
        ...

    def vocabulary(self) -> pd.Series:
        """Pieces by token id."""
        ...

    def counts(self) -> xr.DataArray | None:
        """(task, layer, expert) · assignments · 0 and up; level "counts" only."""
        ...

    def adapters(self) -> Adapters | None:
        """The distinct adapters, or None; without the index of who used them."""
        ...

    def vectors(self) -> dict[str, xr.DataArray]:
        """Small tables read off the model or the examples, by name."""
        ...


def id_dtype(n_experts: int) -> np.dtype:
    """The smallest type that holds every expert and the mark of absence, its largest value."""
    return np.dtype(np.uint8) if n_experts <= 255 else np.dtype(np.uint16)


def text_column(values: Sequence[Any], *, name: str) -> pd.Series:
    """Values as a column of texts, None and NaN as missing.

    Raises:
        TraceError: a text holds half a surrogate pair, which UTF-8 cannot write.
    """
    try:
        texts = [None if value is None or value != value else str(value) for value in values]
        return pd.Series(texts, dtype="str", name=name)
    except UnicodeEncodeError as error:
        msg = f"A text in the column {name!r} is not Unicode: {error}. Replace half surrogate pairs in the texts."
        raise TraceError(msg) from error


def with_prompt_columns(prompts: pd.DataFrame) -> pd.DataFrame:
    """A prompt table with every column that a reader may rely on, in order, extra columns last.

    Raises:
        TraceError: there is no column `prompt`, or its values are not unique.
    """
    if "prompt" not in prompts.columns:
        msg = f"The prompt table has the columns {list(prompts.columns)} but no 'prompt'. Add an id a row."
        raise TraceError(msg)
    table = prompts.reset_index(drop=True)
    defaults: dict[str, object] = {"task": "prompts", "task_type": "other", "text": "", "score": np.nan}
    order = ["prompt", "task", "task_type", "text", "target", "prediction", "score", "metric", "source"]
    for name in order:
        if name not in table.columns:
            table[name] = defaults.get(name)
    for name in PROMPT_TEXT_COLUMNS:
        table[name] = text_column(table[name].tolist(), name=name)
    table["score"] = pd.to_numeric(table["score"]).astype("float64")
    if table["prompt"].duplicated().any():
        twice = table["prompt"][table["prompt"].duplicated()].iloc[0]
        msg = f"The prompt id {twice!r} occurs more than once, but ids must be unique. Rename the later prompt."
        raise TraceError(msg)
    return table[[*order, *(name for name in table.columns if name not in order)]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryStorage:
    """A trace's data in memory."""

    arrays: Mapping[str, Rows]
    prompt_table: pd.DataFrame
    layer_facts: tuple[LayerFacts, ...]
    n_ranks: int
    n_tokens: int
    level: Level = "full"
    unit: Unit = "token"
    provenance: Provenance = field(default_factory=Provenance)
    pieces: pd.Series | None = None
    count_table: xr.DataArray | None = None
    adapter_table: Adapters | None = None
    vector_tables: Mapping[str, xr.DataArray] = field(default_factory=dict)
    given_digest: str | None = None
    path: Path | None = None

    @property
    def digest(self) -> str:
        """Hash of every array, the prompts and the router facts."""
        if self.given_digest is not None:
            return self.given_digest
        content = hashlib.sha256(repr((self.unit, self.level, self.layer_facts)).encode())
        for name in (*TOKEN_ARRAYS, *TOKEN_COLUMNS):
            if (rows := self.arrays.get(name)) is not None:
                content.update(name.encode())
                content.update(np.ascontiguousarray(rows.read(0, self.n_tokens)).tobytes())
        if self.count_table is not None:
            content.update(np.ascontiguousarray(self.count_table.values).tobytes())
        if self.adapter_table is not None:
            content.update(self.adapter_table.keys.to_json(orient="values").encode())
            content.update(np.ascontiguousarray(self.adapter_table.parameters.values).tobytes())
        for name, table in sorted(self.vector_tables.items()):
            content.update(name.encode() + np.ascontiguousarray(table.values).tobytes())
        content.update(self.prompt_table.to_json(orient="values").encode("utf-8", "backslashreplace"))
        return content.hexdigest()[:16]

    def rows(self, name: str) -> Rows | None:
        """An array or token column by name; None if it was not recorded."""
        return self.arrays.get(name)

    def require_rows(self, name: str) -> Rows:
        """An array or token column that every trace of tokens has."""
        return self.arrays[name]

    def prompts(self) -> pd.DataFrame:
        """The prompt table."""
        return self.prompt_table

    def prompt_tasks(self) -> pd.DataFrame:
        """Columns task and task_type of the prompt table."""
        return self.prompt_table[["task", "task_type"]]

    def vocabulary(self) -> pd.Series:
        """Pieces by token id."""
        if self.pieces is None:
            return pd.Series([], index=pd.Index([], name="token_id", dtype="int64"), dtype="str", name="piece")
        return self.pieces

    def counts(self) -> xr.DataArray | None:
        """(task, layer, expert) · assignments · 0 and up; level "counts" only."""
        return self.count_table

    def adapters(self) -> Adapters | None:
        """The distinct adapters, or None; without the index of who used them."""
        return self.adapter_table

    def vectors(self) -> dict[str, xr.DataArray]:
        """Small tables read off the model or the examples, by name."""
        return dict(self.vector_tables)
