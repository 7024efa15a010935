"""What is asked of two runs; of two long ones a process of its own answers all of it, and the page is drawn then."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from app import cache
from app.jobs import Job, Jobs
from app.views.compare import pairing as comparing
from app.views.compare.pairing import Comparison, Traces
from app.waiting import found_or_waiting
from routing import RoutingTrace, Selection

__all__ = ["SLOW_FROM", "Sides", "answers", "answers_or_job", "leave_answers"]

# Decisions of both runs, tokens × layers, from which on answering would hold up the page.
SLOW_FROM = 3_000_000

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sides:
    """The two runs that are compared, the earlier one first.

    Attributes:
        trace: the run that the page is about, whole.
        selection: what the user looks at.
        other: name of the other run, as the URL writes it.
        names: of the earlier and the later run, as the page writes them.
        here: place of the run that the page is about, 0 or 1.
        found: what can be compared.
        untrained: whether the earlier run is of a model before any training.
        answered: tables that were found beforehand, by the name of their function.
    """

    trace: RoutingTrace
    selection: Selection
    other: str
    names: tuple[str, str]
    here: int
    found: Comparison
    untrained: bool
    answered: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def ask(self, function: Callable[[Mapping[str, RoutingTrace]], pd.DataFrame]) -> pd.DataFrame:
        """What a function of `app.views.compare.pairing` says of the two."""
        known = self.answered.get(function.__name__)
        return cache.answer_over(self.matched, function) if known is None else known

    @property
    def matched(self) -> dict[str, RoutingTrace]:
        """Both runs over the layers that both have, for questions about the two."""
        assert self.found.matched is not None
        return dict(zip(("before", "after"), self.found.matched, strict=True))


def answers(pair: tuple[RoutingTrace, RoutingTrace], selection: Selection, found: Comparison) -> Tables | None:
    """Every table that the view asks of two runs, by the name of its function.

    Args:
        pair: the whole runs, the earlier one first.
        selection: what the user looks at.
        found: the part of them that can be compared.

    Returns:
        name → table; none where the page had better ask itself. None while they are being found, which the page says.
    """
    if found.matched is None or sum(trace.n_tokens * trace.n_layers for trace in found.matched) < SLOW_FROM:
        return {}
    return found_or_waiting(
        lambda: answers_or_job(pair, selection, jobs=cache.jobs()),
        "The two runs are being compared",
        failed="The comparison of the two runs ended with an error.",
    )


def answers_or_job(pair: tuple[RoutingTrace, RoutingTrace], selection: Selection, *, jobs: Jobs) -> Tables | Job:
    """The tables if this server has found them, else the job that is finding them.

    Args:
        pair: two runs on disk, the earlier one first.
        selection: narrows both.
        jobs: of this server.
    """
    asked = json.dumps({"tasks": selection.tasks, "prompts": selection.prompts, "layers": selection.layers})
    job = jobs.ensure(
        f"compare {pair[0].digest} {pair[1].digest} {asked}",
        module="app.views.compare.worker",
        arguments=[*(str(trace.path) for trace in pair), asked],
    )
    if job.state != "done" or job.folder is None:
        return job
    return cache.tables_left_in(job.folder)


def leave_answers(traces: Traces, folder: Path, **within: tuple[str, ...]) -> None:
    """Write every table that can be had of two runs into a folder.

    Args:
        traces: the runs "before" and "after".
        folder: for the files.
        within: tasks, prompts and layers, as `comparing.comparison` takes them.
    """
    found = comparing.comparison(traces, **within)
    if found.matched is None:
        return
    matched = dict(zip(("before", "after"), found.matched, strict=True))
    for function in _questions(found):
        # The index and the attributes travel along in the file.
        function(matched).to_parquet(folder / f"{function.__name__}.parquet")


def _questions(found: Comparison) -> tuple[Callable[[Traces], pd.DataFrame], ...]:
    assert found.matched is not None
    if any(trace.level == "counts" for trace in found.matched):
        return ()
    of_any = (comparing.numbering, comparing.information)
    if found.over != "tokens":
        return (*of_any, comparing.distances)
    if any(trace.dense_routing for trace in found.matched):
        return (*of_any, comparing.overlap, comparing.changes_of_use, comparing.changes_of_prompts)
    return (
        *of_any,
        comparing.layer_churn,
        comparing.kept_by_rank,
        comparing.changes_of_use,
        comparing.changes_of_prompts,
    )
