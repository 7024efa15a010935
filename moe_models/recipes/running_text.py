"""The text a backbone is pretrained on: inputs of train rows, and long outputs, each on its own.

An input and its output never stand in one document, and outputs short enough to be labels are left out: what the
backbone learns is text, not the tasks.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from .corpus import Row, prompt_of
from .denoising import OBJECTIVES, Denoiser

_LEAST_OUTPUT_WORDS = 6
_MOST_COPIES = 4


def without_instruction(prompt: str) -> str:
    """Return a prompt without its first line, the instruction."""
    return prompt.partition("\n")[2]


def documents_of(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return the documents of each task: inputs with and without their instruction, and outputs of some length."""
    documents: dict[str, list[str]] = {}
    for row in rows:
        its = documents.setdefault(row.task, [])
        prompt = prompt_of(row)
        its += [prompt, without_instruction(prompt)]
        if len(row.output.split()) >= _LEAST_OUTPUT_WORDS:
            its.append(row.output)
    return documents


def token_stream(rows: Iterable[Row], tokenizer: PreTrainedTokenizerFast, *, seed: int) -> torch.Tensor:
    """Return all documents as one run of token ids, shuffled, an end token after each.

    Tasks of little text come in copies, so that short requests are not lost among e-mails: a task's share grows with
    the square root of its tokens, within bounds.
    """
    end = tokenizer.eos_token_id
    encoded = {
        task: [
            np.array([*encoding.ids, end], dtype=np.int32)
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        for task, texts in sorted(documents_of(rows).items())
    }
    sizes = {task: sum(map(len, its)) for task, its in encoded.items()}
    most = max(sizes.values())
    copies = {task: min(_MOST_COPIES, max(1, round((most / size) ** 0.5))) for task, size in sizes.items()}
    pieces = [piece for its in encoded.values() for piece in its]
    order = np.repeat(np.arange(len(pieces)), [copies[task] for task, its in encoded.items() for _ in its])
    np.random.default_rng(seed).shuffle(order)
    return torch.from_numpy(np.concatenate([pieces[number] for number in order]))


class DenoisingBatches:
    """The batches of a pretraining run, by step; a function of seed and step alone.

    Args:
        stream: token ids, on the device where batches shall be.
        denoiser: how windows are damaged.
        shares: how often each objective is drawn, by name.
        n_windows: windows a batch.
        length: tokens a window.
        seed: the run's seed.
    """

    def __init__(
        self,
        stream: torch.Tensor,
        *,
        denoiser: Denoiser,
        shares: dict[str, float],
        n_windows: int,
        length: int,
        seed: int,
    ) -> None:
        self._stream, self._denoiser, self._length, self._seed = stream, denoiser, length, seed
        self._n_windows = n_windows
        self._objectives = [name for name in OBJECTIVES if shares.get(name, 0) > 0]
        self._shares = np.array([shares[name] for name in self._objectives], dtype=float)
        self._shares /= self._shares.sum()
        self.tokens_a_batch = n_windows * length

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives that are drawn."""
        return self._objectives

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a step: source, and target, of one objective."""
        random = np.random.default_rng([self._seed, step])
        objective = self._objectives[int(random.choice(len(self._objectives), p=self._shares))]
        return self.batch(objective, key=int(random.integers(2**62)))

    def batch(self, objective: str, *, key: int) -> dict[str, torch.Tensor]:
        """Return a batch of one objective, drawn by a key."""
        device = self._stream.device
        generator = torch.Generator(device).manual_seed(key)
        highest = len(self._stream) - self._length + 1
        starts = torch.randint(highest, (self._n_windows, 1), device=device, generator=generator)
        windows = self._stream[starts + torch.arange(self._length, device=device)].long()
        source, target = self._denoiser.pair(windows, objective=objective, generator=generator)
        return {"input_ids": source.contiguous(), "labels": target.contiguous()}
