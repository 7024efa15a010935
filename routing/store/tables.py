"""The Parquet tables beside the arrays: prompts, vocabulary, parts of the token table, counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from routing.chunks import PHASES, TOKEN_COLUMNS
from routing.errors import TraceError
from routing.facts import LayerFacts
from routing.rows import Rows
from routing.storage import text_column, with_prompt_columns
from routing.store.files import read_table, write_table

__all__ = ["read_counts", "read_prompts", "read_vocabulary", "write_counts", "write_token_part", "write_vocabulary"]

PROMPTS, VOCABULARY, COUNTS, TOKENS = "prompts.parquet", "vocabulary.parquet", "counts.parquet", "tokens"


def read_prompts(folder: Path, *, columns: list[str] | None = None) -> pd.DataFrame:
    """The prompt table, or some columns of it."""
    table = read_table(folder / PROMPTS, columns=columns)
    return with_prompt_columns(table) if columns is None else table


def write_vocabulary(folder: Path, pieces: Mapping[int, str]) -> None:
    """Write the pieces of text by token id."""
    ids = np.fromiter(pieces.keys(), dtype=np.int64, count=len(pieces))
    table = pd.DataFrame({"token_id": ids, "piece": text_column(list(pieces.values()), name="piece")})
    write_table(folder / VOCABULARY, table.sort_values("token_id"))


def read_vocabulary(folder: Path) -> pd.Series:
    """Pieces of text by token id; empty where none were written."""
    if not (folder / VOCABULARY).exists():
        return pd.Series([], index=pd.Index([], name="token_id", dtype="int64"), dtype="str", name="piece")
    return read_table(folder / VOCABULARY, columns=["token_id", "piece"]).set_index("token_id")["piece"]


def write_token_part(
    folder: Path, number: int, columns: Mapping[str, Rows], *, start: int, stop: int, stacks: Sequence[str]
) -> None:
    """Write tokens start to stop as a part of the token table, for readers that know Parquet only."""
    (folder / TOKENS).mkdir(exist_ok=True)
    values = {name: columns[name].read(start, stop) for name in TOKEN_COLUMNS}
    table = pd.DataFrame({"token": np.arange(start, stop), **values})
    table["phase"] = pd.Categorical.from_codes(values["phase"].astype(np.int8), categories=list(PHASES))
    table["stack"] = pd.Categorical.from_codes(values["stack"].astype(np.int8), categories=list(stacks))
    write_table(folder / TOKENS / f"part-{number:05d}.parquet", table)


def write_counts(
    folder: Path, counts: np.ndarray, *, tasks: Sequence[str], layers: Sequence[str], n_tokens: int
) -> None:
    """Write counts as one row a task and layer, the number of tokens beside them; one file, so one truth."""
    n_tasks, n_layers, n_experts = counts.shape
    table = pd.DataFrame(
        {
            "task": np.repeat(np.array(tasks, dtype=object), n_layers),
            "layer": np.tile(np.array(layers, dtype=object), n_tasks),
            "n_tokens": n_tokens,
            "counts": list(counts.reshape(-1, n_experts).astype(np.int64)),
        }
    )
    write_table(folder / COUNTS, table)


def read_counts(folder: Path, layer_facts: Sequence[LayerFacts]) -> tuple[xr.DataArray, int]:
    """The counts as (task, layer, expert), and how many tokens were counted.

    Raises:
        TraceError: the file is unreadable, or does not fit the layers.
    """
    layers, n_experts = [facts.label for facts in layer_facts], max(facts.n_experts for facts in layer_facts)
    if not (folder / COUNTS).exists():
        empty = np.zeros((0, len(layers), n_experts), dtype=np.int64)
        return _labelled_counts(empty, [], layers), 0
    table = read_table(folder / COUNTS, columns=["task", "layer", "n_tokens", "counts"])
    tasks = list(dict.fromkeys(table["task"].tolist()))
    try:
        counts = np.stack(table["counts"].to_list()).astype(np.int64).reshape(len(tasks), len(layers), n_experts)
        if table["layer"].tolist() != layers * len(tasks):
            raise ValueError("layers differ")  # noqa: EM101, TRY003
    except ValueError as error:
        msg = (
            f"{folder / COUNTS} does not fit the {len(layers)} layers of {n_experts} experts in the header: {error}. "
            "Restore the folder from a copy, or record again."
        )
        raise TraceError(msg) from error
    return _labelled_counts(counts, tasks, layers), int(table["n_tokens"].iloc[0])


def _labelled_counts(counts: np.ndarray, tasks: list[str], layers: list[str]) -> xr.DataArray:
    coords = {"task": tasks, "layer": layers, "expert": np.arange(counts.shape[2])}
    return xr.DataArray(counts, dims=("task", "layer", "expert"), coords=coords)
