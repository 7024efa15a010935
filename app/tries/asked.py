"""A text that somebody typed: what is asked of a model about it, and what comes back, as files of one folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from app.recordings.kept import write_json
from routing import RoutingTrace, open_trace

__all__ = ["PROMPT", "Changed", "Found", "TryRequest", "found_in", "leave", "read_request", "write_request"]

# Name of the one prompt of such a trace.
PROMPT = "text"
Kind = Literal["runner_up", "expert", "knock_out"]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """What is changed while the text is read, as `analysis.interventions.Change` has it."""

    kind: Kind
    layer: str
    expert: int | None = None
    position: int | None = None


@dataclass(frozen=True, kw_only=True)
class TryRequest:
    """What is asked.

    Attributes:
        model: folder of the model.
        text: what was typed; None where the model is only to be loaded.
        task: told to the model as the task of the text.
        change: what is changed while it is read.
    """

    model: str
    text: str | None = None
    task: str | None = None
    change: Changed | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What came back.

    Attributes:
        trace: the routing of the text, with what was asked to be changed.
        likeliest: position, token_id, piece and probability; or before and after, where something was changed.
        tokens: position, nll_before, nll_after, divergence, where something was changed.
        runner_ups: as `analysis.interventions.ChangedText` has it.
        taken_out, put_in: experts that were exchanged, or the one that was knocked out.
        why_not: why nothing can be changed in this model, in a sentence; empty where it can.
    """

    trace: RoutingTrace
    likeliest: pd.DataFrame
    tokens: pd.DataFrame | None = None
    runner_ups: pd.DataFrame | None = None
    taken_out: int | None = None
    put_in: int | None = None
    why_not: str = ""


def write_request(folder: Path, request: TryRequest) -> None:
    """Write into a folder what is asked."""
    write_json(folder / "request.json", asdict(request))


def read_request(folder: Path) -> TryRequest:
    """Read what is asked, and leave no copy of the text behind.

    Raises:
        FileNotFoundError: whoever asked has gone, and the folder with it.
    """
    path = folder / "request.json"
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.unlink()
    change = told.pop("change")
    return TryRequest(**told, change=None if change is None else Changed(**change))


def leave(folder: Path, tables: dict[str, pd.DataFrame], **about: Any) -> None:
    """Write what was found beside the trace."""
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    write_json(folder / "about.json", about)


def found_in(folder: Path) -> Found:
    """What was found, from the folder that it was left in; the trace is read as long as that is there."""
    tables = {path.stem: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    return Found(trace=open_trace(folder / "trace"), **tables, **json.loads((folder / "about.json").read_text("utf-8")))
