"""Questions whose answers may take more than a second: the page is drawn without them, and again when they are there.

What such a question gives is tables, which travel from the process that made them as files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from app import cache, status
from app.jobs import Job, Jobs
from app.waiting import found_or_waiting
from routing import RoutingTrace, Selection

__all__ = ["Tables", "cells_to_scan", "leave", "tables", "tables_or_job"]

Tables = dict[str, pd.DataFrame]

_NARROWING = ("tasks", "layers", "prompts")


def cells_to_scan(trace: RoutingTrace) -> int:
    """Decisions of the trace, tokens × layers: what most questions take time for."""
    return trace.n_tokens * max(1, trace.n_layers)


def tables(
    trace: RoutingTrace,
    function: Callable[..., Tables],
    *,
    what: str,
    slow: bool,
    within: Selection | None = None,
    **options: Any,
) -> Tables | None:
    """What `function(trace, **options)` gives; None while it is being found, which the page then says.

    Args:
        trace: the trace.
        function: of a module, from a trace to tables.
        what: what is being done, such as "Tasks are being clustered".
        slow: whether it may take longer than a reader should wait for a page.
        within: narrows the trace to these tasks, layers and prompts first.
        options: keyword arguments, as JSON can write them.
    """
    if not slow or trace.path is None:
        with status.doing(what):
            return cache.answer(trace, function, within=within, **options)
    return found_or_waiting(
        lambda: tables_or_job(trace, function, jobs=cache.jobs(), within=within, **options),
        what,
        failed=f"{what}: this ended with an error.",
    )


def tables_or_job(
    trace: RoutingTrace, function: Callable[..., Tables], *, jobs: Jobs, within: Selection | None = None, **options: Any
) -> Tables | Job:
    """The tables if this server has found them, else the job that is finding them.

    Args:
        trace: a trace on disk.
        function: of a module, from a trace to tables.
        jobs: of this server.
        within: narrows the trace first.
        options: keyword arguments, as JSON can write them.
    """
    query = {} if within is None else within.to_query()
    narrowed = json.dumps({name: text for name, text in query.items() if name in _NARROWING}, sort_keys=True)
    name, asked = f"{function.__module__}:{function.__qualname__}", json.dumps(options, sort_keys=True)
    job = jobs.ensure(
        f"answer {name} {trace.digest} {narrowed} {asked}",
        module="app.answer_worker",
        arguments=[name, str(trace.path), narrowed, asked],
    )
    if job.state != "done" or job.folder is None:
        return job
    return cache.tables_left_in(job.folder)


def leave(found: Tables, folder: Path) -> None:
    """Write tables into a folder, for the process that asked."""
    for name, table in found.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
