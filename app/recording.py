"""A recording, whoever asked for it: load, measure, run, say how far it is. The only file here that needs torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.utils.logging import disable_progress_bar

from hooks import Recorder, load_model
from hooks.encoding import padded
from hooks.evaluation import Evaluation, Progress
from hooks.models import model_device
from hooks.overhead import measure_overhead
from routing import TaskSet

__all__ = ["Watch", "recorded"]

N_OVERHEAD_BATCHES, N_OVERHEAD_ROUNDS = 4, 5
N_PARAMETERS_A_THREAD = 50_000_000


class Watch(Protocol):
    """Who is told how a recording goes: a terminal, or a file that the app reads."""

    def stage(self, name: str) -> None:
        """Told of what begins: "loading", "measuring" or "recording"."""

    def measured(self, overhead: dict[str, Any]) -> None:
        """Told what recording costs, where that was measured."""

    def progress(self, done: Progress) -> None:
        """Told after every batch."""


def recorded(
    model_name: str,
    tasks: TaskSet,
    *,
    out: Path,
    tasks_source: str,
    watch: Watch,
    loading: dict[str, Any],
    batch_size: int,
    seed: int,
    max_new_tokens: int | None,
    option_norm: Any,
    too_long: Any,
    with_overhead: bool,
    level: Any,
    n_runners_up: int,
) -> Evaluation:
    """Load a model, evaluate it on tasks, and record its routing.

    Raises:
        RecordingError, TaskError: as `load_model` and `Recorder.run` say.
    """
    watch.stage("loading")
    torch.manual_seed(seed)
    # The progress of single weights is noise beside that of the run.
    disable_progress_bar()
    model, tokenizer = load_model(model_name, **loading)
    if model_device(model).type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_useful_threads(model))
    kept = {"level": level, "n_runners_up": n_runners_up}
    overhead = None
    if with_overhead:
        watch.stage("measuring")
        overhead = _overhead(model, tokenizer, tasks, batch_size=batch_size, out=out, seed=seed, kept=kept)
        watch.measured(overhead)
    recorder = Recorder(
        model,
        tokenizer,
        out=out,
        seed=seed,
        name=model_name,
        revision=loading["revision"],
        tasks_source=tasks_source,
        **kept,
    )
    with recorder:
        if overhead is not None:
            recorder.note(overhead=overhead)
        watch.stage("recording")
        return recorder.run(
            tasks,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            too_long=too_long,
            option_norm=option_norm,
            progress=watch.progress,
        )


def _useful_threads(model: torch.nn.Module) -> int:
    """How many threads to compute with: in a small model they wait for each other longer than they compute.

    On two cores shared with other work, a model of 13 million parameters took 39 s with one thread and 587 s with two.
    """
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return 1 if n_parameters < N_PARAMETERS_A_THREAD else torch.get_num_threads()


def _overhead(
    model: Any, tokenizer: Any, tasks: TaskSet, *, batch_size: int, out: Path, seed: int, kept: dict[str, Any]
) -> dict[str, Any]:
    """Overhead on the first prompts, written where the trace will be: the disk is part of the cost."""
    texts = [prompt.text for prompt in tasks.prompts[: N_OVERHEAD_BATCHES * batch_size]]
    rows = tokenizer(texts)["input_ids"]
    device, pad_id = model_device(model), tokenizer.pad_token_id or 0
    batches = []
    for start in range(0, len(rows), batch_size):
        ids, mask = padded(rows[start : start + batch_size], pad_id=pad_id, side="right", device=device)
        batches.append({"input_ids": ids, "attention_mask": mask})
    out.parent.mkdir(parents=True, exist_ok=True)
    found = measure_overhead(model, batches, n_rounds=N_OVERHEAD_ROUNDS, folder=out.parent, seed=seed, **kept)
    return found.to_json()
