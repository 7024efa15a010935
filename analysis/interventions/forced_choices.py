"""What if the router had taken its runner-up? Single decisions changed, and what becomes of the tokens that follow.

T position, V vocabulary, E expert.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from analysis.interventions.bench import Bench, Text
from analysis.interventions.decisions import Rankings, comes_in, kept_out, rankings, require_one_stack
from analysis.interventions.effects import mean_interval
from analysis.interventions.ledger import Progress, StudyFolder
from hooks.forced_choice import Barred, experts_barred
from hooks.models import model_device
from routing import RoutingTrace, SelectionError

__all__ = ["ForcedChoice", "RunnerUpRegret", "forced_choice", "runner_up_regret"]

N_TEXTS_A_UNIT = 8
N_LIKELIEST = 5


@dataclass(frozen=True, kw_only=True)
class ForcedChoice:
    """One decision changed.

    Attributes:
        layer, position: where.
        taken_out, put_in: the last selected expert, and the one that came in its place.
        nll_before, nll_after: surprise at the next token of the text, in nats; NaN at its end.
        later_change: mean change of the surprise at the tokens after that one; NaN where there are none.
        divergence: Kullback–Leibler divergence of the next token's distribution, before against after, in nats.
        likeliest: columns token_id, piece, before, after: the likeliest next tokens of either.
    """

    layer: str
    position: int
    taken_out: int
    put_in: int
    nll_before: float
    nll_after: float
    later_change: float
    divergence: float
    likeliest: pd.DataFrame


@dataclass(frozen=True, kw_only=True, eq=False)
class RunnerUpRegret:
    """Many decisions changed, one at a time.

    Attributes:
        choices: one row a decision: prompt, task, layer, position, taken_out, put_in, margin (selection scores apart),
            nll_change (next token), later_change, divergence.
        layers: one row a layer: n_choices, nll_change with low and high (95 % bootstrap over prompts), better (share in
            which the runner-up would have made the next token likelier), divergence (mean).
        path: folder of the tables.
    """

    choices: pd.DataFrame
    layers: pd.DataFrame
    path: Path


def forced_choice(bench: Bench, *, prompt: str, layer: str, position: int, expert: int | None = None) -> ForcedChoice:
    """Change one decision: in place of the last selected expert the runner-up is taken, or the expert that is named.

    The experts ranked between are kept out for this token, so the one that comes in has the weight that it would have
    had; the text is the prompt with its target, and nothing else is changed.

    Args:
        bench: a model that reads and writes in one stack, and prompts.
        prompt: id of the prompt.
        layer: label of the router.
        position: place of the token in prompt and target.
        expert: the expert to take, none of the selected ones; the runner-up unless told.

    Raises:
        SelectionError: prompt, position or expert are not there, or the expert is selected already.
        RecordingError: the model has two stacks, or its choices follow no rule that is known.
    """
    texts = {text.prompt: text for text in bench.texts()}
    if prompt not in texts or not 0 <= position < len(texts[prompt].ids):
        msg = f"There is no position {position} in a prompt {prompt!r} that was given. Name one that the bench holds."
        raise SelectionError(msg)
    text = texts[prompt]
    logits, ranked = _read(bench, text)
    scores, selected = ranked[_number(bench, layer)]
    barred = kept_out(layer, position, scores[position], selected[position], row=position, expert=expert)
    after = _logits(bench, text.ids, barred)[0]
    one = _change(text, logits, after, position)
    return ForcedChoice(
        layer=layer,
        position=position,
        taken_out=barred[0].expert,
        put_in=comes_in(scores[position], selected[position], barred),
        **one,
        likeliest=_likeliest(bench, logits[position], after[position]),
    )


def runner_up_regret(
    bench: Bench,
    *,
    beside: RoutingTrace | str | Path,
    n_texts: int = 64,
    n_choices_a_text: int = 8,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> RunnerUpRegret:
    """Change a sample of decisions, one at a time: the runner-up in place of the last selected expert.

    Args:
        bench: a model that reads and writes in one stack, and prompts.
        beside: the trace that the results are kept beside, or a folder.
        n_texts: prompts that are drawn.
        n_choices_a_text: decisions of each, drawn over its positions and the layers.
        layers: only routers of these labels.
        seed: of the draws.
        progress: called after every eight texts.

    Raises:
        SelectionError: a layer is not there.
        RecordingError: the model has two stacks, or its choices follow no rule that is known.
    """
    labels = [site.facts.label for site in bench.sites]
    wanted = list(labels if layers is None else layers)
    for each in wanted:
        _number(bench, each)
    rng = np.random.default_rng(seed)
    texts = bench.texts()
    texts = [texts[place] for place in sorted(rng.permutation(len(texts))[:n_texts])]
    drawn = {text.prompt: _draw(text, wanted, n_choices_a_text, rng) for text in texts}
    sizes = {"n_texts": n_texts, "n_choices_a_text": n_choices_a_text, "layers": wanted, "seed": seed}
    folder = StudyFolder(beside, "runner-up", params={**bench.identity(), **sizes}, progress=progress)
    parts = [texts[start : start + N_TEXTS_A_UNIT] for start in range(0, len(texts), N_TEXTS_A_UNIT)]

    def changed(part: Sequence[Text]) -> pd.DataFrame:
        return pd.DataFrame([row for text in part for row in _changed(bench, text, drawn[text.prompt])])

    tables = folder.units(
        {f"texts from {number * N_TEXTS_A_UNIT}": lambda part=part: changed(part) for number, part in enumerate(parts)}  # type: ignore[misc]
    )
    choices = pd.concat(tables.values(), ignore_index=True)
    rows = []
    for layer, mine in choices.groupby("layer", sort=False):
        by_prompt = mine.groupby("prompt")["nll_change"].mean().to_numpy()
        low, high = mean_interval(by_prompt, seed=seed)
        rows.append(
            {
                "layer": layer,
                "n_choices": len(mine),
                "nll_change": by_prompt.mean(),
                "low": low,
                "high": high,
                "better": float((mine["nll_change"] < 0).mean()),
                "divergence": mine["divergence"].mean(),
            }
        )
    found = pd.DataFrame(rows).set_index("layer").loc[[each for each in labels if each in set(choices["layer"])]]
    layers_table = found.reset_index()
    folder.keep({"choices": choices, "layers": layers_table}, about={"seed": seed})
    return RunnerUpRegret(choices=choices, layers=layers_table, path=folder.path)


def _draw(text: Text, layers: Sequence[str], n: int, rng: np.random.Generator) -> list[tuple[str, int]]:
    # The last token predicts nothing that is known.
    places = [(layer, position) for layer in layers for position in range(len(text.ids) - 1)]
    return [places[each] for each in sorted(rng.permutation(len(places))[:n])]


def _changed(bench: Bench, text: Text, drawn: Sequence[tuple[str, int]]) -> list[dict[str, object]]:
    """Copies of one text in a batch, each with one decision changed."""
    logits, ranked = _read(bench, text)
    barred: list[list[Barred]] = []
    for copy, (layer, position) in enumerate(drawn):
        scores, selected = ranked[_number(bench, layer)]
        row = copy * len(text.ids) + position
        barred.append(kept_out(layer, position, scores[position], selected[position], row=row, expert=None))
    if not drawn:
        return []
    after = _logits(bench, text.ids, [each for one in barred for each in one], n_copies=len(drawn))
    rows: list[dict[str, object]] = []
    for copy, (layer, position) in enumerate(drawn):
        scores, selected = ranked[_number(bench, layer)]
        one = _change(text, logits, after[copy], position)
        came_in = comes_in(scores[position], selected[position], barred[copy])
        rows.append(
            {
                "prompt": text.prompt,
                "task": text.task,
                "layer": layer,
                "position": position,
                "taken_out": barred[copy][0].expert,
                "put_in": came_in,
                "margin": float(scores[position][barred[copy][0].expert] - scores[position][came_in]),
                "nll_change": one["nll_after"] - one["nll_before"],
                "later_change": one["later_change"],
                "divergence": one["divergence"],
            }
        )
    return rows


def _read(bench: Bench, text: Text) -> tuple[Tensor, Rankings]:
    """Logits (T, V) of a text, and how the routers rank their experts."""
    require_one_stack(bench.model, bench.sites)
    kept: list[Tensor] = []
    ranked = rankings(bench.model, bench.sites, lambda: kept.append(_logits(bench, text.ids, [])[0]))
    return kept[0], ranked


@torch.no_grad()
def _logits(bench: Bench, ids: Sequence[int], barred: Sequence[Barred], *, n_copies: int = 1) -> Tensor:
    fed = torch.tensor([list(ids)] * n_copies, device=model_device(bench.model))
    with experts_barred(bench.model, bench.sites, barred):
        return bench.model(input_ids=fed, attention_mask=torch.ones_like(fed)).logits.float().cpu()


def _change(text: Text, before: Tensor, after: Tensor, position: int) -> dict[str, float]:
    old, new = before.log_softmax(-1), after.log_softmax(-1)
    following = torch.tensor(text.ids[1:])
    nll_old = -old[:-1].gather(1, following[:, None])[:, 0]
    nll_new = -new[:-1].gather(1, following[:, None])[:, 0]
    at_end = position >= len(text.ids) - 1
    later = (nll_new - nll_old)[position + 1 :]
    return {
        "nll_before": float("nan") if at_end else float(nll_old[position]),
        "nll_after": float("nan") if at_end else float(nll_new[position]),
        "later_change": float(later.mean()) if len(later) else float("nan"),
        "divergence": float((old[position].exp() * (old[position] - new[position])).sum()),
    }


def _likeliest(bench: Bench, before: Tensor, after: Tensor) -> pd.DataFrame:
    old, new = before.softmax(-1), after.softmax(-1)
    ids = dict.fromkeys([*old.topk(N_LIKELIEST).indices.tolist(), *new.topk(N_LIKELIEST).indices.tolist()])
    rows = [(each, bench.tokenizer.decode([each]), float(old[each]), float(new[each])) for each in ids]
    return pd.DataFrame(rows, columns=["token_id", "piece", "before", "after"])


def _number(bench: Bench, layer: str) -> int:
    labels = [site.facts.label for site in bench.sites]
    if layer not in labels:
        msg = f"There is no router {layer!r}; the model has {', '.join(labels)}. Name one of these."
        raise SelectionError(msg)
    return labels.index(layer)
