"""A model and prompts, measured as often as an intervention asks: surprise at the right answer, and the score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hooks.answering import generation_inputs
from hooks.conditioning import Conditioning
from hooks.encoding import Encoded, context_length, encoded_prompts
from hooks.evaluation import answer_to_prompt_score
from hooks.generation import eos_ids_of
from hooks.models import load_model, model_device
from hooks.options import option_scores
from hooks.proof import prove_sites
from hooks.scoring import first_line
from hooks.sites import Site, find_sites
from routing import Prompt, TaskError, TaskSet

__all__ = ["Bench", "Text"]

N_ANSWERS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class Text:
    """A prompt with its target.

    Attributes:
        prompt, task: id of the prompt, name of its task.
        ids: its tokens, those of the target behind it.
        n_read: how many of them are the prompt.
    """

    prompt: str
    task: str
    ids: tuple[int, ...]
    n_read: int


class Bench:
    """Measures a model on prompts, in whatever state it is.

    Of each prompt: `nll`, the mean surprise in nats at the tokens of its target (behind the prompt, or in the decoder),
    and `score` by its task's metric: of prompts with options always, by the likeliest per byte; of others only if
    `generates`, since that is many times slower.

    Args:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        tasks: the prompts; those with neither target nor options are left out.
        batch_size: prompts at once.
        generates: whether answers without options are generated and scored.
        scores: whether options are scored; without, the target alone is read, several times as fast where tasks have
            many options.

    Raises:
        TaskError: no prompt can be measured, or the model cannot run a task.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        tasks: TaskSet,
        *,
        batch_size: int = 16,
        generates: bool = False,
        scores: bool = True,
    ) -> None:
        self.model, self.tokenizer, self.batch_size, self.generates = model, tokenizer, batch_size, generates
        self.scores = scores
        conditioning = Conditioning(model)
        conditioning.foreign([each.task for each in tasks.prompts])
        self.tasks = conditioning.as_read(tasks)
        self._task_of = {each.name: each for each in self.tasks.tasks}
        prompts = [each for each in self.tasks.prompts if each.target or (each.options and scores)]
        if not prompts:
            msg = "No prompt has a target or options, so nothing about an answer can be measured. Give tasks with both."
            raise TaskError(msg)
        two_stacks = bool(getattr(model.config, "is_encoder_decoder", False))
        encoded = encoded_prompts(
            [replace(each, options=_answers(each, scores=scores)) for each in prompts],
            tokenizer=tokenizer,
            limit=context_length(model),
            n_new_tokens=[1] * len(prompts),
            too_long="truncate",
            apart=two_stacks,
        )
        self._prompts = {each.id: each for each in prompts}
        # Texts of one length together: less padding.
        self._encoded = sorted(encoded, key=lambda each: (-len(each.ids), each.prompt.id))
        pad_id = tokenizer.pad_token_id
        self._pad_id = pad_id if pad_id is not None else next(iter(eos_ids_of(model)), 0)
        self._sites: list[Site] | None = None

    @classmethod
    def of_folder(cls, folder: str | Path, tasks: TaskSet, *, device: str = "auto", **options: Any) -> Bench:
        """A bench of the model in a folder.

        Raises:
            RecordingError: the folder holds no model that can be loaded.
        """
        model, tokenizer = load_model(folder, device=device)
        return cls(model, tokenizer, tasks, **options)

    @property
    def sites(self) -> list[Site]:
        """The model's routers, proven on the first prompts.

        Raises:
            RecordingError: the model has none that can be proven.
        """
        if self._sites is None:
            first = self._encoded[-self.batch_size :]
            self._sites = prove_sites(self.model, find_sites(self.model), lambda: self._read(first))
        return self._sites

    @property
    def prompts(self) -> pd.DataFrame:
        """One row a prompt, in the order of `measured`: prompt, task, task_type."""
        rows = [(each.id, each.task, self._task_of[each.task].task_type) for each in self._prompts.values()]
        return pd.DataFrame(rows, columns=["prompt", "task", "task_type"])

    def measured(self, *, as_task: str | None = None, tasks: Sequence[str] | None = None) -> pd.DataFrame:
        """The model as it is now, prompt by prompt.

        Args:
            as_task: told to the model as the task of every prompt, whatever it is; for models that are told tasks.
            tasks: only prompts of these tasks.

        Returns:
            one row a prompt, in the task set's order: prompt, task, task_type, nll in nats a token, score 0 to 1; NaN
            where there is none.
        """
        wanted = [each for each in self._encoded if tasks is None or each.prompt.task in tasks]
        if as_task is not None:
            wanted = [replace(each, prompt=replace(each.prompt, task=as_task)) for each in wanted]
        found: dict[str, tuple[float, float]] = {}
        for start in range(0, len(wanted), self.batch_size):
            batch = wanted[start : start + self.batch_size]
            for each, likely in zip(batch, self._read(batch), strict=True):
                found[each.prompt.id] = self._judged(each, likely)
            if self.generates:
                self._generate(batch, found)
        table = self.prompts
        table = table[table["prompt"].isin(list(found))].reset_index(drop=True)
        values = [found[each] for each in table["prompt"]]
        return table.assign(nll=[nll for nll, _ in values], score=[score for _, score in values])

    def texts(self) -> list[Text]:
        """Prompt and target of every prompt as one text, as a model of one stack reads them."""
        found = []
        for each in self._encoded:
            prompt = self._prompts[each.prompt.id]
            target = each.options[each.prompt.options.index(prompt.target)] if prompt.target else ()
            found.append(Text(prompt=prompt.id, task=prompt.task, ids=(*each.ids, *target), n_read=len(each.ids)))
        return sorted(found, key=lambda text: text.prompt)

    def _read(self, batch: Sequence[Encoded]) -> list[list[float]]:
        return option_scores(
            self.model,
            batch,
            pad_id=self._pad_id,
            device=model_device(self.model),
            norm="sum",
            n_rows=N_ANSWERS_AT_ONCE * len(batch),
        )

    def _judged(self, each: Encoded, likely: Sequence[float]) -> tuple[float, float]:
        """Surprise at the target, and the score of the likeliest option."""
        prompt = self._prompts[each.prompt.id]
        answers = each.prompt.options
        nll, score = math.nan, math.nan
        if prompt.target:
            place = answers.index(prompt.target)
            nll = -likely[place] / len(each.options[place])
        if prompt.options and self.scores:
            by_byte = {
                option: likely[answers.index(option)] / max(1, len(option.encode())) for option in prompt.options
            }
            chosen = max(by_byte, key=lambda option: by_byte[option])
            score = answer_to_prompt_score(self._task_of[prompt.task], prompt, chosen)
        return nll, score

    @torch.no_grad()
    def _generate(self, batch: Sequence[Encoded], found: dict[str, tuple[float, float]]) -> None:
        groups: dict[int, list[Encoded]] = {}
        for each in batch:
            prompt = self._prompts[each.prompt.id]
            n_new = self._task_of[prompt.task].max_new_tokens
            if not prompt.options and n_new > 0 and self._task_of[prompt.task].metric != "none":
                groups.setdefault(n_new, []).append(each)
        for n_new, members in groups.items():
            given = generation_inputs(self.model, members, pad_id=self._pad_id, n_new_tokens=n_new)
            n_read = 1 if getattr(self.model.config, "is_encoder_decoder", False) else given["input_ids"].shape[1]
            written = self.model.generate(**given)[:, n_read:]
            for each, text in zip(members, self.tokenizer.batch_decode(written, skip_special_tokens=True), strict=True):
                prompt = self._prompts[each.prompt.id]
                score = answer_to_prompt_score(self._task_of[prompt.task], prompt, first_line(text))
                found[each.prompt.id] = found[each.prompt.id][0], score

    def identity(self) -> Mapping[str, Any]:
        """What results of this bench depend on besides the intervention."""
        return {
            "tasks": self.tasks.digest,
            "n_prompts": len(self._prompts),
            "generates": self.generates,
            **({} if self.scores else {"scores": False}),
            "model": type(self.model).__name__,
            "weights": _fingerprint(self.model),
        }


def _answers(prompt: Prompt, *, scores: bool) -> tuple[str, ...]:
    """The options, if they are scored, and the target, each once."""
    target = (prompt.target,) if prompt.target else ()
    return tuple(dict.fromkeys((*(prompt.options if scores else ()), *target)))


def _fingerprint(model: Any) -> float:
    """A sum over all weights: another checkpoint of the same architecture has another."""
    total = sum(float(each.detach().double().abs().sum()) for each in model.parameters() if not each.is_meta)
    return float(f"{total:.9g}")
