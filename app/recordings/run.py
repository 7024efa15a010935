"""A recording, whoever asked for it: load, measure, run, say how far it is. The only file here that needs torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers.utils.logging import disable_progress_bar

from app.recordings.kept import Request
from hooks import Recorder, load_model
from hooks.evaluation import Evaluation, Progress
from hooks.models import model_device
from hooks.overhead import forward_batches, measure_overhead
from routing import TaskSet

__all__ = ["Watch", "recorded"]

N_OVERHEAD_BATCHES, N_OVERHEAD_ROUNDS = 4, 5
N_PARAMETERS_A_THREAD = 50_000_000


Begun = Literal["loading", "measuring", "recording"]
"""What a recording begins."""


class Watch(Protocol):
    """Who is told how a recording goes: a terminal, or a file that the app reads."""

    def stage(self, name: Begun, /) -> None:
        """Told of what begins: "loading", "measuring" or "recording"."""

    def measured(self, overhead: dict[str, Any]) -> None:
        """Told what recording costs, where that was measured."""

    def progress(self, done: Progress) -> None:
        """Told after every batch."""


def recorded(request: Request, tasks: TaskSet, *, watch: Watch) -> Evaluation:
    """Load a model, evaluate it on tasks, and record its routing.

    Args:
        request: what is asked; its sources of tasks are for the record.
        tasks: what was read from them.
        watch: is told how it goes.

    Raises:
        RecordingError, TaskError: as `load_model` and `Recorder.run` say.
    """
    watch.stage("loading")
    torch.manual_seed(request.seed)
    # The progress of single weights is noise beside that of the run.
    disable_progress_bar()
    model, tokenizer = load_model(
        request.model,
        device=request.device,
        dtype=request.dtype,
        device_map=request.device_map,
        revision=request.revision,
        trust_remote_code=request.trust_remote_code,
    )
    if model_device(model).type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_useful_threads(model))
    overhead = None
    if request.with_overhead:
        watch.stage("measuring")
        overhead = _overhead(model, tokenizer, tasks, request=request)
        watch.measured(overhead)
    recorder = Recorder(
        model,
        tokenizer,
        out=request.out,
        seed=request.seed,
        name=request.model,
        revision=request.revision,
        tasks_source=", ".join(request.tasks),
        **_kept(request),
    )
    with recorder:
        if overhead is not None:
            recorder.note(overhead=overhead)
        watch.stage("recording")
        option_norm: Any = request.option_norm
        too_long: Any = request.too_long
        return recorder.run(
            tasks,
            batch_size=request.batch_size,
            max_new_tokens=request.max_new_tokens,
            too_long=too_long,
            option_norm=option_norm,
            progress=watch.progress,
        )


def _kept(request: Request) -> dict[str, Any]:
    return {"level": request.level, "n_runners_up": request.n_runners_up}


def _useful_threads(model: torch.nn.Module) -> int:
    """How many threads to compute with: in a small model they wait for each other longer than they compute.

    On two cores shared with other work, a model of 13 million parameters took 39 s with one thread and 587 s with two.
    """
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return 1 if n_parameters < N_PARAMETERS_A_THREAD else torch.get_num_threads()


def _overhead(model: Any, tokenizer: Any, tasks: TaskSet, *, request: Request) -> dict[str, Any]:
    """Overhead on the first prompts, written where the trace will be: the disk is part of the cost."""
    prompts = tasks.prompts[: N_OVERHEAD_BATCHES * request.batch_size]
    batches = forward_batches(model, tokenizer, prompts, batch_size=request.batch_size)
    folder = Path(request.out).parent
    folder.mkdir(parents=True, exist_ok=True)
    found = measure_overhead(
        model, batches, n_rounds=N_OVERHEAD_ROUNDS, folder=folder, seed=request.seed, **_kept(request)
    )
    return found.to_json()
