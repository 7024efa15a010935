"""Documents packed into rows of one length, every batch a function of seed and step alone.

Because a batch depends on nothing else, any number of worker processes gives the same run, and a resumed run goes on
with exactly the batches it would have seen.
"""

import signal
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from .documents import Documents, text_of
from .schedule import Schedule

# A completion weighs about as much as this many tokens however short it is, within the bounds below, so that a
# one-word answer is not drowned by a translation.
_COMPLETION_TOKENS = 8.0
_LEAST_WEIGHT, _MOST_WEIGHT = 0.5, 4.0

Batch = dict[str, torch.Tensor]


class BatchSource(Protocol):
    """The batches of a run, by step."""

    @property
    def tokens_a_batch(self) -> int:
        """How many tokens a batch holds, padding counted."""

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step, the same whenever it is asked for."""


class PackedBatches(Dataset):
    """The batches of a run, by step.

    Args:
        documents: draws the documents.
        tokenizer: encodes them.
        schedule: gives the loss weight of what is read.
        n_rows: rows a batch.
        row_length: tokens a row.
        seed: the run's seed.
    """

    def __init__(
        self,
        documents: Documents,
        tokenizer: PreTrainedTokenizerFast,
        *,
        schedule: Schedule,
        n_rows: int,
        row_length: int,
        seed: int,
    ) -> None:
        self._documents, self._tokenizer, self._schedule = documents, tokenizer, schedule
        self._n_rows, self._row_length, self._seed = n_rows, row_length, seed

    @property
    def tokens_a_batch(self) -> int:
        """How many tokens a batch holds, padding counted."""
        return self._n_rows * self._row_length

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step: tokens, document numbers, positions and target weights, each row by column."""
        random = np.random.default_rng([self._seed, step])
        room = self._n_rows * self._row_length
        pieces: list[tuple[list[int], int]] = []
        n_drawn = 0
        while n_drawn < room:
            texts = [text_of(self._documents.document(step, random=random)) for _ in range(64)]
            encoded = encoded_documents(texts, self._tokenizer, most_tokens=self._row_length)
            pieces.extend(encoded)
            n_drawn += sum(len(tokens) for tokens, _ in encoded)
        return packed(
            pieces,
            n_rows=self._n_rows,
            row_length=self._row_length,
            read_weight=self._schedule.read_weight(step),
            padding=self._tokenizer.pad_token_id,
        )


def batches(dataset: BatchSource, *, start: int, stop: int, n_workers: int) -> Iterator[Batch]:
    """Return the batches of steps start to stop; worker processes, if any, start to prepare them at once."""
    steps = range(start, stop)
    if not n_workers:
        return (dataset[step] for step in steps)
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=n_workers,
        prefetch_factor=4,
        worker_init_fn=_left_to_the_run,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


def _left_to_the_run(_number: int) -> None:
    """Let a worker live on when its whole process group is asked to end: its run ends it, after the state is saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def encoded_documents(
    texts: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, *, most_tokens: int
) -> list[tuple[list[int], int]]:
    """Return each document's tokens, end token included, and how many of them are the prompt.

    A document that is too long loses the end of its input, never its ``answer:`` or its completion.
    """
    backend = tokenizer.backend_tokenizer
    prompts = backend.encode_batch_fast([prompt for prompt, _ in texts], add_special_tokens=False)
    completions = backend.encode_batch_fast([text for _, text in texts], add_special_tokens=False)
    mark = backend.encode("\nanswer:", add_special_tokens=False).ids
    documents = []
    for prompt, completion in zip(prompts, completions, strict=True):
        answer = completion.ids[: most_tokens // 2] + [tokenizer.eos_token_id]
        read = prompt.ids
        if len(read) + len(answer) > most_tokens:
            read = read[: most_tokens - len(answer) - len(mark)] + mark
        documents.append((read + answer, len(read)))
    return documents


def packed(
    pieces: list[tuple[list[int], int]], *, n_rows: int, row_length: int, read_weight: float, padding: int
) -> Batch:
    """Return documents laid into rows, longest first, each into the first row with room for it.

    Args:
        pieces: tokens of each document and the length of its prompt.
        n_rows: rows to fill; documents that fit nowhere are left out.
        row_length: tokens a row.
        read_weight: weight of a target that is part of a prompt.
        padding: token of empty places.

    Returns:
        (row, column) tensors: ``tokens``; ``documents``, 0 on padding, counting from 1 in each row; ``positions``
        within the document; ``weights``, the loss weight of predicting the next token here, 0 at a document's end.
    """
    tokens = np.full((n_rows, row_length), padding, dtype=np.int32)
    documents = np.zeros((n_rows, row_length), dtype=np.int16)
    positions = np.zeros((n_rows, row_length), dtype=np.int32)
    weights = np.zeros((n_rows, row_length), dtype=np.float32)
    filled = np.zeros(n_rows, dtype=np.int64)
    n_documents = np.zeros(n_rows, dtype=np.int64)
    for ids, n_read in sorted(pieces, key=lambda piece: -len(piece[0])):
        room = np.flatnonzero(filled + len(ids) <= row_length)
        if not len(room):
            continue
        row = room[0]
        start, stop = filled[row], filled[row] + len(ids)
        n_documents[row] += 1
        tokens[row, start:stop] = ids
        documents[row, start:stop] = n_documents[row]
        positions[row, start:stop] = np.arange(len(ids))
        weights[row, start : stop - 1] = read_weight
        n_written = len(ids) - n_read
        weight = min(_MOST_WEIGHT, max(_LEAST_WEIGHT, _COMPLETION_TOKENS / n_written))
        weights[row, start + n_read - 1 : stop - 1] = weight
        filled[row] = stop
    return {
        "tokens": torch.from_numpy(tokens),
        "documents": torch.from_numpy(documents),
        "positions": torch.from_numpy(positions),
        "weights": torch.from_numpy(weights),
    }
