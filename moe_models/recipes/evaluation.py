"""Scores per task on held-out rows: options by likelihood, answers by greedy decoding; and the load meanwhile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from .architecture import hidden_states
from .balance import assignment_counts, max_over_mean
from .batches import encoded_documents
from .corpus import Row, completion_of, prompt_of
from .scoring import LONG_TASKS, scores_by_task

_LONG_ANSWER_TOKENS, _SHORT_ANSWER_TOKENS = 96, 40
_TOKENS_A_PASS = {"cuda": 65_536, "cpu": 4_096}

Document = tuple[list[int], int]


@dataclass(frozen=True, kw_only=True)
class PromptReadings:
    """What one pass over rows tells.

    Attributes:
        hit: (row,) whether each token of the answer is the likeliest after those before it.
        written: (row,) nats a token of the answer, its end token included.
        read: (row,) nats a token of the prompt, after its first.
        load: load of each layer's fullest expert over the mean.
    """

    hit: np.ndarray
    written: np.ndarray
    read: np.ndarray
    load: list[float]


@torch.inference_mode()
def prompt_readings(model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> PromptReadings:
    """Return losses row by row, and the load."""
    documents = _documents(model, tokenizer, [(row, row.output) for row in rows])
    hit, nlls = np.zeros(len(rows), dtype=bool), np.zeros((2, len(rows)))
    counts = torch.zeros((), dtype=torch.int64, device=model.device)
    for numbers, tokens, written, valid in _padded(documents, model=model, padding=tokenizer.pad_token_id):
        logits, router_logits = _logits(model, tokens, valid)
        targets = tokens.roll(-1, dims=1).long()
        nll = torch.nn.functional.cross_entropy(logits.float().mT, targets, reduction="none")
        hit[numbers] = ~((logits.argmax(-1) != targets) & written).any(1).cpu().numpy()
        # The last token of a row predicts nothing; the others predict the answer or the rest of the prompt.
        read = valid & valid.roll(-1, dims=1) & ~written
        read[:, -1] = False
        for place, kind in enumerate((written, read)):
            nlls[place, numbers] = ((nll * kind).sum(1) / kind.sum(1).clamp(min=1)).cpu().numpy()
        counts = counts + assignment_counts(router_logits, valid.reshape(-1), top_k=model.config.num_experts_per_tok)
    load = [round(float(ratio), 2) for ratio in max_over_mean(counts)]
    return PromptReadings(hit=hit, written=nlls[0], read=nlls[1], load=load)


def quick_check(model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> dict[str, object]:
    """Return exact matches and the answers' mean nll per task, and the load per layer, from one pass over rows.

    A greedy answer equals the target exactly when each target token is the likeliest after those before it, so
    exact match needs no decoding.
    """
    readings = prompt_readings(model, tokenizer, rows)
    tasks = np.array([row.task for row in rows])
    of_task = {task: tasks == task for task in sorted({row.task for row in rows})}
    return {
        "dev_exact": {task: round(float(readings.hit[its].mean()), 3) for task, its in of_task.items()},
        "dev_nll": {task: round(float(readings.written[its].mean()), 3) for task, its in of_task.items()},
        "dev_load": readings.load,
    }


@torch.inference_mode()
def task_scores(
    model: OlmoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    *,
    labels: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, float]]:
    """Return each task's scores on rows, and beside them what always giving the commonest answer scores.

    Tasks with options (their label set, or the row's own) are scored by the likelihood of each option: ``accuracy``.
    The others are decoded greedily: ``exact_match`` and ``token_f1``, each against the best of the accepted answers.
    """
    return scores_by_task(
        rows,
        labels=labels,
        choose=lambda its, options: chosen_options(model, tokenizer, its, options=options),
        write=lambda its: greedy_answers(model, tokenizer, its),
    )


def chosen_options(
    model: OlmoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    *,
    options: Sequence[Sequence[str]],
) -> list[str]:
    """Return for each row the option whose tokens, end token included, are likeliest after its prompt."""
    asked = [(row, option) for row, its_options in zip(rows, options, strict=True) for option in its_options]
    documents = _documents(model, tokenizer, asked)
    likelihoods = [0.0] * len(asked)
    for numbers, tokens, written, valid in _padded(documents, model=model, padding=tokenizer.pad_token_id):
        logits, _ = _logits(model, tokens, valid)
        nll = torch.nn.functional.cross_entropy(logits.float().mT, tokens.roll(-1, dims=1).long(), reduction="none")
        for n, value in zip(numbers, (nll * written).sum(1).tolist(), strict=True):
            likelihoods[n] = -value
    chosen, start = [], 0
    for its_options in options:
        its = likelihoods[start : start + len(its_options)]
        chosen.append(its_options[max(range(len(its)), key=its.__getitem__)])
        start += len(its_options)
    return chosen


def greedy_answers(model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[str]:
    """Return the model's answer to each row, decoded greedily up to the end token."""
    long = rows[0].task in LONG_TASKS
    n_new = _LONG_ANSWER_TOKENS if long else _SHORT_ANSWER_TOKENS
    most = model.config.max_position_embeddings - n_new
    prompts = [tokens[:n_read] for tokens, n_read in _documents(model, tokenizer, [(row, "") for row in rows], most)]
    order = sorted(range(len(rows)), key=lambda n: len(prompts[n]))
    n_together = max(1, _TOKENS_A_PASS[model.device.type] // 128)
    answers = [""] * len(rows)
    for first in range(0, len(order), n_together):
        numbers = order[first : first + n_together]
        padded = tokenizer.pad({"input_ids": [prompts[n] for n in numbers]}, return_tensors="pt")
        padded = {name: values.to(model.device) for name, values in padded.items()}
        generated = model.generate(**padded, max_new_tokens=n_new, do_sample=False)
        new = generated[:, padded["input_ids"].shape[1] :]
        for n, text in zip(numbers, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[n] = text.strip()
    return answers


def packed_passes(
    model: OlmoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]]:
    """Yield, for rows of like length together, last states, router logits a layer, and what is no padding."""
    documents = _documents(model, tokenizer, [(row, row.output) for row in rows])
    for _, tokens, _, valid in _padded(documents, model=model, padding=tokenizer.pad_token_id):
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        states, router_logits = hidden_states(model, tokens, positions, valid.int())
        yield states, router_logits, valid


def _documents(
    model: OlmoeForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    asked: Sequence[tuple[Row, str]],
    most_tokens: int | None = None,
) -> list[Document]:
    texts = [(prompt_of(row), completion_of(answer) if answer else "") for row, answer in asked]
    return encoded_documents(texts, tokenizer, most_tokens=most_tokens or model.config.max_position_embeddings)


def _padded(
    documents: Sequence[Document], *, model: OlmoeForCausalLM, padding: int
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield documents of like length together: numbers, tokens, what predicts a completion, what is no padding."""
    order = sorted(range(len(documents)), key=lambda n: len(documents[n][0]))
    budget = _TOKENS_A_PASS[model.device.type]
    while order:
        longest = len(documents[order[-1]][0])
        n_together = max(1, budget // longest)
        numbers, order = order[-n_together:], order[:-n_together]
        tokens = torch.full((len(numbers), longest), padding, dtype=torch.int32)
        written = torch.zeros(len(numbers), longest, dtype=torch.bool)
        valid = torch.zeros(len(numbers), longest, dtype=torch.bool)
        for row, n in enumerate(numbers):
            ids, n_read = documents[n]
            tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
            written[row, n_read - 1 : len(ids) - 1] = True
            valid[row, : len(ids)] = True
        yield numbers, tokens.to(model.device), written.to(model.device), valid.to(model.device)


def _logits(
    model: OlmoeForCausalLM, tokens: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    states, router_logits = hidden_states(model, tokens, positions, valid.int())
    return model.lm_head(states), router_logits
