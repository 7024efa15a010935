"""How likely the model finds each option: one reading of the prompt, then the options behind it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hooks.conditioning import Conditioning
from hooks.encoding import Encoded, padded

__all__ = ["OptionNorm", "option_scores"]

OptionNorm = Literal["bytes", "tokens", "sum"]
"""What an option's log-likelihood is divided by: its length in UTF-8, in tokens, or nothing."""


@torch.no_grad()
def option_scores(
    model: nn.Module,
    batch: Sequence[Encoded],
    *,
    pad_id: int,
    device: torch.device,
    norm: OptionNorm,
    n_rows: int,
    told: dict[str, Tensor] | None = None,
) -> list[list[float]]:
    """Log-likelihood of each option behind its prompt, divided as `norm` says.

    Args:
        model: a model that writes text.
        batch: prompts with options.
        pad_id: token that fills batches.
        device: where the model reads.
        norm: what the log-likelihood is divided by.
        n_rows: options that are read at once.
        told: what a model of two stacks is given beside these texts; None asks `Conditioning`.

    Returns:
        (prompt) (option) · nats, by byte or token where so asked · 0 or less.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        sums = _behind_an_encoder(model, batch, pad_id=pad_id, device=device, n_rows=n_rows, told=told)
    else:
        sums = _behind_a_cache(model, batch, pad_id=pad_id, device=device, n_rows=n_rows)
    scores: list[list[float]] = []
    flat = iter(sums)
    for each in batch:
        lengths = (
            (len(text.encode()) if norm == "bytes" else len(ids)) if norm != "sum" else 1
            for text, ids in zip(each.prompt.options, each.options, strict=True)
        )
        scores.append([next(flat) / max(1, length) for length in lengths])
    return scores


def _behind_a_cache(
    model: nn.Module, batch: Sequence[Encoded], *, pad_id: int, device: torch.device, n_rows: int
) -> list[float]:
    rows, options = _rows_and_options(batch)
    ids, mask = padded([each.ids for each in batch], pad_id=pad_id, side="left", device=device)
    places = (mask.cumsum(1) - 1).clamp_min(0)
    takes_places = "position_ids" in inspect.signature(model.forward).parameters
    read = model(
        input_ids=ids, attention_mask=mask, use_cache=True, **({"position_ids": places} if takes_places else {})
    )
    cache = getattr(read, "past_key_values", None)
    if not _can_be_copied(cache):
        return _without_cache(model, batch, pad_id=pad_id, device=device, n_rows=n_rows)
    last = read.logits[:, -1].float().log_softmax(-1)
    sums = [float(each) for each in last[torch.tensor(rows), torch.tensor([option[0] for option in options])]]
    longer = [number for number, option in enumerate(options) if len(option) > 1]
    for start in range(0, len(longer), n_rows):
        part = longer[start : start + n_rows]
        chosen = torch.tensor([rows[number] for number in part], device=device)
        fed, fed_mask = padded([options[number][:-1] for number in part], pad_id=pad_id, side="right", device=device)
        own = copy.deepcopy(cache)
        own.batch_select_indices(chosen)
        behind = (places[chosen, -1:] + 1) + torch.arange(fed.shape[1], device=device)
        logits = model(
            input_ids=fed,
            attention_mask=torch.cat((mask[chosen], fed_mask), 1),
            past_key_values=own,
            use_cache=True,
            **({"position_ids": behind} if takes_places else {}),
        ).logits
        for number, value in zip(part, _sums(logits, [options[each][1:] for each in part]), strict=True):
            sums[number] += value
    return sums


def _without_cache(
    model: nn.Module, batch: Sequence[Encoded], *, pad_id: int, device: torch.device, n_rows: int
) -> list[float]:
    """The same for models whose cache cannot be copied by rows: the prompt is read again with each option."""
    rows, options = _rows_and_options(batch)
    sums: list[float] = []
    for start in range(0, len(rows), n_rows):
        part = range(start, min(start + n_rows, len(rows)))
        whole = [(*batch[rows[number]].ids, *options[number]) for number in part]
        ids, mask = padded(whole, pad_id=pad_id, side="right", device=device)
        logits = model(input_ids=ids, attention_mask=mask).logits
        for place, number in enumerate(part):
            first = len(batch[rows[number]].ids) - 1
            sums += _sums(logits[place : place + 1, first:], [options[number]])
    return sums


def _behind_an_encoder(
    model: nn.Module,
    batch: Sequence[Encoded],
    *,
    pad_id: int,
    device: torch.device,
    n_rows: int,
    told: dict[str, Tensor] | None,
) -> list[float]:
    rows, options = _rows_and_options(batch)
    ids, mask = padded([each.ids for each in batch], pad_id=pad_id, side="right", device=device)
    conditioning = Conditioning(model)
    if told is None:
        told = conditioning.arguments([each.prompt for each in batch], ids, mask)
    with conditioning.encoding(told):
        read = model.get_encoder()(input_ids=ids, attention_mask=mask)
    start_id = decoder_start_id(model, pad_id=pad_id)
    sums: list[float] = []
    for start in range(0, len(rows), n_rows):
        part = range(start, min(start + n_rows, len(rows)))
        chosen = torch.tensor([rows[number] for number in part], device=device)
        fed, fed_mask = padded(
            [(start_id, *options[number][:-1]) for number in part], pad_id=pad_id, side="right", device=device
        )
        logits = model(
            encoder_outputs=type(read)(last_hidden_state=read.last_hidden_state[chosen]),
            attention_mask=mask[chosen],
            decoder_input_ids=fed,
            decoder_attention_mask=fed_mask,
            **{name: value[chosen] for name, value in told.items()},
        ).logits
        sums += _sums(logits, [options[number] for number in part])
    return sums


def decoder_start_id(model: nn.Module, *, pad_id: int) -> int:
    """The token that a decoder begins with."""
    for holder in (getattr(model, "generation_config", None), model.config):
        start = getattr(holder, "decoder_start_token_id", None)
        if isinstance(start, int):
            return start
    return pad_id


def _rows_and_options(batch: Sequence[Encoded]) -> tuple[list[int], list[tuple[int, ...]]]:
    rows = [number for number, each in enumerate(batch) for _ in each.options]
    return rows, [option for each in batch for option in each.options]


def _sums(logits: Tensor, targets: Sequence[Sequence[int]]) -> list[float]:
    """Sum of the log-likelihoods of each row's targets, which the first columns of its logits predict."""
    width = max(len(target) for target in targets)
    wanted = torch.zeros((len(targets), width), dtype=torch.int64)
    counted = torch.zeros((len(targets), width))
    for number, target in enumerate(targets):
        wanted[number, : len(target)] = torch.tensor(target)
        counted[number, : len(target)] = 1
    likely = logits[:, :width].float().log_softmax(-1).gather(-1, wanted.to(logits.device)[..., None]).squeeze(-1)
    return (likely * counted.to(logits.device)).sum(1).tolist()


def _can_be_copied(cache: Any) -> bool:
    layers = getattr(cache, "layers", None)
    return bool(layers) and all(hasattr(layer, "batch_select_indices") for layer in layers)
