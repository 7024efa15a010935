"""HyperMoE's expert embeddings, selection embeddings and hyper-experts, from the authors' weights alone.

Letters in shapes: S selected set, k experts a token, N experts, e expert embedding, h hypernetwork input, F one adapter
written as a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from math import comb

import numpy as np
import torch

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.keys_backbones import FEED_FORWARD_PLACE, STACKS
from moe_models.authors.mapping import below, left_out, renamed
from moe_models.authors.recognition import SHORT_STACK, Recognized, recognize
from moe_models.authors.switch_model import RENAMES
from moe_models.hypermoe import HyperExpert, HyperNetwork
from moe_models.hypermoe.hyper_expert import HyperExpertSizes

ONE_TO_ONE = (
    "At top-1 a selection embedding is the sum of all expert embeddings less the selected one's: each layer has "
    "exactly one hyper-expert for each selected expert, so that the two go together says nothing."
)


@dataclass(frozen=True)
class LayerHyperExperts:
    """What one layer of a HyperMoE makes of every selected set.

    Attributes:
        layer: enc03, dec01, L07.
        expert_embeddings: (N, e).
        sets: (S, k) · numbers of the selected experts, ascending.
        selection_embeddings: (S, e) · sums over the experts that were not selected.
        hypernetwork_inputs: (S, h).
        adapters: (S, F) · D row by row, β_D, U row by row, β_U.
    """

    layer: str
    expert_embeddings: np.ndarray
    sets: np.ndarray
    selection_embeddings: np.ndarray
    hypernetwork_inputs: np.ndarray
    adapters: np.ndarray


@dataclass(frozen=True)
class HyperExperts:
    """The layers of a HyperMoE, what the file was, and what was assumed or left out."""

    layers: tuple[LayerHyperExperts, ...]
    recognized: Recognized
    sentences: tuple[str, ...]


@torch.no_grad()
def hyper_experts(
    checkpoint: Checkpoint,
    *,
    top_k: int | None = None,
    sets: Sequence[Sequence[int]] | None = None,
    max_sets: int = 512,
) -> HyperExperts:
    """Embeddings and hyper-experts of every layer of a HyperMoE, on Switch or on GPT-2.

    Args:
        checkpoint: a state dict of either form, and config.json for the k of GPT-2.
        top_k: experts a token; 1 on Switch, and ``k`` of config.json on GPT-2, where nothing is given.
        sets: which selected sets; all C(N, k) where nothing is given.
        max_sets: refuse to make all sets where they are more than this.

    Raises:
        AuthorsFileError: the file has no hyper-experts, or the sets are too many or not sets of its experts.
    """
    found = recognize(checkpoint.tensors)
    if found.system != "HyperMoE" or found.form.endswith("baseline"):
        msg = f"This is {found.system} in its {found.form} form, which has no hyper-experts. Give a file of HyperMoE."
        raise AuthorsFileError(msg)
    top_k, said = _top_k(checkpoint.config, found, top_k)
    n_experts = found.dims["n_experts"]
    chosen = _every_set(n_experts, top_k, max_sets=max_sets) if sets is None else _chosen_sets(n_experts, top_k, sets)
    weights = renamed(checkpoint.tensors, RENAMES, without=left_out(found))
    layers = tuple(_layer(weights, found, label, chosen) for label in found.layers)
    return HyperExperts(layers, found, (*found.sentences(), *said))


def _layer(weights: Mapping[str, torch.Tensor], found: Recognized, label: str, sets: torch.Tensor) -> LayerHyperExperts:
    sizes = HyperExpertSizes(**{field.name: found.dims[field.name] for field in fields(HyperExpertSizes)})
    number = int(label.lstrip("encdL"))
    if found.form == "gpt2":
        stack, depth, place = "transformer", found.dims["layers"], f"h.{number}"
    else:
        stack = next(stack for stack in STACKS if label.startswith(SHORT_STACK[stack]))
        depth, place = found.dims[f"{stack}_layers"], f"block.{number}.layer.{FEED_FORWARD_PLACE[stack]}"
    hypernetwork = HyperNetwork(sizes, depth)
    hypernetwork.load_state_dict(below(weights, f"{stack}.hypernetwork."))
    part = HyperExpert(sizes, number, "unselected", hypernetwork)
    part.load_state_dict(below(weights, f"{stack}.{place}.mlp.hyper_expert."))
    raw = part.selection.raw(sets)
    return LayerHyperExperts(
        layer=label,
        expert_embeddings=part.selection.expert_embedding.weight.numpy(),
        sets=sets.numpy(),
        selection_embeddings=raw.numpy(),
        hypernetwork_inputs=part.selection(raw).numpy(),
        adapters=part.generate(sets).flat().numpy(),
    )


def _top_k(config: Mapping[str, object], found: Recognized, top_k: int | None) -> tuple[int, list[str]]:
    if found.form == "switch":
        if top_k not in (None, 1):
            msg = f"Switch selects one expert a token, not {top_k}. Leave top_k out."
            raise AuthorsFileError(msg)
        return 1, [ONE_TO_ONE]
    told, said = config.get("k"), []
    if top_k is None and not isinstance(told, int):
        said.append("config.json does not say k: 1 was taken, as in the authors' script.")
    if top_k is not None and isinstance(told, int) and told != top_k:
        said.append(f"config.json says k = {told}; hyper-experts were made for k = {top_k}, as asked.")
    top_k = top_k if top_k is not None else told if isinstance(told, int) else 1
    if top_k == 1:
        said.append(ONE_TO_ONE)
        said.append("At k = 1 the authors' GPT-2 router weighs its expert with 1, so only the balance loss trained it.")
    said.append(
        "The GPT-2 form has noisy top-k routing without a router module and is not one of our models: its tokens' "
        "routes need a run of the authors' code."
    )
    return top_k, said


def _every_set(n_experts: int, top_k: int, *, max_sets: int) -> torch.Tensor:
    if not 1 <= top_k <= n_experts:
        msg = f"There are no sets of {top_k} among {n_experts} experts. Give a top_k from 1 to {n_experts}."
        raise AuthorsFileError(msg)
    if (n_sets := comb(n_experts, top_k)) > max_sets:
        msg = (
            f"There are {n_sets:,} sets of {top_k} among {n_experts} experts, more than {max_sets:,}. "
            "Name the sets to look at with sets=, or raise max_sets."
        )
        raise AuthorsFileError(msg)
    return torch.tensor(list(combinations(range(n_experts), top_k)))


def _chosen_sets(n_experts: int, top_k: int, sets: Sequence[Sequence[int]]) -> torch.Tensor:
    chosen = [tuple(sorted(one)) for one in sets]
    experts = set(range(n_experts))
    if not chosen or any(len(one) != top_k or len(set(one) & experts) != top_k for one in chosen):
        msg = f"Not all sets hold {top_k} distinct experts from 0 to {n_experts - 1}. Give at least one, all such."
        raise AuthorsFileError(msg)
    return torch.tensor(chosen)
