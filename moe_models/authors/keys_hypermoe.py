"""The keys of HyperMoE as its authors' code saves them, on Switch and on GPT-2, and of its MoE baselines.

``param_gen.decoder`` is the inner part of the generator, in the encoder's generator too; it is no transformer decoder.
"""

from __future__ import annotations

from moe_models.authors.keys_backbones import (
    FEED_FORWARD_PLACE,
    STACKS,
    gpt2_backbone,
    text_to_text_embeddings,
    text_to_text_stack,
)
from moe_models.authors.layout import Part

_MANUAL = "the adapter with weights of its own (adapter_*_manual) stands idle wherever there is a hypernetwork"
_NOISE = "the noise on the router (w_noise, mean, std) is added in training only"

SELECTION = {
    "n_experts_embedding.weight": "n_experts expert_embedding",
    "embedding_process.0.weight": "process expert_embedding",
    "embedding_process.0.bias": "process",
    "embedding_process.2.weight": "hypernetwork_input process",
    "embedding_process.2.bias": "hypernetwork_input",
}

MANUAL_ADAPTER = {
    "adapter_layer.adapter_down_manual.weight": "adapter hidden",
    "adapter_layer.adapter_down_manual.bias": "adapter",
    "adapter_layer.adapter_up_manual.weight": "hidden adapter",
    "adapter_layer.adapter_up_manual.bias": "hidden",
}

HYPERNETWORK = {
    "decoder.linear1.weight": "bottleneck hypernetwork_input+layer_embedding",
    "decoder.linear1.bias": "bottleneck",
    "decoder.weight_up.weight": "hidden*adapter bottleneck",
    "decoder.weight_up.bias": "hidden*adapter",
    "decoder.weight_down.weight": "hidden*adapter bottleneck",
    "decoder.weight_down.bias": "hidden*adapter",
    "decoder.bias_up.weight": "hidden bottleneck",
    "decoder.bias_up.bias": "hidden",
    "decoder.bias_down.weight": "adapter bottleneck",
    "decoder.bias_down.bias": "adapter",
}


def switch_table(*, hyper: bool) -> list[Part]:
    """The Switch form; without ``hyper``, the authors' baseline, which is the library's own Switch."""
    table = text_to_text_embeddings()
    for stack in STACKS:
        table += text_to_text_stack(stack)
        mlp = f"{stack}.block.{{layer}}.layer.{FEED_FORWARD_PLACE[stack]}.mlp."
        feed_forward = {"wi.weight": "ff hidden", "wo.weight": "hidden ff"}
        table += [
            Part(f"{stack} dense", mlp, feed_forward, needed=False),
            Part(
                f"{stack} sparse",
                mlp,
                {"router.classifier.weight": "n_experts hidden", **(SELECTION if hyper else {})},
                optional={"router.classifier.bias": "n_experts"},
                unused=MANUAL_ADAPTER if hyper else {},
                why_unused=_MANUAL,
                needed=False,
            ),
            Part(
                f"{stack} experts", f"{mlp}experts.expert_{{expert}}.", feed_forward, counts="n_experts", needed=False
            ),
        ]
        if hyper:
            layers = {"layer_embed.weight": f"{stack}_layers layer_embedding"}
            table.append(Part(f"{stack} hypernetwork", f"{stack}.param_gen.", layers | HYPERNETWORK))
    return table


def gpt2_table(*, hyper: bool) -> list[Part]:
    """The GPT-2 form; without ``hyper``, the authors' baseline."""
    mlp = "transformer.h.{layer}.mlp."
    noise = {"w_noise": "hidden n_experts", "mean": "1", "std": "1"}
    table = [
        *gpt2_backbone(),
        Part(
            "router",
            mlp,
            {"w_gate": "hidden n_experts"},
            unused=noise,
            why_unused=_NOISE,
            counts="layers",
        ),
        Part(
            "experts",
            f"{mlp}experts.expert_{{expert}}.",
            {
                "c_fc.weight": "hidden ff",
                "c_fc.bias": "ff",
                "c_proj.weight": "ff hidden",
                "c_proj.bias": "hidden",
            },
            counts="n_experts",
        ),
    ]
    if hyper:
        layers = {"layer_embed.weight": "layers layer_embedding"}
        table += [
            Part("selection", mlp, SELECTION, unused=MANUAL_ADAPTER, why_unused=_MANUAL, counts="layers"),
            Part("hypernetwork", "transformer.param_gen.", layers | HYPERNETWORK),
        ]
    return table
