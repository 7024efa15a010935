"""What a text-to-text model answers on held-out examples: how likely the targets are, choices, written answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .corpus import Row, completion_of
from .examples import IGNORED, Examples
from .scoring import LONG_TASKS, scores_by_task

_LONG_ANSWER_TOKENS, _SHORT_ANSWER_TOKENS = 80, 32
_SOURCE_TOKENS_A_PASS = {"cuda": 131_072, "cpu": 8_192}
_MOST_EXAMPLES_A_PASS = 1024
"""However short the sources are: the logits of their targets take memory too, and runs share a GPU."""


@dataclass(frozen=True, kw_only=True)
class Forced:
    """What teacher forcing says of each example: whether greedy writing gives the target, and its mean nll."""

    exact: np.ndarray
    nll: np.ndarray
    task: np.ndarray

    def by_task(self, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the means of the examples of each task that has some."""
        return {
            name: {
                "exact": round(float(self.exact[self.task == number].mean()), 4),
                "nll": round(float(self.nll[self.task == number].mean()), 4),
                "n": int((self.task == number).sum()),
            }
            for number, name in enumerate(tasks)
            if (self.task == number).any()
        }


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Run a model without dropout and gradients, in the precision it is trained in; training mode comes back after."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(model.device):
            yield
    finally:
        model.train(was_training)


def autocast(device: torch.device) -> torch.autocast:
    """Return the precision of the recipes' text-to-text models: float32 weights, bfloat16 products on a GPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def forced(
    model: PreTrainedModel, examples: Examples, *, numbers: torch.Tensor | None = None, as_task: int | None = None
) -> Forced:
    """Return what teacher forcing says of examples.

    A greedy answer equals the target exactly when each of its tokens is the likeliest after those before it, so exact
    match needs no decoding.

    Args:
        model: takes ``task_ids``.
        examples: held-out ones.
        numbers: which of them; all if None.
        as_task: the task to tell the model instead of their own.
    """
    exact, nll = np.zeros(len(examples)), np.zeros(len(examples))
    order = _by_length(examples, numbers)
    with evaluating(model):
        for some in _passes(examples, order):
            batch = examples.batch(some, trimmed=True)
            labels = batch.pop("labels")
            if as_task is not None:
                batch["task_ids"] = torch.full_like(batch["task_ids"], as_task)
            batch["decoder_input_ids"] = shifted(model, labels)
            logits = model(**batch).logits.float()
            written = labels != IGNORED
            loss = functional.cross_entropy(logits.mT, labels, reduction="none", ignore_index=IGNORED)
            wrong = ((logits.argmax(-1) != labels) & written).any(1)
            where = some.cpu().numpy()
            exact[where] = (~wrong).float().cpu().numpy()
            nll[where] = (loss.sum(1) / written.sum(1)).cpu().numpy()
    kept = np.sort(order.cpu().numpy())
    return Forced(exact=exact[kept], nll=nll[kept], task=examples.task.cpu().numpy()[kept])


def shifted(model: PreTrainedModel, labels: torch.Tensor) -> torch.Tensor:
    """Return what a decoder reads to write labels (B, Q): its start token, then all but the last."""
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, model.config.pad_token_id)], dim=1)


def task_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    *,
    labels: dict[str, tuple[str, ...]],
) -> dict[str, dict[str, float]]:
    """Return each task's scores on examples: options by likelihood, answers by greedy decoding."""
    number_of = {id(row): number for number, row in enumerate(examples.rows)}

    def numbers(rows: list[Row]) -> torch.Tensor:
        return torch.tensor([number_of[id(row)] for row in rows], device=examples.source.device)

    return scores_by_task(
        examples.rows,
        labels=labels,
        choose=lambda rows, options: chosen_options(model, tokenizer, examples, numbers(rows), options=options),
        write=lambda rows: greedy_answers(model, tokenizer, examples, numbers(rows)),
    )


def chosen_options(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    examples: Examples,
    numbers: torch.Tensor,
    *,
    options: Sequence[Sequence[str]],
) -> list[str]:
    """Return for each example the option whose tokens, end token included, are likeliest."""
    device, place = examples.source.device, {int(number): n for n, number in enumerate(numbers)}
    distinct = sorted({option for its_options in options for option in its_options})
    ids = {option: tokenizer.backend_tokenizer.encode(completion_of(option)).ids for option in distinct}
    chosen = [""] * len(numbers)
    with evaluating(model):
        for some in _passes(examples, _by_length(examples, numbers)):
            batch = examples.batch(some, trimmed=True)
            start = batch.pop("labels")[:, :1]
            encoded = model(**batch, decoder_input_ids=shifted(model, start)).encoder_last_hidden_state
            asked = [(row, option) for row, n in enumerate(some.tolist()) for option in options[place[n]]]
            asked.sort(key=lambda pair: len(ids[pair[1]]))
            together = max(1, 4 * _SOURCE_TOKENS_A_PASS[device.type] // encoded.shape[1])
            best = [(-np.inf, "")] * len(some)
            for first in range(0, len(asked), together):
                part = asked[first : first + together]
                rows = torch.tensor([row for row, _ in part], device=device)
                targets = _targets([ids[option] for _, option in part], end=tokenizer.eos_token_id, device=device)
                logits = model(
                    attention_mask=batch["attention_mask"][rows],
                    task_ids=batch["task_ids"][rows],
                    encoder_outputs=(encoded[rows],),
                    decoder_input_ids=shifted(model, targets),
                ).logits.float()
                loss = functional.cross_entropy(logits.mT, targets, reduction="none", ignore_index=IGNORED).sum(1)
                for (row, option), value in zip(part, loss.tolist(), strict=True):
                    best[row] = max(best[row], (-value, option))
            for n, (_, option) in zip(some.tolist(), best, strict=True):
                chosen[place[n]] = option
    return chosen


def greedy_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: Examples, numbers: torch.Tensor
) -> list[str]:
    """Return the model's answer to each example, decoded greedily up to the end token."""
    place = {int(number): n for n, number in enumerate(numbers)}
    answers = [""] * len(numbers)
    with evaluating(model):
        for some in _passes(examples, _by_length(examples, numbers)):
            batch = examples.batch(some, trimmed=True)
            batch.pop("labels")
            long = examples.rows[int(some[0])].task in LONG_TASKS
            n_new = _LONG_ANSWER_TOKENS if long else _SHORT_ANSWER_TOKENS
            ids = model.generate(**batch, max_new_tokens=n_new, do_sample=False)
            for n, text in zip(some.tolist(), tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                answers[place[n]] = text.strip()
    return answers


def _by_length(examples: Examples, numbers: torch.Tensor | None) -> torch.Tensor:
    every = torch.arange(len(examples), device=examples.source.device) if numbers is None else numbers
    return every[examples.source_length[every].argsort()]


def _passes(examples: Examples, order: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield numbers of examples of like length, as many as a pass has room for; the longest first."""
    budget = _SOURCE_TOKENS_A_PASS[examples.source.device.type]
    while len(order):
        together = min(_MOST_EXAMPLES_A_PASS, max(1, budget // max(1, int(examples.source_length[order[-1]]))))
        yield order[-together:]
        order = order[:-together]


def _targets(pieces: Sequence[Sequence[int]], *, end: int, device: torch.device) -> torch.Tensor:
    longest = max(map(len, pieces)) + 1
    rows = [[*piece, end, *([IGNORED] * (longest - len(piece) - 1))] for piece in pieces]
    return torch.tensor(rows, device=device)
