"""What a row of the family table is, and the tiny model that it stands for.

Every model is made from its configuration: hidden 32, 3 layers, 8 experts, top-2, 2 groups, random weights and random
biases, so that no rule comes out right by accident. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import Tensor, nn

N_EXPERTS = 8
VOCABULARY = 64

# Intersected with the fields that a configuration declares.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 24,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "num_experts": N_EXPERTS,
    "n_routed_experts": N_EXPERTS,
    "num_local_experts": N_EXPERTS,
    "moe_num_experts": N_EXPERTS,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "n_group": 2,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "index_topk": 32,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
    "initializer_range": 0.3,
    "num_nextn_predict_layers": 0,
}


@dataclass(frozen=True)
class Rule:
    """What the learned rule must say, written by hand from the library's source."""

    score: str
    bias: bool = False
    groups: bool = False
    normalized: bool | None = True
    scale: float | None = 1.0

    def __str__(self) -> str:
        parts = [self.score + (" + bias" if self.bias else "")]
        parts += ["1 of 2 groups"] if self.groups else []
        parts += {True: ["normalized"], False: [], None: ["weights by no simple rule"]}[self.normalized]
        parts += [f"× {self.scale:g}"] if self.scale not in (None, 1.0) else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Family:
    """One row: a model class that routes, and what is true of it.

    Attributes:
        name: name of the row; the module of transformers unless `module` says otherwise.
        model, config: class names.
        rule: what must be learned.
        labels: labels of its layers that route.
        settings: what differs from SMALL in the configuration that holds the routers' numbers.
        text_config: class of that configuration where it is a part of `config`.
        whole: settings of the whole where it has parts.
        note: what is special about reading it, for docs/families.md.
        without: tests that cannot be asked of it, each with the reason.
        n_shared: shared experts.
        n_zero: experts that compute nothing.
        proof: what the proof must be.
        inputs: what a forward takes: "text", or "patches" of an image.
        tables: labels of layers whose experts a table of token ids chooses.
        broken: versions of transformers in which the library itself fails, each with how.
    """

    name: str
    model: str
    config: str
    rule: Rule
    labels: tuple[str, ...] = ("L01", "L02")
    settings: Mapping[str, Any] = field(default_factory=dict)
    text_config: str | None = None
    whole: Mapping[str, Any] = field(default_factory=dict)
    module: str | None = None
    note: str = ""
    without: Mapping[str, str] = field(default_factory=dict)
    n_shared: int = 0
    n_zero: int = 0
    top_k: int = 2
    proof: str = "replay"
    inputs: str = "text"
    broken: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()

    @cached_property
    def present(self) -> bool:
        """Whether the installed transformers ships it."""
        try:
            return hasattr(self._library("modeling"), self.model)
        except ModuleNotFoundError:
            return False

    @property
    def runs(self) -> bool:
        """Whether the installed transformers ships it and can run it."""
        return self.present and not any(transformers.__version__.startswith(version) for version in self.broken)

    def build(self) -> nn.Module:
        """The tiny model, in eval mode, seeded."""
        torch.manual_seed(0)
        configuration = self._library("configuration")
        if self.text_config is None:
            config = small(getattr(configuration, self.config), self.settings)
        else:
            text = small(getattr(configuration, self.text_config), self.settings)
            config = getattr(configuration, self.config)(text_config=text.to_dict(), **self.whole)
        model = getattr(self._library("modeling"), self.model)._from_config(config)
        return randomize(model).eval()

    def _library(self, kind: str) -> Any:  # noqa: ANN401
        module = self.module or self.name
        return importlib.import_module(f"transformers.models.{module}.{kind}_{module}")


def small(config_class: type, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A configuration of that class, as small as SMALL makes it."""
    renamed = config_class.attribute_map
    declared = {each.name for each in dataclasses.fields(config_class)}
    # A field under two names is set once, under the one that it is declared by.
    chosen = {name: value for name, value in SMALL.items() if name in declared}
    chosen |= {
        name: value for name, value in SMALL.items() if name in renamed and renamed[name] not in {*chosen, *settings}
    }
    return config_class(**{**chosen, **settings})


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Routers and biases that choose differently from row to row; the library starts many of them at zero."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("tid2eid"):
            rows = [torch.randperm(N_EXPERTS, generator=generator)[: tensor.shape[1]] for _ in range(len(tensor))]
            tensor.copy_(torch.stack(rows))
        elif not tensor.is_floating_point():
            continue
        elif any(word in name for word in ("correction_bias", "expert_bias", "moe_statics", "balancing_biases")):
            tensor.copy_(0.6 * torch.rand(tensor.shape, generator=generator) - 0.3)
        elif "per_expert_scale" in name:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif any(word in name for word in ("router", "gate.", "classifier")) and tensor.dim() == 2:
            tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
        elif ".experts." in name:
            # The talker's are left as the memory was.
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model


def text_batch(*, seed: int, n_rows: int = 2, n_columns: int = 9) -> Tensor:
    """Random token ids that are none of the special ones.

    Returns:
        (row, column) · token id · 3 to 55.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 56, (n_rows, n_columns), generator=generator)
