"""What has been computed once: the only file with `st.cache_*`.

Every cached function takes one hashable key. Streamlit hashes large arrays by a fixed random sample and joins
arguments without a boundary, so two different traces could share an entry: a key is a tuple of names and
numbers that says where the trace is, what it holds (its digest), what was asked, and which versions answer.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st
import xarray as xr

from app import status
from app.jobs import Jobs
from app.recordings.kept import Recordings
from app.runs import Run, find_runs, places
from app.status_sentences import computing
from app.tries.warm import WarmModels
from routing import RoutingTrace, Selection

__all__ = [
    "Question",
    "answer",
    "answer_over",
    "jobs",
    "look_again",
    "own_runs",
    "picture",
    "plans",
    "recordings",
    "run_of",
    "runs",
    "studies",
    "tables_left_in",
    "trace_of",
    "tries",
]

T = TypeVar("T")

# Libraries whose versions decide a result.
_DECIDING = ("routescope", "numpy", "pandas", "scipy", "scikit-learn", "numba", "umap-learn")
# The traces of the question being asked: the key of a cached function says which they are, and cannot carry them.
_ASKED: ContextVar[Mapping[str, RoutingTrace]] = ContextVar("asked")
# Likewise, what draws the figure being asked for.
_DRAWING: ContextVar[Callable[[], go.Figure]] = ContextVar("drawing")


class TraceKey(NamedTuple):
    """A trace on disk: where it is, and what changes when it does."""

    path: str
    stamp: tuple[int, int]


class Question(NamedTuple):
    """What is asked of which traces.

    Attributes:
        function: dotted name of the function that answers.
        traces: name, place and digest of each trace; one, or the snapshots of a series.
        within: query of the selection that narrows the trace, sorted.
        options: keyword arguments, sorted.
        beside: what lies beside the traces, and decides the answer as well.
        versions: of the libraries that decide the answer.
    """

    function: str
    traces: tuple[tuple[str, str, str], ...]
    within: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, Any], ...]
    beside: Hashable
    versions: tuple[tuple[str, str], ...]


def runs() -> tuple[Run, ...]:
    """Every trace that can be shown now; the disk is looked at again every few seconds."""
    return _found(tuple(str(place) for place in places()))


def look_again() -> None:
    """Have the next question for the runs answered by the disk."""
    _found.clear()


def own_runs() -> Path:
    """The folder that new runs are recorded into."""
    return places()[0].resolve()


def recordings() -> Recordings:
    """The recordings into that folder, shared by all sessions."""
    return _recordings(str(own_runs()))


def run_of(trace: RoutingTrace) -> Run | None:
    """The run that a trace was opened from, None for a trace in memory."""
    return next((run for run in runs() if run.path == str(trace.path)), None)


def trace_of(run: Run) -> RoutingTrace:
    """The run's trace, opened once for all sessions.

    Raises:
        TraceError: the folder holds no trace that we can read.
    """
    with status.doing(f"Opening {run.name}"):
        return _opened(TraceKey(run.path, run.stamp))


def answer(
    trace: RoutingTrace,
    function: Callable[..., T],
    *,
    within: Selection | None = None,
    beside: Hashable = (),
    **options: Any,
) -> T:
    """What `function(trace, **options)` gives, computed once for all sessions. Read it, never write into it.

    Args:
        trace: as `trace_of` opened it.
        function: a function of a module, whose first argument is a trace.
        within: narrows the trace to these tasks, layers and prompts first.
        beside: of what the function reads beside the trace, something that changes with it.
        options: keyword arguments, hashable.
    """
    with status.doing(partial(computing, function, (trace,), is_whole=within is None)):
        return _asked({"": trace}, _question(function, {"": trace}, within, options, beside))


def answer_over(
    traces: Mapping[str, RoutingTrace], function: Callable[..., T], *, beside: Hashable = (), **options: Any
) -> T:
    """As `answer`, for a function whose first argument maps names to traces."""
    with status.doing(partial(computing, function, tuple(traces.values()), is_whole=True)):
        return _asked(traces, _question(function, traces, None, options, beside))


def tables_left_in(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that a job left as files in its folder, which is its alone; read once for all sessions.

    Returns:
        name of the file → table.
    """
    # Shallow copies share the values until somebody writes, and then only the writer's change.
    return {name: table.copy(deep=False) for name, table in _left(str(folder)).items()}


def picture(drawn: Callable[..., go.Figure], *arguments: Any, **options: Any) -> go.Figure:
    """The figure that a function of a module draws, once for all sessions. Read it, never write into it."""
    # Only written, never read back: equal bytes are equal contents. A function without a name of its own is refused.
    what = pickle.dumps((drawn, arguments, sorted(options.items())))
    _DRAWING.set(partial(drawn, *arguments, **options))
    return _drawn(hashlib.blake2b(what).hexdigest())


def _asked(traces: Mapping[str, RoutingTrace], question: Question) -> Any:
    token = _ASKED.set(traces)
    try:
        return _answered(question)
    finally:
        _ASKED.reset(token)


def _question(
    function: Callable[..., Any],
    traces: Mapping[str, RoutingTrace],
    within: Selection | None,
    options: Mapping[str, Any],
    beside: Hashable = (),
) -> Question:
    narrow = within.to_query() if within is not None else {}
    kept = {name: text for name, text in narrow.items() if name in ("tasks", "layers", "prompts")}
    question = Question(
        function=f"{function.__module__}:{function.__qualname__}",
        traces=tuple((str(name), str(trace.path), trace.digest) for name, trace in traces.items()),
        within=tuple(sorted(kept.items())),
        options=tuple(sorted(options.items())),
        beside=beside,
        versions=_versions(),
    )
    # Streamlit would hash an array among the options by a sample of it; Python refuses.
    hash(question)
    return question


@st.cache_data(ttl=3, max_entries=8, show_spinner=False)
def _found(key: tuple[str, ...]) -> tuple[Run, ...]:
    return find_runs(key)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The long computations of this server, shared by all sessions."""
    return Jobs()


@st.cache_resource(show_spinner=False)
def studies() -> Jobs:
    """The interventions of this server, shared by all sessions; apart from `jobs`, which wait seconds, not minutes."""
    return Jobs()


@st.cache_resource(show_spinner=False)
def tries() -> WarmModels:
    """The models that read typed texts, in one process for all sessions."""
    return WarmModels()


@st.cache_resource(show_spinner=False)
def plans() -> Jobs:
    """The looks at models before they are recorded, shared by all sessions; a reader waits for one beside a form."""
    return Jobs()


@st.cache_resource(show_spinner=False)
def _recordings(key: str) -> Recordings:
    return Recordings(Path(key))


@st.cache_resource(max_entries=32, show_spinner=False)
def _opened(key: TraceKey) -> RoutingTrace:
    from routing import open_trace

    return open_trace(key.path)


@st.cache_resource(max_entries=64, show_spinner=False)
def _left(key: str) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_parquet(path) for path in sorted(Path(key).glob("*.parquet"))}


@st.cache_resource(max_entries=128, show_spinner=False)
def _drawn(key: str) -> go.Figure:
    return _DRAWING.get()()


@st.cache_resource(max_entries=512, show_spinner=False)
def _answered(question: Question) -> Any:
    module, _, name = question.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    traces = _ASKED.get()
    options = dict(question.options)
    if list(traces) != [""]:
        return _read_only(function(traces, **options))
    trace = traces[""]
    if question.within:
        trace = trace.select(Selection.from_query(dict(question.within), trace))
    return _read_only(function(trace, **options))


def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, _version(name)) for name in _DECIDING)


def _version(name: str) -> str:
    if name not in _VERSIONS:
        try:
            _VERSIONS[name] = version(name)
        except PackageNotFoundError:
            _VERSIONS[name] = "not installed"
    return _VERSIONS[name]


_VERSIONS: dict[str, str] = {}


def _read_only(result: Any) -> Any:
    """The result with its arrays locked: `cache_resource` hands every session the same object."""
    if isinstance(result, np.ndarray):
        result.setflags(write=False)
    elif isinstance(result, xr.DataArray):
        _lock(result.variable)
    elif isinstance(result, xr.Dataset):
        for variable in result.data_vars.values():
            _lock(variable.variable)
    elif isinstance(result, (tuple, list)) and not isinstance(result, pd.DataFrame):
        for part in result:
            _read_only(part)
    return result


def _lock(variable: xr.Variable) -> None:
    if isinstance(variable.data, np.ndarray):
        variable.data.setflags(write=False)
