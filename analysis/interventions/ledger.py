"""Results of interventions beside a trace: each finished unit is on the disk, so that a second start goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.stored_studies import FOLDER, PARAMS, RESULT
from routing import RoutingTrace
from routing.errors import RecordingError, TraceError
from routing.store.files import read_json, read_table, write_json, write_table

__all__ = ["Progress", "StudyFolder"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study has come.

    Attributes:
        n_done: units that are on the disk, those of earlier starts included.
        n_total: units in all.
        unit: name of the unit that was done last.
    """

    n_done: int
    n_total: int
    unit: str


class StudyFolder:
    """A folder for one study: its parameters as JSON, one Parquet table a unit, and the tables made of them.

    Args:
        beside: the trace that the study belongs to, or a folder to keep it in.
        name: what the study is.
        params: everything that its units depend on; another set of parameters has another folder.
        progress: called after each unit.

    Raises:
        RecordingError: the folder cannot be written.
    """

    def __init__(
        self,
        beside: RoutingTrace | str | Path,
        name: str,
        *,
        params: Mapping[str, Any],
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if isinstance(beside, RoutingTrace):
            if beside.path is None:
                msg = "The trace is in memory, so nothing can be kept beside it. Give a folder for the results."
                raise RecordingError(msg)
            beside = beside.path / FOLDER
        text = json.dumps(params, sort_keys=True, ensure_ascii=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.path = Path(beside) / f"{name}-{key}"
        self._progress = progress
        try:
            (self.path / "units").mkdir(parents=True, exist_ok=True)
            write_json(self.path / PARAMS, {"name": name, "params": dict(params)})
        except OSError as error:
            msg = f"{self.path} cannot be written: {error}. Give another folder for the results (out=)."
            raise RecordingError(msg) from error

    def units(self, run: Mapping[str, Callable[[], pd.DataFrame]]) -> dict[str, pd.DataFrame]:
        """The table of each unit: read where an earlier start finished it, else run and written."""
        found: dict[str, pd.DataFrame] = {}
        for number, (name, measure) in enumerate(run.items()):
            path = self.path / "units" / f"{_file_name(name)}.parquet"
            table = _read(path)
            if table is None:
                table = measure()
                write_table(path, table)
            found[name] = table
            if self._progress is not None:
                self._progress(Progress(n_done=number + 1, n_total=len(run), unit=name))
        return found

    def keep(self, tables: Mapping[str, pd.DataFrame], *, about: Mapping[str, Any]) -> None:
        """Write the tables that the study has come to, and what they depend on besides the units."""
        for name, table in tables.items():
            write_table(self.path / f"{name}.parquet", table)
        write_json(self.path / RESULT, {"tables": sorted(tables), "params": dict(about)})

    @property
    def kept(self) -> dict[str, Any]:
        """What `keep` was told last of what the tables depend on; empty before."""
        try:
            return dict(read_json(self.path / RESULT)["params"])
        except (TraceError, OSError, KeyError):
            return {}

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as they were written."""
        return dict(read_json(self.path / PARAMS)["params"])


def _file_name(unit: str) -> str:
    """Of a unit's table: the unit's own, not its number, so that a study can get more units."""
    return hashlib.sha256(unit.encode()).hexdigest()[:16]


def _read(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        return read_table(path)
    except TraceError:
        return None  # cut off by a kill: measured again
