"""What is kept of the rows that arrive: the rows themselves, or only how often each expert was assigned.

Sinks run on the writing thread. S task, T token, L layer, K selected rank, E expert.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hooks.assembly import RowBatch
from hooks.prompt_book import PromptBook
from routing import LayerFacts, TokenBatch, TraceWriter

__all__ = ["CountSink", "Sink", "TraceSink"]

SECONDS_BETWEEN_TABLES = 2.0  # what a kill may cost where prompts were not named beforehand (Recorder's `tasks`)
TIMES_ITS_OWN = 20  # a table that takes long to write is written that much more seldom: 5 % of the thread's time


class Sink(Protocol):
    """Takes batches of token rows."""

    n_tokens: int

    def take(self, batch: RowBatch) -> None:
        """Keep a batch."""
        ...

    def write_prompts(self) -> None:
        """Write the prompt table as it is now."""
        ...

    def settle(self) -> bool:
        """Write what was put off if its time has come; gives back whether all is written."""
        ...

    def finish(self) -> None:
        """Write what is still held."""
        ...


class TraceSink:
    """Levels "full" and "assignments": every row goes to the disk.

    The prompt table is always written whole, on a thread that shares the interpreter's lock with the model's. So a loop
    that meets new prompts with every batch has it written now and then, and is committed up to there.

    Args:
        writer: the trace.
        book: the prompt table.
    """

    def __init__(self, writer: TraceWriter, book: PromptBook) -> None:
        self._writer, self._book = writer, book
        self._n_prompts_known = self._n_prompts_written = 0
        self._due = -math.inf
        self.n_tokens = 0

    def take(self, batch: RowBatch) -> None:
        """Append a batch; it is committed as soon as the prompt table holds its prompts."""
        if int(batch.columns["prompt"].max()) >= self._n_prompts_known:
            new = self._book.names(since=self._n_prompts_known)
            self._writer.announce_prompts(new)
            self._n_prompts_known += len(new)
        self.settle()
        self._writer.append(TokenBatch(**batch.columns, **batch.arrays))
        self.n_tokens += len(batch.columns["prompt"])

    def write_prompts(self) -> None:
        """Write the prompt table as it is now."""
        began = time.monotonic()
        table = self._book.table()
        self._writer.set_prompts(table)
        self._n_prompts_written = self._n_prompts_known = len(table)
        ended = time.monotonic()
        self._due = ended + max(SECONDS_BETWEEN_TABLES, TIMES_ITS_OWN * (ended - began))

    def settle(self) -> bool:
        """Write the table if rows wait for it and its time has come; gives back whether none waits."""
        if self._n_prompts_known > self._n_prompts_written and time.monotonic() >= self._due:
            self.write_prompts()
        return self._n_prompts_known == self._n_prompts_written

    def finish(self) -> None:
        """Write what has changed since."""
        if self._book.changed or self._n_prompts_known > self._n_prompts_written:
            self.write_prompts()


class CountSink:
    """Level "counts": how often each task's tokens were assigned to each expert.

    Args:
        writer: the trace.
        book: the prompt table, which knows the task of each row.
        layer_facts: one a layer.
        seconds_between_writes: how much a kill may cost.
    """

    def __init__(
        self,
        writer: TraceWriter,
        book: PromptBook,
        *,
        layer_facts: Sequence[LayerFacts],
        seconds_between_writes: float = 10.0,
    ) -> None:
        self._writer, self._book = writer, book
        self._seconds = seconds_between_writes
        self._written = time.monotonic()
        self._n_layers = len(layer_facts)
        self._n_experts = max(facts.n_experts for facts in layer_facts)
        self._top_k_L = np.array([facts.top_k for facts in layer_facts])
        self._tasks: dict[str, int] = {}
        self._task_of_prompt = np.zeros(0, np.int64)
        self._counts_SLE = np.zeros((0, self._n_layers, self._n_experts), np.int64)
        self.n_tokens = self._n_written = 0

    def take(self, batch: RowBatch) -> None:
        """Count a batch."""
        prompt_T = batch.columns["prompt"]
        if int(prompt_T.max()) >= len(self._task_of_prompt):
            tasks = self._book.tasks()
            for name in tasks:
                self._tasks.setdefault(name, len(self._tasks))
            self._task_of_prompt = np.array([self._tasks[name] for name in tasks])
            n_new = len(self._tasks) - len(self._counts_SLE)
            self._counts_SLE = np.pad(self._counts_SLE, ((0, n_new), (0, 0), (0, 0)))
        experts_TLK = batch.arrays["experts"]
        absent = np.iinfo(experts_TLK.dtype).max
        base_T = self._task_of_prompt[prompt_T] * (self._n_layers * self._n_experts)
        for layer in range(self._n_layers):
            experts_TK = experts_TLK[:, layer, : self._top_k_L[layer]]
            place_TK = base_T[:, None] + layer * self._n_experts + experts_TK
            flat = place_TK.ravel() if (there := experts_TK != absent).all() else place_TK[there]
            self._counts_SLE += np.bincount(flat, minlength=self._counts_SLE.size).reshape(self._counts_SLE.shape)
        self.n_tokens += len(prompt_T)
        self.settle()

    def write_prompts(self) -> None:
        """Write the prompt table as it is now."""
        self._writer.set_prompts(self._book.table())

    def settle(self) -> bool:
        """Write the counts if some were added since and their time has come; gives back whether all are written."""
        if self.n_tokens > self._n_written and time.monotonic() - self._written > self._seconds:
            self.finish()
        return self.n_tokens == self._n_written

    def finish(self) -> None:
        """Write the counts and the prompt table as they are now."""
        self.write_prompts()
        self._writer.set_counts(self._counts_SLE, tasks=list(self._tasks), n_tokens=self.n_tokens)
        self._written, self._n_written = time.monotonic(), self.n_tokens
