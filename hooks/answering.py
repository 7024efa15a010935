"""Answers of a model to batches of prompts, and the passes over them that are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import GenerationConfig

from hooks.conditioning import Conditioning
from hooks.encoding import Encoded, context_length, padded, tokens_alone
from hooks.generation import eos_ids_of
from hooks.models import model_device
from hooks.options import OptionNorm, decoder_start_id, option_scores
from hooks.scoring import first_line

if TYPE_CHECKING:
    from hooks.recorder import Recorder

__all__ = ["Answerer", "generation_inputs"]

N_OPTIONS_A_PROMPT_AT_ONCE = 4


def generation_inputs(
    model: nn.Module,
    batch: Sequence[Encoded],
    *,
    pad_id: int,
    n_new_tokens: int,
    told: dict[str, torch.Tensor] | None = None,
) -> dict[str, Any]:
    """Arguments of a greedy `generate()` over a batch, with the tasks of its prompts where the model is told them.

    Args:
        model: a model that writes text.
        batch: the prompts.
        pad_id: token that fills batches.
        n_new_tokens: most tokens to write.
        told: what the model is given beside these texts; None asks `Conditioning`.
    """
    two_stacks = bool(getattr(model.config, "is_encoder_decoder", False))
    side = "right" if two_stacks else "left"
    rows = [each.ids for each in batch]
    ids, mask = padded(rows, pad_id=pad_id, side=side, device=model_device(model))
    limit = None if two_stacks else context_length(model)
    if limit is not None:
        n_new_tokens = min(n_new_tokens, limit - ids.shape[1])
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=n_new_tokens,
        pad_token_id=pad_id,
        eos_token_id=sorted(eos_ids_of(model)) or None,
        decoder_start_token_id=decoder_start_id(model, pad_id=pad_id) if two_stacks else None,
    )
    if told is None:
        told = Conditioning(model).arguments([each.prompt for each in batch], ids, mask)
    return {"input_ids": ids, "attention_mask": mask, "generation_config": config, **told}


class Answerer:
    """Answers batches, recorded.

    Where a row of the trace is a token, the recorded pass is the prompt with what the model answered. Where it is a
    prompt (PHA, Task-level MoE), what is routed does not depend on the answer: the recorded pass is the prompt with its
    target, if it has one, so that its likelihood is that of the right answer, and answers are found unrecorded.

    Args:
        recorder: the recorder, inside its context.
        option_norm: what an option's log-likelihood is divided by.
    """

    def __init__(self, recorder: Recorder, *, option_norm: OptionNorm) -> None:
        self._recorder, self._norm = recorder, option_norm
        # Calls go through what the user gave: a wrapper (compiled, data parallel) is part of what is recorded.
        self._model, self._inner = recorder.model, recorder.inner
        self._tokenizer = recorder.tokenizer
        self._device = model_device(recorder.inner)
        self._two_stacks = bool(getattr(self._inner.config, "is_encoder_decoder", False))
        self._conditioning = Conditioning(self._inner)
        pad_id = self._tokenizer.pad_token_id
        self._pad_id = pad_id if pad_id is not None else next(iter(eos_ids_of(self._inner)), 0)

    @torch.no_grad()
    def answered(self, batch: Sequence[Encoded], *, kind: str, n_new_tokens: int) -> tuple[list[str | None], int]:
        """Answers of a batch (None where it is only read), and how many tokens were fed.

        Args:
            batch: the prompts.
            kind: "choose" the likeliest option, "generate", or only "read".
            n_new_tokens: most tokens to generate.
        """
        told = self._told(batch)
        if kind == "choose":
            return self._chosen(batch, told)
        if kind == "generate":
            return self._generated(batch, n_new_tokens, told)
        return [None] * len(batch), self._read(batch, answers=[self._target(each) for each in batch], told=told)

    def _told(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """What the model is given beside these texts, asked once: a retriever runs the whole encoder for it."""
        if not self._conditioning.is_needed:
            return {}
        ids, mask = padded([each.ids for each in batch], pad_id=self._pad_id, side="right", device=self._device)
        with self._recorder.paused():
            return self._conditioning.arguments([each.prompt for each in batch], ids, mask)

    def _target(self, each: Encoded, *, instead: Sequence[int] = ()) -> tuple[int, ...]:
        """Tokens of what the recorded pass writes: the target where a row is a prompt and has one."""
        if self._recorder.unit == "prompt" and each.prompt.target:
            return tokens_alone(self._tokenizer, each.prompt.target)
        return tuple(instead)

    def _chosen(self, batch: Sequence[Encoded], told: dict[str, torch.Tensor]) -> tuple[list[str | None], int]:
        with self._recorder.paused():
            scores = option_scores(
                self._inner,
                batch,
                pad_id=self._pad_id,
                device=self._device,
                norm=self._norm,
                n_rows=N_OPTIONS_A_PROMPT_AT_ONCE * len(batch),
                told=told,
            )
        best = [max(range(len(each)), key=each.__getitem__) for each in scores]
        answers = [self._target(each, instead=each.options[place]) for each, place in zip(batch, best, strict=True)]
        n_fed = self._read(batch, answers=answers, told=told)
        return [each.prompt.options[place] for each, place in zip(batch, best, strict=True)], n_fed

    def _read(
        self, batch: Sequence[Encoded], *, answers: Sequence[Sequence[int]], told: dict[str, torch.Tensor]
    ) -> int:
        prompts = [each.prompt for each in batch]
        if self._two_stacks:
            start = decoder_start_id(self._inner, pad_id=self._pad_id)
            ids, mask = padded([each.ids for each in batch], pad_id=self._pad_id, side="right", device=self._device)
            written = [(start, *each) for each in answers]
            out, out_mask = padded(written, pad_id=self._pad_id, side="right", device=self._device)
            given = {"input_ids": ids, "attention_mask": mask, **told}
            with self._recorder.labelled(prompts):
                self._model(**given, decoder_input_ids=out, decoder_attention_mask=out_mask)
            return sum(len(each.ids) for each in batch) + sum(map(len, written))
        rows = [(*each.ids, *answer) for each, answer in zip(batch, answers, strict=True)]
        ids, mask = padded(rows, pad_id=self._pad_id, side="right", device=self._device)
        with self._recorder.labelled(prompts, n_prompt_tokens=[len(each.ids) for each in batch]):
            self._model(input_ids=ids, attention_mask=mask)
        return sum(map(len, rows))

    def _generated(
        self, batch: Sequence[Encoded], n_new_tokens: int, told: dict[str, torch.Tensor]
    ) -> tuple[list[str | None], int]:
        prompts = [each.prompt for each in batch]
        by_prompt = self._recorder.unit == "prompt"
        given = generation_inputs(self._inner, batch, pad_id=self._pad_id, n_new_tokens=n_new_tokens, told=told)
        with self._recorder.paused() if by_prompt else self._recorder.labelled(prompts):
            found = self._inner.generate(**given)
        ids = given["input_ids"]
        written = found[:, 1:] if self._two_stacks else found[:, ids.shape[1] :]
        texts = [first_line(text) for text in self._tokenizer.batch_decode(written, skip_special_tokens=True)]
        n_fed = int(given["attention_mask"].sum()) + written.numel()
        if by_prompt:
            n_fed += self._read(
                batch,
                answers=[self._target(each, instead=self._kept(row)) for each, row in zip(batch, written, strict=True)],
                told=told,
            )
        return list(texts), n_fed

    def _kept(self, row: torch.Tensor) -> list[int]:
        """What was written before the end."""
        ids, ends = row.tolist(), {self._pad_id, *eos_ids_of(self._inner)}
        return ids[: next((place for place, each in enumerate(ids) if each in ends), len(ids))]
