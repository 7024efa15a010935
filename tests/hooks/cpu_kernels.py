"""The kernels that MXFP4 GPT-OSS calls, written out in plain torch so that its code path runs on a CPU.

The real ones are compiled for a GPU and come from a hub. These have their call signatures and compute the same
function; nothing of the model is replaced but the kernels and the packing of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RoutingData:
    ids: Tensor
    gate_scal: Tensor


@dataclass(frozen=True)
class Activation:
    specs: Any
    arguments: tuple[float, float]
    reduction: int


def routing(logits: Tensor, top_k: int) -> tuple[RoutingData, str, str]:
    chosen, ids = logits.topk(top_k, dim=-1)
    return RoutingData(ids, chosen.softmax(dim=-1).reshape(-1)), "gather", "scatter"


def matmul_ogs(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor,
    data: RoutingData,
    *,
    gather_indx: str | None = None,
    scatter_indx: str | None = None,
    precision_config: Any = None,
    gammas: Tensor | None = None,
    fused_activation: Activation | None = None,
) -> Tensor:
    top_k, experts = data.ids.shape[1], data.ids.reshape(-1)
    if gather_indx:
        rows = rows.repeat_interleave(top_k, dim=0)
    out = torch.bmm(rows.unsqueeze(1).float(), weight[experts].float()).squeeze(1) + bias[experts]
    if fused_activation:
        alpha, limit = fused_activation.arguments
        gate, up = out[..., ::2].clamp(max=limit), out[..., 1::2].clamp(-limit, limit)
        out = (up + 1) * gate * torch.sigmoid(gate * alpha)
    if gammas is not None:
        out = out * gammas.unsqueeze(-1)
    return (out.unflatten(0, (-1, top_k)).sum(1) if scatter_indx else out).to(rows.dtype)


KERNELS = SimpleNamespace(
    routing=SimpleNamespace(routing=routing),
    matmul_ogs=SimpleNamespace(FnSpecs=lambda *parts: parts, FusedActivation=Activation, matmul_ogs=matmul_ogs),
    swiglu=SimpleNamespace(swiglu_fn=None),
)


def with_mxfp4_blocks(model: nn.Module) -> nn.Module:
    """The model with the blocks that transformers gives it when its weights are MXFP4, the weights left unpacked."""
    from transformers.integrations import mxfp4

    for name, block in list(model.named_modules()):
        if type(block).__name__ != "GptOssMLP":
            continue
        experts = mxfp4.Mxfp4GptOssExperts(model.config)
        for projection in ("gate_up_proj", "down_proj"):
            del experts._parameters[projection]
            setattr(experts, projection, getattr(block.experts, projection).detach())
            getattr(experts, f"{projection}_bias").data.copy_(getattr(block.experts, f"{projection}_bias"))
        if hasattr(mxfp4, "Mxfp4GptOssMLP"):
            model.set_submodule(name, mxfp4.Mxfp4GptOssMLP(block.router, experts))
        else:
            block.experts = experts
            block.forward = MethodType(mxfp4.mlp_forward, block)
    return model
