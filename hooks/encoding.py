"""Texts as token ids that fit the model, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from routing import Prompt, TaskError

__all__ = ["Encoded", "TooLong", "context_length", "encoded_prompts", "padded", "tokens_alone"]

TooLong = Literal["error", "truncate"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A prompt as token ids.

    Attributes:
        prompt: the prompt.
        ids: its tokens, with what the tokenizer puts around a text.
        options: tokens of each option, as they continue the prompt.
        n_cut: tokens that were cut off at the beginning.
    """

    prompt: Prompt
    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...] = ()
    n_cut: int = 0


def context_length(model: nn.Module) -> int | None:
    """Most tokens that the model can read; None where it has no such limit."""
    config = getattr(model, "config", None)
    for holder in (config, getattr(config, "text_config", None)):
        length = getattr(holder, "max_position_embeddings", None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def encoded_prompts(
    prompts: Sequence[Prompt],
    *,
    tokenizer: Any,
    limit: int | None,
    n_new_tokens: Sequence[int],
    too_long: TooLong,
    apart: bool = False,
) -> list[Encoded]:
    """The prompts as token ids that fit into the context, room for the answer included.

    Args:
        prompts: the prompts.
        tokenizer: the model's tokenizer.
        limit: most tokens that the model can read, or None.
        n_new_tokens: tokens that each prompt needs behind it at least, options aside.
        too_long: what to do with a prompt that does not fit.
        apart: whether answers are written by another stack, so that they neither take room nor touch the prompt.

    Raises:
        TaskError: a prompt has no tokens, or does not fit and is not to be cut.
    """
    texts = tokenizer([prompt.text for prompt in prompts])["input_ids"] if prompts else []
    encoded: list[Encoded] = []
    over: list[tuple[int, str]] = []
    for prompt, ids, n_new in zip(prompts, texts, n_new_tokens, strict=True):
        if not ids:
            msg = (
                f"The prompt {prompt.id!r} has no tokens: its text is {prompt.text!r}. Give it a text, or leave it out."
            )
            raise TaskError(msg)
        options = tuple(
            tokens_alone(tokenizer, option) if apart else _continuation(tokenizer, prompt.text, ids, option)
            for option in prompt.options
        )
        room = 0 if apart else max((len(option) for option in options), default=n_new)
        n_cut = 0 if limit is None else max(0, len(ids) + room - limit)
        if n_cut and (too_long == "error" or n_cut >= len(ids)):
            over.append((len(ids) + room, prompt.id))
        encoded.append(
            Encoded(prompt=prompt, ids=_without_beginning(tokenizer, ids, n_cut), options=options, n_cut=n_cut)
        )
    if over:
        longest, name = max(over)
        msg = (
            f"{len(over)} of {len(prompts)} prompts do not fit the model's context of {limit} tokens; the longest, "
            f"{name!r}, takes {longest} with its answer. Shorten them, or have their beginnings cut off "
            "(too_long='truncate', --truncate)."
        )
        raise TaskError(msg)
    return encoded


def tokens_alone(tokenizer: Any, answer: str) -> tuple[int, ...]:
    """Tokens of an answer that a stack of its own writes, without what the tokenizer puts around a text.

    Raises:
        TaskError: it has none.
    """
    alone = tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not alone:
        msg = f"The answer {answer!r} has no tokens. Correct the task's options or target."
        raise TaskError(msg)
    return tuple(alone)


def padded(
    rows: Sequence[Sequence[int]], *, pad_id: int, side: Literal["left", "right"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """The rows as (ids, attention mask) of one width."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.int64)
        mask[number, place] = 1
    return ids.to(device), mask.to(device)


def _continuation(tokenizer: Any, text: str, ids: Sequence[int], option: str) -> tuple[int, ...]:
    """Tokens of an option as they stand behind the text."""
    whole = tokenizer(text + option)["input_ids"]
    if whole[-1:] == ids[-1:] and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        whole, ids = whole[:-1], ids[:-1]  # a tokenizer that closes each text closes both
    if len(whole) > len(ids) and list(whole[: len(ids)]) == list(ids):
        return tuple(whole[len(ids) :])
    # Text and option melt into one token at the seam: the option for itself.
    return tokens_alone(tokenizer, option)


def _without_beginning(tokenizer: Any, ids: Sequence[int], n_cut: int) -> tuple[int, ...]:
    if n_cut == 0 or n_cut >= len(ids):
        return tuple(ids)
    opens = 1 if ids[0] == tokenizer.bos_token_id and n_cut + 1 < len(ids) else 0
    return (*ids[:opens], *ids[opens + n_cut :])
