"""Knock-outs asked for on the command line or in the app: what is asked, of which model, on which prompts."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.jobs import Job, Jobs
from app.recordings.models import found_models
from app.runs import REPOSITORY
from routing import Prompt, RoutingTrace, Task, TaskError, TaskSet, read_tasks

__all__ = [
    "PROGRESS",
    "KnockOutRequest",
    "Standing",
    "model_of",
    "prompts_asked",
    "standing_of",
    "start",
    "tasks_of_trace",
    "why_not",
]

PROGRESS = "progress.json"
_STEP = re.compile(r"(?P<model>.+)/(?P<step>step[-_]?\d+)")


@dataclass(frozen=True, kw_only=True)
class KnockOutRequest:
    """What is to be knocked out, and how that is measured: what `routescope knock-out` is told, and the app.

    Attributes:
        trace: folder of the trace.
        model: folder of its model; what the trace says, where it is None.
        tasks: sources of tasks; what the trace says, where there are none.
        experts: sets, each as "L05·E11,L06·E2".
        serving: groups of prompts whose own experts are taken out.
        n_experts: how many for each such group.
        ranked_by: how they are found, "z" or "r".
        over: what prompts are grouped by.
        n_random: random sets for each set.
        generate: whether generated answers are scored, too.
        loss_only: whether options are not scored, which is several times as fast.
        limit: most prompts a task.
        seed: of whatever is drawn.
        batch_size: prompts a batch.
        device: "auto" or a device's name.
        out: folder for the results; beside the trace, where it is None.
    """

    trace: str
    model: str | None = None
    tasks: tuple[str, ...] = ()
    experts: tuple[str, ...] = ()
    serving: tuple[str, ...] = ()
    n_experts: int = 3
    ranked_by: str = "z"
    over: str = "task_type"
    n_random: int = 20
    generate: bool = False
    loss_only: bool = False
    limit: int | None = None
    seed: int = 0
    batch_size: int = 16
    device: str = "auto"
    out: str | None = None

    def command(self) -> str:
        """The same on the command line."""
        words = ["routescope", "knock-out", self.trace]
        for flag, values in (("--serving", self.serving), ("--experts", self.experts), ("--tasks", self.tasks)):
            words += [word for value in values for word in (flag, value)]
        plain = {"n_random": "--random"}
        for name in ("n_experts", "ranked_by", "over", "n_random", "limit", "seed", "batch_size", "device", "model"):
            value = getattr(self, name)
            if value is not None and value != getattr(type(self), name, None):
                words += [plain.get(name, f"--{name.replace('_', '-')}"), str(value)]
        words += ["--generate"] * self.generate + ["--loss-only"] * self.loss_only
        words += ["--out", self.out] if self.out is not None else []
        return shlex.join(words)

    def written(self) -> str:
        """As a worker is told."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def read(cls, written: str) -> KnockOutRequest:
        """What `written` wrote."""
        told: dict[str, Any] = json.loads(written)
        return cls(**told | {name: tuple(told[name]) for name in ("tasks", "experts", "serving")})


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a knock-out that was asked for in the app stands.

    Attributes:
        key: of its job.
        job: its process.
        n_done, n_total: passes over the prompts; 0 of 0 until the model is loaded.
        problem: why it was refused, in a sentence; else empty.
    """

    key: str
    job: Job
    n_done: int = 0
    n_total: int = 0
    problem: str = ""


def start(trace: RoutingTrace, request: KnockOutRequest, *, jobs: Jobs) -> None:
    """Start a knock-out; one of the same trace that ended before is forgotten."""
    key = _key(trace)
    if (before := jobs.standing(key)) is not None and before.state in ("done", "failed"):
        jobs.forget(key)
    jobs.ensure(key, module="app.studies.worker", arguments=[request.written()])


def standing_of(trace: RoutingTrace, *, jobs: Jobs) -> Standing | None:
    """How the knock-out of a trace stands, None where none was asked for."""
    key = _key(trace)
    job = jobs.standing(key)
    if job is None:
        return None
    told = {}
    if job.folder is not None:
        try:
            told = json.loads((job.folder / PROGRESS).read_text("utf-8"))
        except (OSError, ValueError):
            told = {}
    known = {name: told[name] for name in ("n_done", "n_total", "problem") if name in told}
    return Standing(key=key, job=job, **known)


def model_of(trace: RoutingTrace) -> str | None:
    """The folder of the model that a trace was recorded from, None where it is not at hand.

    A snapshot recorded in training has the weights of its checkpoint only if it is the last one.
    """
    name = trace.provenance.model or ""
    for folder in (Path(name), REPOSITORY / name):
        if name and (folder / "config.json").is_file():
            return name
    step = _STEP.fullmatch(name)
    for model in found_models():
        if model.name == name:
            return _shown(Path(model.folder))
        if step is not None and step["model"] == model.name:
            snapshots = sorted(each.name for each in (Path(model.folder) / "traces").glob("step*"))
            if snapshots and snapshots[-1] == step["step"]:
                return _shown(Path(model.folder))
    return None


def why_not(trace: RoutingTrace) -> str:
    """Why the app cannot make a study of this trace itself, in a sentence; empty where it can."""
    if trace.path is None or not os.access(trace.path, os.W_OK):
        return "Results are kept beside the run, and nothing can be written there: give the command a folder (--out)."
    if model_of(trace) is None:
        return "The weights of this run are not where the app looks for models: give their folder (--model)."
    if _sources(trace) is None and not _has_texts(trace):
        return "The run holds no texts with right answers, nor are its tasks at hand: give the command tasks (--tasks)."
    return ""


def prompts_asked(trace: RoutingTrace, sources: Sequence[str], *, limit: int | None, seed: int) -> TaskSet:
    """The prompts of a study: of the sources that are named, else of the trace's own where they are still there.

    Where they are not, the texts in the trace are taken.

    Raises:
        TaskError: neither sources nor texts are there.
    """
    if sources:
        return read_tasks(list(sources), limit=limit, seed=seed)
    if (here := _sources(trace)) is not None:
        return read_tasks(here, limit=limit, seed=seed)
    own = tasks_of_trace(trace)
    if own is not None:
        return own if limit is None else own.sample(limit, seed=seed)
    if named := _named(trace):
        return read_tasks(named, limit=limit, seed=seed)
    msg = "The trace holds no texts, and does not say where its tasks come from. Name them (--tasks)."
    raise TaskError(msg)


def tasks_of_trace(trace: RoutingTrace) -> TaskSet | None:
    """The prompts of a trace that have a text and a right answer or options; None where none has.

    How much of an answer is generated is not in a trace: as much as its tasks have by default.
    """
    table = trace.prompts
    if table.empty or not {"text", "target"} <= set(table.columns):
        return None
    prompts: list[Prompt] = []
    metrics: dict[str, tuple[str, Any]] = {}
    for row in table.to_dict("records"):
        options = _list(row.get("options"))
        target = row["target"] if isinstance(row["target"], str) and row["target"] else None
        if not isinstance(row["text"], str) or not row["text"] or (target is None and not options):
            continue
        prompts.append(
            Prompt(
                id=str(row["prompt"]),
                text=row["text"],
                task=str(row["task"]),
                task_type=str(row["task_type"]),
                target=target,
                answers=_list(row.get("answers")),
                options=options,
            )
        )
        metric = row.get("metric")
        metrics.setdefault(str(row["task"]), (str(row["task_type"]), metric if isinstance(metric, str) else "none"))
    if not prompts:
        return None
    tasks = tuple(Task(name=name, task_type=kind, metric=metric) for name, (kind, metric) in metrics.items())
    return TaskSet(tasks=tasks, prompts=tuple(prompts))


def _key(trace: RoutingTrace) -> str:
    """Names the knock-out of a trace that a server works on: one at a time for each trace."""
    return f"knock-out {trace.digest} {trace.path}"


def _named(trace: RoutingTrace) -> list[str]:
    return [each for each in (trace.provenance.tasks or "").split(", ") if each]


def _sources(trace: RoutingTrace) -> list[str] | None:
    """The trace's own sources of tasks, None unless all of them are still there."""
    named = _named(trace)
    here = [next((str(path) for path in (Path(each), REPOSITORY / each) if path.exists()), "") for each in named]
    return here if here and all(here) else None


def _has_texts(trace: RoutingTrace) -> bool:
    table = trace.prompts
    if not {"text", "target"} <= set(table.columns):
        return False
    return bool((table["text"].fillna("").astype(str).str.len() > 0).any() and table["target"].notna().any())


def _list(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        return ()
    try:
        found = json.loads(value)
    except ValueError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _shown(path: Path) -> str:
    """The path as a command should name it: from the repository, if it lies there."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path.resolve())
