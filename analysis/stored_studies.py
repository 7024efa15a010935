"""Interventions that were run on the model of a trace, read from beside it without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from routing import RoutingTrace
from routing.errors import TraceError
from routing.store.files import read_json, read_table

__all__ = ["FOLDER", "PARAMS", "RESULT", "StoredStudy", "stored_studies", "studies_stamp"]

FOLDER, PARAMS, RESULT = "interventions", "params.json", "result.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredStudy:
    """One finished study.

    Attributes:
        name: "knock-out", "selection-embedding" or "prototypes".
        path: its folder.
        params: what its passes depend on, and what its tables do.
        tables: by name, as the function that made them says (docs/metrics.md).
    """

    name: str
    path: Path
    params: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]


def stored_studies(trace: RoutingTrace, *, name: str | None = None) -> list[StoredStudy]:
    """The finished studies beside a trace, the newest first; one that cannot be read is passed over.

    Args:
        trace: the trace; in memory it has none.
        name: only studies of this kind.
    """
    if trace.path is None or not (trace.path / FOLDER).is_dir():
        return []
    found: list[tuple[float, StoredStudy]] = []
    for folder in (trace.path / FOLDER).iterdir():
        try:
            begun, done = read_json(folder / PARAMS), read_json(folder / RESULT)
            if name is not None and begun["name"] != name:
                continue
            tables = {each: read_table(folder / f"{each}.parquet") for each in done["tables"]}
            params = {**begun["params"], **done["params"]}
            study = StoredStudy(name=begun["name"], path=folder, params=params, tables=tables)
            found.append(((folder / RESULT).stat().st_mtime, study))
        except (TraceError, OSError, KeyError, TypeError):
            continue
    return [study for _, study in sorted(found, key=lambda pair: (-pair[0], pair[1].path.name))]


def studies_stamp(trace: RoutingTrace) -> tuple[tuple[str, int, int], ...]:
    """What changes when a study beside a trace is finished, enlarged or taken away; for keys of what reads them.

    Args:
        trace: the trace; in memory it has none.

    Returns:
        (study) · name of its folder, time and size of its result · sorted.
    """
    if trace.path is None:
        return ()
    found = []
    for path in (trace.path / FOLDER).glob(f"*/{RESULT}"):
        try:
            at = path.stat()
        except OSError:
            continue  # taken away meanwhile
        found.append((path.parent.name, at.st_mtime_ns, at.st_size))
    return tuple(sorted(found))
