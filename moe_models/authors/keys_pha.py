"""The keys of PHA as its authors' code saves them: T5 with adapters, a retriever, prototypes and a generator."""

from __future__ import annotations

from moe_models.authors.keys_backbones import (
    FEED_FORWARD_PLACE,
    STACKS,
    text_to_text_embeddings,
    text_to_text_stack,
)
from moe_models.authors.layout import Part

_MANUAL = "the decoder's own adapters (adapter_*_manual) are never run: the generated ones take their place"


def _manual(width: str) -> dict[str, str]:
    return {
        "adapter_down_manual.weight": f"{width} hidden",
        "adapter_down_manual.bias": width,
        "adapter_up_manual.weight": f"hidden {width}",
        "adapter_up_manual.bias": "hidden",
    }


GENERATOR = {
    "layer_embed.weight": "decoder_layers prototype",
    "decoder.linear1.weight": "2*prototype 2*prototype",
    "decoder.linear1.bias": "2*prototype",
    "decoder.linear2.weight": "prototype 2*prototype",
    "decoder.linear2.bias": "prototype",
    "decoder.LayerNorm.weight": "prototype",
    "decoder.LayerNorm.bias": "prototype",
    "decoder.weight_up.weight": "hidden*adapter prototype",
    "decoder.weight_up.bias": "hidden*adapter",
    "decoder.weight_down.weight": "hidden*adapter prototype",
    "decoder.weight_down.bias": "hidden*adapter",
    "decoder.bias_up.weight": "hidden prototype",
    "decoder.bias_up.bias": "hidden",
    "decoder.bias_down.weight": "adapter prototype",
    "decoder.bias_down.bias": "adapter",
}

RETRIEVER = {
    "mlp.0.weight": "retriever hidden",
    "mlp.0.bias": "retriever",
    "mlp.2.weight": "prototype retriever",
    "mlp.2.bias": "prototype",
}


def pha_table(*, gated: bool) -> list[Part]:
    """T5 with a shared adapter a layer in the encoder and generated ones in the decoder; T5 v1.1 is ``gated``."""
    table = text_to_text_embeddings()
    inner = ("wi_0", "wi_1") if gated else ("wi",)
    feed_forward = {f"{name}.weight": "ff hidden" for name in inner} | {"wo.weight": "hidden ff"}
    for stack in STACKS:
        place = f"{stack}.block.{{layer}}.layer.{FEED_FORWARD_PLACE[stack]}.DenseReluDense."
        table += text_to_text_stack(stack)
        table.append(Part(f"{stack} dense", place, feed_forward, counts=f"{stack}_layers"))
    table += [
        Part(
            "encoder adapters",
            "encoder.block.{layer}.layer.1.adapter_layer.",
            _manual("encoder_adapter"),
            counts="encoder_layers",
        ),
        Part(
            "idle decoder adapters",
            "decoder.block.{layer}.layer.2.adapter_layer.",
            {},
            unused=_manual("adapter"),
            why_unused=_MANUAL,
            needed=False,
        ),
        Part("retriever", "decoder.", RETRIEVER),
        Part("prototypes", "decoder.", {"adapter_task_embedding.weight": "n_tasks prototype"}),
        Part("generator", "decoder.param_gen.", GENERATOR),
    ]
    return table
