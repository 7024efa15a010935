"""Rows as sources and targets of a text-to-text model, encoded once and kept on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .corpus import Row, completion_of, prompt_of
from .running_text import without_instruction

IGNORED = -100
"""Label of a place that has no part in the loss."""

_BUCKET = 16


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded rows: ``source`` (N, P) and ``labels`` (N, Q) padded, ``task`` (N) numbers into ``tasks``.

    ``source_length`` (N) counts a source's tokens. ``labels`` end with the end token, padding is IGNORED.
    """

    rows: tuple[Row, ...]
    tasks: tuple[str, ...]
    source: torch.Tensor
    source_length: torch.Tensor
    labels: torch.Tensor
    task: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, numbers: torch.Tensor, *, trimmed: bool = False) -> dict[str, torch.Tensor]:
        """Return the examples of these numbers as a model takes them.

        Args:
            numbers: which examples (B), on their device.
            trimmed: whether to cut off columns that are padding in all of them.
        """
        source, length, labels = self.source[numbers], self.source_length[numbers], self.labels[numbers]
        if trimmed:
            source = source[:, : _up(int(length.max()), at_most=source.shape[1])]
            labels = labels[:, : _up(int((labels != IGNORED).sum(1).max()), at_most=labels.shape[1])]
        mask = torch.arange(source.shape[1], device=source.device) < length[:, None]
        return {
            "input_ids": source.long(),
            "attention_mask": mask.long(),
            "labels": labels.long(),
            "task_ids": self.task[numbers],
        }

    def of_task(self, task: str) -> torch.Tensor:
        """Return the numbers of a task's examples."""
        return (self.task == self.tasks.index(task)).nonzero().flatten()


def encoded_examples(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerFast,
    *,
    tasks: Sequence[str],
    source_length: int,
    target_length: int,
    device: torch.device,
    instruction: bool = True,
) -> Examples:
    """Return rows as examples.

    A source that is too long loses the end of its input, never its ``answer:``. A row that has its answer in its input
    and loses it so is left out: nobody could copy what is not there.

    Args:
        rows: of the tasks named; rows of others are left out.
        tokenizer: encodes them.
        tasks: the order of task numbers.
        source_length: most tokens of a source.
        target_length: most tokens of a target, end token included; longer ones are cut.
        device: where the tensors shall be.
        instruction: whether sources begin with the task's instruction line.
    """
    backend = tokenizer.backend_tokenizer
    rows = [row for row in rows if row.task in tasks]
    prompts = [prompt_of(row) if instruction else without_instruction(prompt_of(row)) for row in rows]
    sources = [encoding.ids for encoding in backend.encode_batch_fast(prompts, add_special_tokens=False)]
    answers = [completion_of(row.output) for row in rows]
    targets = [encoding.ids for encoding in backend.encode_batch_fast(answers, add_special_tokens=False)]
    mark = backend.encode("\nanswer:", add_special_tokens=False).ids
    kept_rows, kept_sources, kept_targets = [], [], []
    for row, source, target in zip(rows, sources, targets, strict=True):
        if len(source) > source_length:
            source = [*source[: source_length - len(mark)], *mark]
            if row.output in row.input and row.output not in tokenizer.decode(source):
                continue
        kept_rows.append(row)
        kept_sources.append(source)
        kept_targets.append([*target[: target_length - 1], tokenizer.eos_token_id])
    return Examples(
        rows=tuple(kept_rows),
        tasks=tuple(tasks),
        source=_padded(kept_sources, value=tokenizer.pad_token_id, device=device),
        source_length=torch.tensor([len(ids) for ids in kept_sources], device=device),
        labels=_padded(kept_targets, value=IGNORED, device=device),
        task=torch.tensor([tasks.index(row.task) for row in kept_rows], dtype=torch.long, device=device),
    )


def few_of_each(rows: Iterable[Row], *, n: int | None, seed: int) -> list[Row]:
    """Return n rows of each task (all of them if None), drawn by seed and task name alone.

    A smaller draw is the beginning of a larger one, and what other tasks are drawn beside it does not matter, so that
    methods and sizes are compared on the same rows.
    """
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    drawn = []
    for task, its_rows in by_task.items():
        key = int.from_bytes(hashlib.sha256(task.encode()).digest()[:4])
        order = np.random.default_rng([seed, key]).permutation(len(its_rows))
        drawn.extend(its_rows[number] for number in order[:n])
    return drawn


class MixedBatches:
    """Batches that mix tasks, by step: every example once an epoch, in an order that seed and epoch give.

    Args:
        examples: what to draw from.
        n_examples: examples a batch.
        seed: the run's seed.
        copies: how often each example is in an epoch (N); once if None.
    """

    def __init__(self, examples: Examples, *, n_examples: int, seed: int, copies: Sequence[int] | None = None) -> None:
        self.examples, self._n, self._seed = examples, n_examples, seed
        counts = np.ones(len(examples), dtype=int) if copies is None else np.asarray(copies)
        self._slots = np.repeat(np.arange(len(examples)), counts)
        self._orders: dict[int, np.ndarray] = {}
        self.tokens_a_batch = n_examples * (examples.source.shape[1] + examples.labels.shape[1])

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a step."""
        places = np.arange(step * self._n, (step + 1) * self._n)
        epochs = places // len(self._slots)
        numbers = [
            self._order(int(epoch))[place] for epoch, place in zip(epochs, places % len(self._slots), strict=True)
        ]
        return self.examples.batch(torch.from_numpy(np.array(numbers)).to(self.examples.source.device))

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            # The last epochs only: a long run on few examples has thousands.
            self._orders = {number: its for number, its in self._orders.items() if number >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self._seed, epoch]).permutation(self._slots)
        return self._orders[epoch]


def even_copies(examples: Examples, *, power: float) -> list[int]:
    """Return how often each example is seen an epoch so that a task's share grows with its rows to a power.

    Power 1 leaves shares as they are, 0 evens them out (copies are whole numbers, so roughly).
    """
    sizes = torch.bincount(examples.task, minlength=len(examples.tasks)).clamp(min=1).double()
    factors = (sizes.max() / sizes) ** (1 - power)
    return [max(1, round(float(factors[task]))) for task in examples.task.tolist()]


def _padded(pieces: Sequence[Sequence[int]], *, value: int, device: torch.device) -> torch.Tensor:
    width = _up(max((len(piece) for piece in pieces), default=1))
    table = np.full((len(pieces), width), value, dtype=np.int32)
    for number, piece in enumerate(pieces):
        table[number, : len(piece)] = piece
    return torch.from_numpy(table).to(device)


def _up(length: int, *, at_most: int | None = None) -> int:
    """Return a length rounded up, so that few shapes occur."""
    rounded = -(-max(length, 1) // _BUCKET) * _BUCKET
    return rounded if at_most is None else min(rounded, at_most)
