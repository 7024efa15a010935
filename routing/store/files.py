"""Small files written whole or not at all, and JSON read with a clear complaint."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from routing.errors import RecordingError, TraceError

__all__ = ["full_disk", "read_json", "read_table", "write_atomically", "write_json", "write_table"]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def full_disk(error: OSError, path: Path, *, kept: str) -> RecordingError:
    """What to tell when the system would not take what was written."""
    what = "there is no room left" if error.errno in NO_ROOM else (error.strerror or str(error))
    msg = f"Writing {path} failed: {what}. {kept} Free some space or choose another folder, then record the rest again."
    return RecordingError(msg)


def write_atomically(path: Path, content: bytes, *, synced: bool = False) -> None:
    """Write a file beside its place and move it there, so that no reader ever sees half of it.

    Args:
        path: the file.
        content: all of it.
        synced: whether the system is made to put it on the disk first. That also waits for what other files have
            pending, so it is not done while a model runs.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise full_disk(error, path, kept="The file was left as it had been.") from error


def write_json(path: Path, content: Any, *, synced: bool = False) -> None:
    """Write JSON atomically."""
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
    write_atomically(path, (text + "\n").encode("utf-8", "surrogatepass"), synced=synced)


def read_json(path: Path) -> Any:
    """The JSON in a file.

    Raises:
        TraceError: the file is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        msg = f"{path} is missing, but a trace needs it. Restore the file from a copy, or record again."
        raise TraceError(msg) from error
    except (ValueError, OSError) as error:
        msg = f"{path} cannot be read as JSON: {error}. It was cut off or changed; restore it, or record again."
        raise TraceError(msg) from error


def write_table(path: Path, table: pd.DataFrame) -> bytes:
    """Write a table as Parquet, atomically, each page with its checksum; gives back what was written."""
    try:
        arrow = pa.Table.from_pandas(table, preserve_index=False)
    except UnicodeEncodeError as error:
        msg = f"A text of {path.name} is not Unicode: {error}. Replace lone surrogates in the texts."
        raise TraceError(msg) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        msg = f"A column of {path.name} mixes types: {error}. Give each column one type."
        raise TraceError(msg) from error
    sink = pa.BufferOutputStream()
    # Numbers are counters or noise: building dictionaries of them costs most of the time and saves nothing.
    counters = [field.name for field in arrow.schema if pa.types.is_integer(field.type)]
    named = [field.name for field in arrow.schema if not pa.types.is_primitive(field.type)]
    pq.write_table(
        arrow,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=named,
        column_encoding={name: "DELTA_BINARY_PACKED" for name in counters},
        write_page_checksum=True,
    )
    content: bytes = sink.getvalue().to_pybytes()
    write_atomically(path, content)
    return content


def read_table(path: Path, *, columns: list[str] | None = None) -> pd.DataFrame:
    """The table in a Parquet file.

    Raises:
        TraceError: the file is missing, cut off or changed, or lacks a column.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns).to_pandas()
    except FileNotFoundError as error:
        msg = f"{path} is missing, but a trace needs it. Restore the file from a copy, or record again."
        raise TraceError(msg) from error
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        msg = f"{path} cannot be read: {error}. It was cut off or changed; restore it, or record again."
        raise TraceError(msg) from error
