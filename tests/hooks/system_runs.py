"""Recordings of tiny models of our three systems, and what their modules really computed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hooks import Recorder
from routing import Prompt, RoutingTrace, open_trace
from tests.hooks.forwards import n_hooks, tensors_in
from tests.tiny import PAD, byte_tokenizer
from tests.tiny_systems import TASKS

TEXTS = ("a river", "the capital of France is", "x", "12 + 30 =")
ANSWERS = ("runs", "Paris", "y", "42")


def ids_of(text: str) -> list[int]:
    return byte_tokenizer()(text)["input_ids"]


def prompts_of(texts: Sequence[str] = TEXTS) -> list[Prompt]:
    """Prompts of the models' own tasks, in turn."""
    return [Prompt(id=text, text=text, task=TASKS[number % len(TASKS)]) for number, text in enumerate(texts)]


def batch_of(
    model: PreTrainedModel, texts: Sequence[str] = TEXTS, *, side: str = "right", answers: Sequence[str] = ANSWERS
) -> dict[str, Tensor]:
    """Arguments of a forward over the texts, answers in the decoder where there is one, tasks where they are asked."""
    ids, mask = _padded([ids_of(text) for text in texts], side=side)
    given = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        written, out_mask = _padded([[start, *ids_of(each)] for each in answers[: len(texts)]], side="right")
        given |= {"decoder_input_ids": written, "decoder_attention_mask": out_mask}
    else:
        given["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    return given | told(model, texts)


def told(model: PreTrainedModel, texts: Sequence[str] = TEXTS) -> dict[str, Tensor]:
    """The tasks of the texts, for models that are told them."""
    if not hasattr(model, "task_ids"):
        return {}
    return {"task_ids": model.task_ids([prompt.task for prompt in prompts_of(texts)])}


def recorded(
    model: PreTrainedModel, out: Path, *, texts: Sequence[str] = TEXTS, side: str = "right", **options: Any
) -> RoutingTrace:
    """A trace of one labelled forward."""
    with torch.no_grad(), Recorder(model, byte_tokenizer(), out=out, **options) as recorder:
        with recorder.labelled(prompts_of(texts)):
            model(**batch_of(model, texts, side=side))
    return open_trace(out)


@torch.no_grad()
def require_nll_of_answers(model: PreTrainedModel, trace: RoutingTrace) -> None:
    """Each prompt's nll is the mean over its answer's tokens, read alone."""
    for row, (text, answer) in enumerate(zip(TEXTS, ANSWERS, strict=True)):
        alone = batch_of(model, (text,), answers=(answer,)) | {"task_ids": told(model)["task_ids"][row : row + 1]}
        likely = model(**alone).logits[0].log_softmax(-1)
        expected = -np.mean([float(likely[place, each]) for place, each in enumerate(ids_of(answer))])
        assert float(trace.tokens["nll"][row]) == pytest.approx(expected, rel=1e-4)


def require_untouched(model: PreTrainedModel, out: Path) -> RoutingTrace:
    """Recording changes no output, and leaves no hook and no attribute, after an error as well; the broken trace."""
    batch, before, own = batch_of(model), n_hooks(model), set(model.__dict__)
    with torch.no_grad():
        plain = list(tensors_in(model(**batch)))
        with Recorder(model, out=out / "trace"):
            tapped = list(tensors_in(model(**batch)))
    assert all(torch.equal(one, other) for one, other in zip(plain, tapped, strict=True))
    with pytest.raises(ZeroDivisionError), Recorder(model, out=out / "broken"):
        model(**batch)
        _ = 1 / 0
    assert (n_hooks(model), set(model.__dict__)) == (before, own)
    return open_trace(out / "broken")


@contextmanager
def outputs_of(model: nn.Module, wanted: Callable[[nn.Module], bool]) -> Iterator[dict[str, tuple[Any, Tensor]]]:
    """By path, the first arguments and the output of the modules that are wanted; hooked before any recorder."""
    seen: dict[str, tuple[Any, Tensor]] = {}

    def look(path: str, args: Any, output: Tensor) -> None:
        seen.setdefault(path, (tuple(each.clone() if isinstance(each, Tensor) else each for each in args), output))

    handles = [
        module.register_forward_hook(lambda _, args, output, path=path: look(path, args, output.clone()))
        for path, module in model.named_modules()
        if wanted(module)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def literal_adapter(parameters: Tensor, x: Tensor, *, hidden: int, width: int) -> Tensor:
    """ReLU(x·D + β_D)·U + β_U of one row, from the stored numbers in their documented order."""
    down = parameters[: hidden * width].reshape(hidden, width)
    up = parameters[hidden * width : 2 * hidden * width].reshape(width, hidden)
    bias_down = parameters[2 * hidden * width : 2 * hidden * width + width]
    return torch.relu(x @ down + bias_down) @ up + parameters[2 * hidden * width + width :]


def _padded(rows: Sequence[Sequence[int]], *, side: str) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids, mask
