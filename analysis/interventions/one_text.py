"""One text read by a model, as it is or with a part of its routing changed, and what the model would write next.

T position, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.interventions.decisions import Rankings, comes_in, kept_out, rankings, require_one_stack, why_not_forced
from hooks.encoding import context_length
from hooks.forced_choice import experts_barred
from hooks.knock_out import experts_knocked_out
from hooks.models import model_device
from hooks.proof import prove_sites
from hooks.recorder import Recorder
from hooks.router_products import site_number
from hooks.sites import Site, find_sites
from hooks.vocabulary import pieces_of
from routing import Prompt, RoutingTrace, SelectionError, TaskError

__all__ = ["Change", "ChangedText", "OneText", "ReadText"]

MOST_TOKENS = 2048
# What else is tried at a token must not keep whoever waits.
SECONDS_TO_COMPARE = 4.0
N_LIKELIEST = 10
PROMPT = "text"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is changed while a text is read.

    Attributes:
        kind: "runner_up" and "expert" change one decision: in place of the last selected expert the first runner-up,
            or the expert that is named, comes in; "knock_out" takes the named expert from all tokens.
        layer: label of the router.
        expert: the expert that is named.
        position: place of the token whose decision is changed.
    """

    kind: Literal["runner_up", "expert", "knock_out"]
    layer: str
    expert: int | None = None
    position: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadText:
    """A text as a model read it.

    Attributes:
        trace: its routing, as a recording of the same text writes it: one prompt, named "text".
        likeliest: position, token_id, piece, probability: the likeliest next tokens after each position, likeliest
            first; where the model writes in another stack, the first that it would write, at position 0.
    """

    trace: RoutingTrace
    likeliest: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class ChangedText:
    """A text as the model read it with a part of its routing changed.

    Attributes:
        trace: the routing then.
        tokens: position, nll_before and nll_after (surprise at this token, NaN at the first), divergence
            (Kullback–Leibler divergence of the next token's distribution, before against after, in nats).
        likeliest: position, token_id, piece, before, after: next tokens that are among the likeliest of either.
        taken_out, put_in: the experts that a changed decision exchanged; what was knocked out, and None.
        runner_ups: layer, taken_out, put_in, nll_change (next token, NaN at the end), later_change, divergence: what
            the runner-up would have done at the same token in each layer, one at a time; None for a knock-out, and
            where that would take long.
    """

    trace: RoutingTrace
    tokens: pd.DataFrame
    likeliest: pd.DataFrame
    taken_out: int
    put_in: int | None
    runner_ups: pd.DataFrame | None = None


class OneText:
    """Reads texts, one at a time, with one model.

    Args:
        model: the model, in evaluation mode.
        tokenizer: its tokenizer.
        name: of the model, for the record.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str | None = None) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        limit = context_length(model)
        self.most_tokens = MOST_TOKENS if limit is None else min(limit, MOST_TOKENS)
        self._sites: list[Site] | None = None

    def read(self, text: str, *, out: str | Path, task: str | None = None) -> ReadText:
        """Read a text and leave its routing in a folder.

        Args:
            text: the text.
            out: folder of the trace; it must not hold one.
            task: told to the model as the task of the text, if it is told tasks.

        Raises:
            TaskError: the text has no tokens, more than are read, or a task that the model does not know.
            RecordingError: the model has no router that can be proven.
        """
        self._ids(text)
        trace, logits = self._recorded(text, Path(out), task=task)
        likely = logits.softmax(-1)
        chosen = likely.topk(min(N_LIKELIEST, likely.shape[-1]), dim=-1).indices
        table = self._table(chosen.tolist())
        values = likely[torch.tensor(table["position"].to_numpy()), torch.tensor(table["token_id"].to_numpy())]
        return ReadText(trace=trace, likeliest=table.assign(probability=values.numpy()))

    def changed(self, text: str, change: Change, *, out: str | Path) -> ChangedText:
        """Read a text as it is, and again with a part of its routing changed; the latter's is left in a folder.

        Args:
            text: the text.
            change: what is changed.
            out: folder of the trace; it must not hold one.

        Raises:
            TaskError: the text has no tokens, or more than are read.
            SelectionError: the layer, position or expert is not there, or the expert is selected already.
            RecordingError: the model has two stacks, or its choices cannot be changed.
        """
        ids = self._ids(text)
        sites = self._proven(ids)
        kept: list[Tensor] = []
        began = time.monotonic()
        ranked = rankings(self.model, sites, lambda: kept.append(self._forward(ids)))
        is_quick = len(sites) * (time.monotonic() - began) < SECONDS_TO_COMPARE
        number = site_number(sites, change.layer)
        if change.kind == "knock_out":
            if change.expert is None:
                msg = "No expert is named that is to be knocked out. Name one."
                raise SelectionError(msg)
            taken_out, put_in = change.expert, None
            altered = experts_knocked_out(self.model, sites, [(change.layer, change.expert)])
        else:
            position = change.position
            if position is None or not 0 <= position < len(ids):
                msg = f"The text has no position {position}; it has {len(ids)} tokens. Choose one of them."
                raise SelectionError(msg)
            scores, selected = ranked[number]
            expert = change.expert if change.kind == "expert" else None
            barred = kept_out(change.layer, position, scores[position], selected[position], row=position, expert=expert)
            taken_out, put_in = barred[0].expert, comes_in(scores[position], selected[position], barred)
            altered = experts_barred(self.model, sites, barred)
        with altered:
            # A logit that keeps an expert out is no measurement, and runners-up may be the ones that were kept out.
            trace, logits = self._recorded(text, Path(out), level="assignments", n_runners_up=0)
        old, new = kept[0].log_softmax(-1), logits.log_softmax(-1)
        return ChangedText(
            trace=trace,
            tokens=_tokens(ids, old, new),
            likeliest=self._compared(old.exp(), new.exp()),
            taken_out=taken_out,
            put_in=put_in,
            runner_ups=None
            if change.position is None or not is_quick
            else self._runner_ups(ids, ranked, old, position=change.position),
        )

    @property
    def why_not_changed(self) -> str:
        """Why nothing can be changed in this model, in a sentence; empty where it can."""
        return why_not_forced(self.model, find_sites(self.model))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        if not ids:
            msg = "The text has no tokens. Type at least one word."
            raise TaskError(msg)
        if len(ids) > self.most_tokens:
            msg = f"The text has {len(ids):,} tokens, and at most {self.most_tokens:,} are read. Shorten it."
            raise TaskError(msg)
        return ids

    def _proven(self, ids: Sequence[int]) -> list[Site]:
        if self._sites is None:
            found = find_sites(self.model)
            require_one_stack(self.model, found)
            self._sites = prove_sites(self.model, found, lambda: self._forward(ids))
        return self._sites

    @torch.no_grad()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        fed = torch.tensor([list(ids)], device=model_device(self.model))
        logits: Tensor = self.model(input_ids=fed, attention_mask=torch.ones_like(fed)).logits[0]
        return logits.float().cpu()

    def _recorded(
        self, text: str, out: Path, *, task: str | None = None, **options: Any
    ) -> tuple[RoutingTrace, Tensor]:
        """The routing of a text, and the logits (T, V) of the same pass."""
        prompt = Prompt(id=PROMPT, text=text) if task is None else Prompt(id=PROMPT, text=text, task=task)
        options |= {"name": self.name, "tasks_source": "a text typed in"}
        with self._logits_kept() as kept, Recorder(self.model, self.tokenizer, out=out, **options) as recorder:
            recorder.run([prompt], batch_size=1, max_new_tokens=0)
        return recorder.trace(), kept[-1]

    @contextmanager
    def _logits_kept(self) -> Iterator[list[Tensor]]:
        kept: list[Tensor] = []
        # Of one text, so that nothing is padding.
        handle = self.model.register_forward_hook(lambda _, given, out: kept.append(out.logits[0].float().cpu()))
        try:
            yield kept
        finally:
            handle.remove()

    def _runner_ups(self, ids: Sequence[int], ranked: Rankings, old: Tensor, *, position: int) -> pd.DataFrame:
        """The runner-up in each layer that has one, one at a time."""
        following = torch.tensor(ids[position + 1 :], dtype=torch.int64)[:, None]
        rows = []
        for number, (scores, selected) in ranked.items():
            if scores.isfinite()[position].sum() <= selected.shape[1]:
                continue
            layer = self._proven(ids)[number].facts.label
            barred = kept_out(layer, position, scores[position], selected[position], row=position, expert=None)
            with experts_barred(self.model, self._proven(ids), barred):
                new = self._forward(ids)[position:].log_softmax(-1)
            moved = (old[position:-1].gather(1, following) - new[:-1].gather(1, following))[:, 0].numpy()
            rows.append(
                {
                    "layer": layer,
                    "taken_out": barred[0].expert,
                    "put_in": comes_in(scores[position], selected[position], barred),
                    "nll_change": float(moved[0]) if len(moved) else np.nan,
                    "later_change": float(moved[1:].mean()) if len(moved) > 1 else np.nan,
                    "divergence": float(_divergence(old[position], new[0])),
                }
            )
        return pd.DataFrame(rows)

    def _compared(self, before: Tensor, after: Tensor) -> pd.DataFrame:
        n = min(N_LIKELIEST, before.shape[-1])
        both = torch.cat([before.topk(n, dim=-1).indices, after.topk(n, dim=-1).indices], dim=-1)
        table = self._table([list(dict.fromkeys(row)) for row in both.tolist()])
        at = torch.tensor(table["position"].to_numpy()), torch.tensor(table["token_id"].to_numpy())
        return table.assign(before=before[at].numpy(), after=after[at].numpy())

    def _table(self, chosen: list[list[int]]) -> pd.DataFrame:
        pieces = pieces_of(self.tokenizer, {each for row in chosen for each in row})
        rows = [(place, each, pieces.get(each, f"[{each}]")) for place, row in enumerate(chosen) for each in row]
        return pd.DataFrame(rows, columns=["position", "token_id", "piece"])


def _tokens(ids: Sequence[int], old: Tensor, new: Tensor) -> pd.DataFrame:
    following = torch.tensor(ids[1:], dtype=torch.int64)[:, None]
    nothing = np.array([np.nan])
    surprise = {
        f"nll_{name}": np.concatenate([nothing, -likely[:-1].gather(1, following)[:, 0].numpy()])
        for name, likely in (("before", old), ("after", new))
    }
    return pd.DataFrame({"position": range(len(ids)), **surprise, "divergence": _divergence(old, new).numpy()})


def _divergence(old: Tensor, new: Tensor) -> Tensor:
    # A token that is ruled out before adds nothing, whatever becomes of it.
    return torch.where(old.exp() > 0, old.exp() * (old - new), 0.0).sum(-1)
