"""Rows of task files, each with the place it came from."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from routing.errors import TaskError

__all__ = ["PlacedRow", "hub_rows", "rows_of_file"]

PlacedRow = tuple[str, dict[str, Any]]
"""Where a row stands, for error messages, and its values by column."""

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
SPLITS_BY_PREFERENCE = ("validation", "test", "train")


def rows_of_file(path: Path) -> list[PlacedRow]:
    """The rows of a JSONL, CSV or Parquet file.

    Raises:
        TaskError: the file is missing, empty, of another kind, or malformed; a line number says where.
    """
    if not path.exists():
        msg = f"{path} does not exist. Correct the path of the task file."
        raise TaskError(msg)
    readers = {".jsonl": _jsonl_rows, ".gz": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix) if path.name.endswith(SUFFIXES) else None
    if reader is None:
        msg = f"{path} is no task file: its name ends in none of {list(SUFFIXES)}. Convert it to one of these."
        raise TaskError(msg)
    if not path.is_file():
        msg = f"{path} is no file. Name a file, or a folder that holds task files."
        raise TaskError(msg)
    rows = list(reader(path))
    if not rows:
        msg = f"{path} holds no rows, but a task needs at least one prompt. Add rows, or leave the file out."
        raise TaskError(msg)
    return rows


def hub_rows(source: str) -> list[PlacedRow]:
    """The rows of a data set of the Hugging Face hub, named "hf:NAME[:CONFIG][:SPLIT]".

    Numbers of class labels become their names, and answers given as {"text": [...]} become that list.

    Raises:
        TaskError: the `datasets` package is missing, or cannot load the set.
    """
    try:
        import datasets
    except ImportError as error:
        msg = f"{source} is read with the package `datasets`, which is not installed. Install it, or give a file."
        raise TaskError(msg) from error
    name, *rest = source.removeprefix("hf:").split(":")
    known_splits = ("train", "validation", "test", "dev")
    split = rest.pop() if rest and (len(rest) == 2 or rest[-1].split("[")[0] in known_splits) else None
    config = rest[0] if rest else None
    try:
        if split is None:
            offered = datasets.get_dataset_split_names(name, config)
            split = next((each for each in SPLITS_BY_PREFERENCE if each in offered), offered[0])
        dataset = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the package raises errors of many libraries
        msg = f"{source} cannot be loaded: {error}. Check the name and the network, or give a file."
        raise TaskError(msg) from error
    labels = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")}
    rows = []
    for number, row in enumerate(dataset):
        plain = {
            column: labels[column][value] if column in labels and isinstance(value, int) and value >= 0 else value
            for column, value in row.items()
        }
        rows.append((f"{source}, row {number}", {column: _plain(value) for column, value in plain.items()}))
    return rows


def _jsonl_rows(path: Path) -> Iterator[PlacedRow]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        msg = f"{path} cannot be read: {error}. It was cut off or changed; fetch it again."
        raise TaskError(msg) from error
    for number, line in enumerate(_utf8(content, path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            msg = f"{where} is not JSON: {error}. Write one object a line."
            raise TaskError(msg) from error
        if not isinstance(row, dict):
            msg = f"{where} holds a {type(row).__name__}, but an object was expected. Write one object a line."
            raise TaskError(msg)
        yield where, row


def _csv_rows(path: Path) -> Iterator[PlacedRow]:
    _utf8(path.read_bytes(), path)
    try:
        with warnings.catch_warnings():
            # Pandas would cut a line that is longer than the first, with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
        msg = f"{path} is not a CSV table: {error}. Give each line the columns of the first."
        raise TaskError(msg) from error
    for number, row in enumerate(table.to_dict("records")):
        yield f"{path}, row {number + 1}", {str(name): value for name, value in row.items()}


def _parquet_rows(path: Path) -> Iterator[PlacedRow]:
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        msg = f"{path} is not a Parquet table: {error}. It was cut off or changed; write it again."
        raise TaskError(msg) from error
    for number, row in enumerate(table.to_dict("records")):
        yield f"{path}, row {number + 1}", {str(name): _plain(value) for name, value in row.items()}


def _utf8(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        msg = f"{path}, line {line} is not UTF-8: byte {content[error.start]:#04x} at {error.start}. Save it as UTF-8."
        raise TaskError(msg) from error


def _plain(value: Any) -> Any:
    """Values of a table or a data set as plain Python."""
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
