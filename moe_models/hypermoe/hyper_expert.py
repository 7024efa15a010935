"""The HyperExpert: an extra adapter generated from the embeddings of the experts that were not selected.

Letters in shapes: T token, S distinct selected set, k experts a token, N experts, d hidden, e expert embedding,
p process width, h hypernetwork input, l layer embedding, b bottleneck, a adapter width.

References:
    Zhao et al., ACL 2024, "HyperMoE: Towards Better Mixture of Experts via Transferring Among Experts". The letters
    (A) to (C) in this file are the steps selection embedding, hypernetwork, HyperExpert.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from moe_models.adapters import Adapter, AdapterWeights, ConditioningEmbedding, ConditioningLinear, GeneratorHeads

Conditioning = Literal["unselected", "selected", "constant", "random", "adapter", "none"]
"""What the extra adapter is made from.

``unselected`` is the method. The rest are its controls: ``none`` (c0, the plain MoE), ``adapter`` (c2, one ordinary
adapter a layer), ``constant`` (c3, the layer embedding alone), ``selected`` (c4, the selected experts' embeddings),
``random`` (c5, a fixed random table instead of learned expert embeddings). Control c1 is ``none`` with one more expert.
"""

Override = Literal["shifted", "mean", "zero", "skip"]
"""What an evaluation puts in place of the selection embedding.

Another set's, as many copies of the mean expert embedding, zero; ``skip`` leaves the HyperExpert out.
"""

MOST_MASKED_SETS = 128
"""Up to so many possible sets of selected experts a layer generates all of them and masks.

Beyond, running the adapters of all sets costs more than copying to each token its own.
"""


@dataclass(frozen=True)
class HyperExpertSizes:
    """Widths of the parts that make a HyperExpert; each is a number of features."""

    n_experts: int
    hidden: int
    expert_embedding: int
    process: int
    hypernetwork_input: int
    layer_embedding: int
    bottleneck: int
    adapter: int


class HyperNetwork(nn.Module):
    """(B) Adapter weights from a layer's conditioning vector; one for all layers of a stack."""

    def __init__(self, sizes: HyperExpertSizes, n_layers: int) -> None:
        super().__init__()
        self.layer_embedding = ConditioningEmbedding(n_layers, sizes.layer_embedding)
        self.trunk = ConditioningLinear(sizes.hypernetwork_input + sizes.layer_embedding, sizes.bottleneck)
        self.heads = GeneratorHeads(sizes.bottleneck, hidden=sizes.hidden, width=sizes.adapter)

    def forward(self, conditioning: torch.Tensor, layer: int) -> AdapterWeights:
        """Generate one adapter a row of ``conditioning`` (S, h)."""
        v = self.layer_embedding.weight[layer].expand(conditioning.shape[0], -1)
        return self.heads(functional.relu(self.trunk(torch.cat([conditioning, v], dim=-1))))


class SelectionEmbedding(nn.Module):
    """(A) What a layer tells the hypernetwork about a set of selected experts."""

    def __init__(self, sizes: HyperExpertSizes, conditioning: Conditioning) -> None:
        super().__init__()
        self.conditioning = conditioning
        self.expert_embedding = ConditioningEmbedding(sizes.n_experts, sizes.expert_embedding)
        self.expert_embedding.weight.requires_grad_(conditioning not in ("random", "constant"))
        self.process = nn.Sequential(
            ConditioningLinear(sizes.expert_embedding, sizes.process),
            nn.ReLU(),
            ConditioningLinear(sizes.process, sizes.hypernetwork_input),
        )

    def raw(self, sets: torch.Tensor) -> torch.Tensor:
        """The sum of the conditioning experts' embeddings, s: (S, e) for ``sets`` (S, k)."""
        table = self.expert_embedding.weight
        chosen = table[sets].sum(dim=1)
        if self.conditioning == "selected":
            return chosen
        if self.conditioning == "constant":
            return torch.zeros_like(chosen)
        return table.sum(dim=0) - chosen

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """The hypernetwork's input, q = W2·ReLU(W1·s + b1) + b2: (S, h)."""
        return self.process(raw)


class HyperExpert(nn.Module):
    """(C) Ê(x) = ReLU(x·D + β_D)·U + β_U, its weights generated for the token's selected set.

    Adapters are generated once for each distinct set of selected experts, never once a token: with N experts and top-k
    there are at most C(N, k) of them a layer, so the result is the same and no generation is repeated. Where C(N, k) is
    small all sets are generated, whether a token has them or not, so that no shape depends on the data and training
    compiles into one graph.
    """

    def __init__(
        self, sizes: HyperExpertSizes, layer: int, conditioning: Conditioning, hypernetwork: HyperNetwork
    ) -> None:
        super().__init__()
        self.layer = layer
        self.n_experts = sizes.n_experts
        # By k, listed once: what the forward pass does then holds no arithmetic a compiler might stumble over.
        self.every_set = {
            k: list(combinations(range(sizes.n_experts), k))
            for k in range(1, sizes.n_experts + 1)
            if comb(sizes.n_experts, k) <= MOST_MASKED_SETS
        }
        self.selection = SelectionEmbedding(sizes, conditioning)
        self.override: Override | None = None
        # One hypernetwork serves all layers of a stack and belongs to the stack: registered here as well, its
        # parameters would be saved once a layer.
        object.__setattr__(self, "hypernetwork", hypernetwork)

    def distinct_sets(self, top_k_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distinct selected sets (S, k), each ascending, and the set each token has (T)."""
        ordered = top_k_index.sort(dim=-1).values
        place = self.n_experts ** torch.arange(ordered.shape[-1], device=ordered.device)
        codes, which = (ordered * place).sum(dim=-1).unique(return_inverse=True)
        return codes[:, None] // place % self.n_experts, which

    def generate(self, sets: torch.Tensor) -> AdapterWeights:
        """The adapters of ``sets`` (S, k); from weights alone, so no data is needed."""
        raw = self.selection.raw(sets)
        if self.override == "shifted":
            raw = self.selection.raw((sets + 1) % self.n_experts)
        elif self.override == "mean":
            table = self.selection.expert_embedding.weight
            raw = ((self.n_experts - sets.shape[1]) * table.mean(dim=0)).expand_as(raw)
        elif self.override == "zero":
            raw = torch.zeros_like(raw)
        return self.hypernetwork(self.selection(raw), self.layer)

    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor) -> torch.Tensor:
        """What the generated adapters add: (T, d) for ``hidden_states`` (T, d) and ``top_k_index`` (T, k)."""
        if self.override == "skip":
            return torch.zeros_like(hidden_states)
        top_k = top_k_index.shape[-1]
        if top_k not in self.every_set:
            sets, which = self.distinct_sets(top_k_index)
            return self.generate(sets).to(hidden_states.dtype)[which](hidden_states)
        sets = torch.tensor(self.every_set[top_k], device=top_k_index.device)
        return self.generate(sets).masked(hidden_states, self._is_the_set(sets, top_k_index))

    def _is_the_set(self, sets: torch.Tensor, top_k_index: torch.Tensor) -> torch.Tensor:
        """Which of ``sets`` (S, k) each token selected: (T, S) bool, one True a row, whatever the order of ranks."""
        members = torch.zeros(len(sets), self.n_experts, device=sets.device).scatter_(1, sets, 1.0)
        selected = members.new_zeros(len(top_k_index), self.n_experts).scatter_(1, top_k_index.long(), 1.0)
        return selected @ members.T == sets.shape[1]


class OrdinaryAdapter(Adapter):
    """Control c2: an adapter of the same width whose weights are learned directly, one a layer."""

    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor) -> torch.Tensor:
        """What the adapter adds: (T, d). The routing is not looked at."""
        return super().forward(hidden_states)


@contextmanager
def overridden_selection(model: nn.Module, override: Override) -> Iterator[None]:
    """Evaluate ``model`` with another selection embedding in every layer (experiment E4); restored on leaving."""
    parts = [module for module in model.modules() if isinstance(module, HyperExpert)]
    before = [part.override for part in parts]
    for part in parts:
        part.override = override
    try:
        yield
    finally:
        for part, old in zip(parts, before, strict=True):
            part.override = old
