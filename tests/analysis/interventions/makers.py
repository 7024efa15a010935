"""Tiny models whose right answers are what they themselves would write: whatever is taken from them must cost."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from analysis.interventions import Bench
from routing import Prompt, Task, TaskSet
from tests.tiny import byte_tokenizer


def own_words(model: PreTrainedModel, tasks: dict[str, str], *, n_prompts: int = 4, n_new: int = 3) -> TaskSet:
    """Prompts of these tasks (name → type), with the model's own greedy answers as targets."""
    tokenizer = byte_tokenizer()
    prompts = []
    for task, task_type in tasks.items():
        for number in range(n_prompts):
            text = f"{task} {'ab' * (number + 1)}{number}:"
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            told: dict[str, Any] = {"task_ids": model.task_ids([task])} if hasattr(model, "task_ids") else {}
            asked = {"max_new_tokens": n_new, "min_new_tokens": n_new, "do_sample": False}
            # Only bytes of ASCII, so that the answer's text has the tokens that were written.
            allowed = [place for place in range(2, 258) if tokenizer.decode([place]).isascii()]
            written = model.generate(
                input_ids=ids, **told, **asked, prefix_allowed_tokens_fn=lambda batch, ids, allowed=allowed: allowed
            )[0, -n_new:]
            target = tokenizer.decode(written)
            prompts.append(Prompt(id=f"{task}-{number}", text=text, task=task, task_type=task_type, target=target))
    names = tuple(Task(name=name, task_type=kind, max_new_tokens=0) for name, kind in tasks.items())
    return TaskSet(tasks=names, prompts=tuple(prompts))


def bench_of(model: PreTrainedModel, tasks: TaskSet, **options: Any) -> Bench:
    """A bench of a model with the tokenizer of bytes."""
    return Bench(model, byte_tokenizer(), tasks, batch_size=8, **options)
