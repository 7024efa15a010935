"""An evaluation under a recorder: prompts in batches, answers chosen or generated, scores beside the routing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from hooks.answering import Answerer
from hooks.conditioning import Conditioning
from hooks.encoding import Encoded, TooLong, context_length, encoded_prompts
from hooks.options import OptionNorm
from hooks.scoring import answer_score
from routing import Prompt, RecordingError, Task, TaskError, TaskSet

if TYPE_CHECKING:
    from hooks.recorder import Recorder

__all__ = ["Evaluation", "Progress", "answer_to_prompt_score", "evaluated"]

SECONDS_BETWEEN_PROMPT_TABLES = 10.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an evaluation has come.

    Attributes:
        n_prompts: prompts done.
        n_prompts_total: prompts in all.
        n_tokens: tokens fed to the recorded model so far.
        seconds: since the evaluation began.
    """

    n_prompts: int
    n_prompts_total: int
    n_tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What the model answered, and how well.

    Attributes:
        table: one row a prompt: prompt, task, task_type, metric, prediction, score (NaN where there is none).
        n_truncated: prompts whose beginning was cut off.
        option_norm: what options' log-likelihoods were divided by.
        seconds: how long it took.
    """

    table: pd.DataFrame
    n_truncated: int
    option_norm: OptionNorm
    seconds: float

    def scores(self) -> pd.DataFrame:
        """Mean score of each task: columns task_type, metric, n_prompts, score."""
        grouped = self.table.groupby("task", sort=False)
        return grouped.agg(
            task_type=("task_type", "first"),
            metric=("metric", "first"),
            n_prompts=("prompt", "size"),
            score=("score", "mean"),
        )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Prompts that are answered alike."""

    encoded: list[Encoded]
    kind: str  # "choose", "generate" or "read"
    n_new_tokens: int


def evaluated(
    recorder: Recorder,
    prompts: TaskSet | Sequence[Prompt],
    *,
    batch_size: int,
    max_new_tokens: int | None,
    too_long: TooLong,
    option_norm: OptionNorm,
    progress: Callable[[Progress], None] | None,
) -> Evaluation:
    """Run the evaluation that `Recorder.run` describes."""
    began = time.monotonic()
    model = recorder.inner
    if recorder.tokenizer is None:
        msg = "Prompts are texts, but the Recorder was given no tokenizer. Pass the model's tokenizer to Recorder."
        raise RecordingError(msg)
    tasks = _as_tasks(prompts)
    if batch_size < 1:
        msg = f"A batch of {batch_size} prompts holds nothing. Use a batch size of 1 or more."
        raise TaskError(msg)
    conditioning = Conditioning(model)
    known_tasks = conditioning.note_on([each.task for each in tasks.prompts])
    tasks = conditioning.as_read(tasks)
    jobs = _jobs(recorder, tasks, max_new_tokens=max_new_tokens, too_long=too_long)
    # All at once, so that the prompt table is written once.
    number = dict(zip((each.id for each in tasks.prompts), recorder.book.add(tasks), strict=True))
    answerer = Answerer(recorder, option_norm=option_norm)
    predictions: dict[str, tuple[str, float]] = {}
    n_tokens, written = 0, time.monotonic()
    was_training = model.training
    model.eval()
    try:
        for job, batch in _batches(jobs, batch_size):
            answers, n_fed = answerer.answered(batch, kind=job.kind, n_new_tokens=job.n_new_tokens)
            n_tokens += n_fed
            for each, answer in zip(batch, answers, strict=True):
                score = answer_to_prompt_score(tasks.task(each.prompt.task), each.prompt, answer)
                if answer is not None:
                    predictions[each.prompt.id] = (answer, score)
                    recorder.book.set_result(number[each.prompt.id], prediction=answer, score=score)
                else:
                    predictions[each.prompt.id] = ("", math.nan)
            if time.monotonic() - written > SECONDS_BETWEEN_PROMPT_TABLES:
                recorder.write_prompts()
                written = time.monotonic()
            if progress is not None:
                progress(
                    Progress(
                        n_prompts=len(predictions),
                        n_prompts_total=len(tasks),
                        n_tokens=n_tokens,
                        seconds=time.monotonic() - began,
                    )
                )
    finally:
        model.train(was_training)
    n_truncated = sum(each.n_cut > 0 for job in jobs for each in job.encoded)
    notes = [known_tasks] if known_tasks else []
    if n_truncated:
        notes.append(f"The beginning of {n_truncated} prompts was cut off to fit the model's context.")
    if notes:
        recorder.note(note=" ".join(notes))
    table = tasks.table()[["prompt", "task", "task_type", "metric"]]
    table["prediction"] = [predictions[each][0] for each in table["prompt"]]
    table["score"] = [predictions[each][1] for each in table["prompt"]]
    return Evaluation(table=table, n_truncated=n_truncated, option_norm=option_norm, seconds=time.monotonic() - began)


def _as_tasks(prompts: TaskSet | Sequence[Prompt]) -> TaskSet:
    """The prompts as a task set; prompts without one are read, and answered only if they have options."""
    if not len(prompts):
        msg = "There are no prompts to evaluate: the task is empty. Give at least one prompt."
        raise TaskError(msg)
    if isinstance(prompts, TaskSet):
        return prompts
    tasks: dict[str, Task] = {}
    for each in prompts:
        metric = "accuracy" if each.options else "none"
        if each.task not in tasks or metric == "accuracy":
            tasks[each.task] = Task(name=each.task, task_type=each.task_type, metric=metric, max_new_tokens=0)
    return TaskSet(tasks=tuple(tasks.values()), prompts=tuple(prompts))


def _jobs(recorder: Recorder, tasks: TaskSet, *, max_new_tokens: int | None, too_long: TooLong) -> list[_Job]:
    model, tokenizer = recorder.inner, recorder.tokenizer
    writes = callable(getattr(model, "can_generate", None)) and model.can_generate()
    groups: dict[tuple[str, int], list[Prompt]] = {}
    for each in tasks.prompts:
        n_new = tasks.task(each.task).max_new_tokens if max_new_tokens is None else max_new_tokens
        if writes and each.options and max_new_tokens != 0:
            groups.setdefault(("choose", 0), []).append(each)
        elif writes and n_new > 0:
            groups.setdefault(("generate", n_new), []).append(each)
        else:
            groups.setdefault(("read", 0), []).append(each)
    two_stacks = bool(getattr(model.config, "is_encoder_decoder", False))
    limit = context_length(model)
    jobs = []
    for (kind, n_new), members in groups.items():
        # Generation stops at the end of the context, so one free place is enough for a prompt to be answered.
        encoded = encoded_prompts(
            members,
            tokenizer=tokenizer,
            limit=limit,
            n_new_tokens=[min(n_new, 1)] * len(members),
            too_long=too_long,
            apart=two_stacks,
        )
        # The longest first: what does not fit into memory shows at once.
        encoded.sort(key=lambda each: (-len(each.ids), each.prompt.id))
        jobs.append(_Job(encoded=encoded, kind=kind, n_new_tokens=n_new))
    return jobs


def _batches(jobs: Sequence[_Job], batch_size: int) -> Iterator[tuple[_Job, list[Encoded]]]:
    for job in jobs:
        for start in range(0, len(job.encoded), batch_size):
            yield job, job.encoded[start : start + batch_size]


def answer_to_prompt_score(task: Task, prompt: Prompt, answer: str | None) -> float:
    """Score of an answer by its task's metric; NaN where nothing was answered or no answer is known.

    Returns:
        scalar · share · 0 to 1, or NaN.
    """
    if answer is None:
        return math.nan
    answers = prompt.answers or (() if prompt.target is None else (prompt.target,))
    if prompt.options and task.metric == "accuracy" and answers:
        # Options are told apart by what they say, not by what SQuAD's normalization leaves of it.
        return float(answer.strip() in {each.strip() for each in answers})
    return answer_score(task.metric, answer, answers)
