"""Adapters: the small bottleneck networks that HyperMoE and PHA add, learned directly or generated.

Letters in shapes: S generated adapter, T token, B example, P position, d hidden, a adapter width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class AdapterWeights:
    """Generated adapters: down (S, d, a), bias_down (S, a), up (S, a, d), bias_up (S, d)."""

    down: torch.Tensor
    bias_down: torch.Tensor
    up: torch.Tensor
    bias_up: torch.Tensor

    def parts(self) -> tuple[torch.Tensor, ...]:
        """The four tensors, in the order down, bias_down, up, bias_up."""
        return self.down, self.bias_down, self.up, self.bias_up

    def flat(self) -> torch.Tensor:
        """Each adapter as one vector: (S, 2·d·a + a + d), parts in the order of ``parts``."""
        return torch.cat([part.flatten(1) for part in self.parts()], dim=1)

    def __getitem__(self, which: torch.Tensor) -> AdapterWeights:
        """The adapters numbered ``which``, in that order."""
        return AdapterWeights(*(part[which] for part in self.parts()))

    def to(self, dtype: torch.dtype) -> AdapterWeights:
        """The same adapters in another dtype."""
        return AdapterWeights(*(part.to(dtype) for part in self.parts()))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """ReLU(x·D + β_D)·U + β_U, adapter s on row s: x (S, d) or (S, P, d), the result of the same shape."""
        own = self.to(x.dtype)
        rows = x if x.dim() == 3 else x[:, None]
        inner = functional.relu(torch.bmm(rows, own.down) + own.bias_down[:, None])
        out = torch.bmm(inner, own.up) + own.bias_up[:, None]
        return out.view_as(x)

    def masked(self, x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """The same for tokens that choose an adapter each: x (T, d), ``chosen`` (T, S) with one 1 a row, else 0.

        All adapters run as one, S·a wide, and the mask keeps a token's own part of it. Per token that is S times the
        arithmetic and none of the memory that copying an adapter to every token takes; its shapes depend on no data.
        """
        own, chosen = self.to(x.dtype), chosen.to(x.dtype)
        n_adapters, hidden, width = own.down.shape
        wide = own.down.transpose(0, 1).reshape(hidden, n_adapters * width)
        inner = functional.relu(x @ wide + own.bias_down.reshape(-1)).view(-1, n_adapters, width)
        kept = (inner * chosen[:, :, None]).view(-1, n_adapters * width)
        return kept @ own.up.reshape(n_adapters * width, hidden) + chosen @ own.bias_up


class Adapter(nn.Module):
    """ReLU(x·D + β_D)·U + β_U with weights that are learned directly."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down = AdapterLinear(hidden, width)
        self.up = AdapterLinear(width, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the adapter adds: (…, d) in and out."""
        return self.up(functional.relu(self.down(x)))


class AdapterLinear(nn.Linear):
    """One half of an adapter: near zero at the start, so that training begins from the backbone alone."""

    def reset_parameters(self) -> None:
        """N(0, 1e-3²) weights, zero bias."""
        nn.init.normal_(self.weight, std=1e-3)
        nn.init.zeros_(self.bias)


class GeneratorHead(nn.Linear):
    """A linear layer that writes a weight matrix of ``fan_main`` inputs, near zero at the start.

    Training then starts from the backbone alone. A class of its own, so that a model-wide initialization leaves it
    alone (in HyperMoE's GPT-2 code it does not).
    """

    def __init__(self, n_in: int, n_out: int, *, fan_main: int) -> None:
        self.fan_main = fan_main
        super().__init__(n_in, n_out)

    def reset_parameters(self) -> None:
        """Uniform within 1e-3·√(3 / (fan_in·fan_main)); zero bias."""
        bound = 1e-3 * (3 / (self.in_features * self.fan_main)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)


class GeneratorHeads(nn.Module):
    """The four heads that turn a vector into one adapter's weights."""

    def __init__(self, n_in: int, *, hidden: int, width: int) -> None:
        super().__init__()
        self.hidden, self.width = hidden, width
        self.down = GeneratorHead(n_in, hidden * width, fan_main=hidden)
        self.bias_down = GeneratorHead(n_in, width, fan_main=1)
        self.up = GeneratorHead(n_in, width * hidden, fan_main=width)
        self.bias_up = GeneratorHead(n_in, hidden, fan_main=1)

    def forward(self, vector: torch.Tensor) -> AdapterWeights:
        """One adapter a row of ``vector`` (S, n_in)."""
        return AdapterWeights(
            down=self.down(vector).view(-1, self.hidden, self.width),
            bias_down=self.bias_down(vector),
            up=self.up(vector).view(-1, self.width, self.hidden),
            bias_up=self.bias_up(vector),
        )


class ConditioningEmbedding(nn.Embedding):
    """A table ~ N(0, 1) that adapters are generated from. A class of its own, for the same reason as the heads."""


class ConditioningLinear(nn.Linear):
    """A linear layer on the way to generated adapters, with torch's own initialization."""


SELF_INITIALIZED = (AdapterLinear, GeneratorHead, ConditioningEmbedding, ConditioningLinear)
"""Parts that a backbone's model-wide initialization must leave to themselves."""


class KeepsOwnInitialization:
    """For models with such parts, put before the backbone's class: the rest is initialized by the backbone."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SELF_INITIALIZED):
            module.reset_parameters()
        else:
            super()._init_weights(module)
