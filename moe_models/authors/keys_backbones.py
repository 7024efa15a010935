"""The keys of the backbones: T5 and Switch stacks, BART layers, GPT-2 blocks.

T5 and Switch keep q, k, v and o without biases; BART's layers are the same with and without ``blocks.{expert}.`` before
them; GPT-2 stores its matrices as (in, out).
"""

from __future__ import annotations

from moe_models.authors.layout import Part

STACKS = ("encoder", "decoder")

FEED_FORWARD_PLACE = {"encoder": 1, "decoder": 2}
"""Where a T5 or Switch block keeps its feed-forward: after self-attention, and in a decoder after cross-attention."""

_OLD_BIAS = "older T5 files carry a position bias for cross-attention, which has none"


def _attention(name: str) -> dict[str, str]:
    return {f"{name}.{x}.weight": "inner hidden" for x in "qkv"} | {f"{name}.o.weight": "hidden inner"}


def text_to_text_embeddings() -> list[Part]:
    """The embedding of a T5 or Switch model and what repeats it."""
    repeats = {f"{name}.weight": "vocabulary hidden" for name in ("encoder.embed_tokens", "decoder.embed_tokens")}
    repeats["lm_head.weight"] = "vocabulary hidden"
    return [Part("embedding", "", {"shared.weight": "vocabulary hidden"}, optional=repeats)]


def text_to_text_stack(stack: str) -> list[Part]:
    """A T5 or Switch stack, without what stands in its feed-forward layers."""
    block, depth = f"{stack}.block.{{layer}}.layer.", f"{stack}_layers"
    norm = {"layer_norm.weight": "hidden"}
    parts = [
        Part(f"{stack} attention", f"{block}0.", _attention("SelfAttention") | norm, counts=depth),
        Part(
            f"{stack} position bias",
            f"{stack}.block.0.layer.0.SelfAttention.",
            {"relative_attention_bias.weight": "position_buckets heads"},
        ),
        Part(f"{stack} feed-forward norm", f"{block}{FEED_FORWARD_PLACE[stack]}.", norm, counts=depth),
        Part(f"{stack} norm", f"{stack}.final_layer_norm.", {"weight": "hidden"}),
    ]
    if stack == "decoder":
        parts.append(
            Part(
                "cross-attention",
                f"{block}1.",
                _attention("EncDecAttention") | norm,
                unused={"EncDecAttention.relative_attention_bias.weight": "position_buckets heads"},
                why_unused=_OLD_BIAS,
                counts=depth,
            )
        )
    return parts


def bart_embeddings() -> list[Part]:
    """BART's shared parts; the output layer repeats the embedding."""
    return [
        Part(
            "embedding",
            "",
            {"model.shared.weight": "vocabulary hidden", "final_logits_bias": "1 vocabulary"},
            optional={
                "lm_head.weight": "vocabulary hidden",
                **{f"model.{stack}.embed_tokens.weight": "vocabulary hidden" for stack in STACKS},
            },
        ),
        *(
            Part(
                f"{stack} positions",
                f"model.{stack}.",
                {
                    "embed_positions.weight": "position_rows hidden",
                    "layernorm_embedding.weight": "hidden",
                    "layernorm_embedding.bias": "hidden",
                },
            )
            for stack in STACKS
        ),
    ]


def bart_layer(stack: str) -> dict[str, str]:
    """The keys of one whole BART layer."""
    attentions = ("self_attn", "encoder_attn") if stack == "decoder" else ("self_attn",)
    keys = {}
    for attention in attentions:
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys[f"{attention}.{projection}.weight"] = "hidden hidden"
            keys[f"{attention}.{projection}.bias"] = "hidden"
    for norm in (*(f"{attention}_layer_norm" for attention in attentions), "final_layer_norm"):
        keys |= {f"{norm}.weight": "hidden", f"{norm}.bias": "hidden"}
    width = f"{stack}_ff"
    return keys | {
        "fc1.weight": f"{width} hidden",
        "fc1.bias": width,
        "fc2.weight": f"hidden {width}",
        "fc2.bias": "hidden",
    }


def gpt2_backbone() -> list[Part]:
    """GPT-2 without its feed-forward layers."""
    norms = {f"{norm}.{x}": "hidden" for norm in ("ln_1", "ln_2") for x in ("weight", "bias")}
    attention = {
        "attn.c_attn.weight": "hidden 3*hidden",
        "attn.c_attn.bias": "3*hidden",
        "attn.c_proj.weight": "hidden hidden",
        "attn.c_proj.bias": "hidden",
    }
    return [
        Part(
            "embedding",
            "",
            {
                "transformer.wte.weight": "vocabulary hidden",
                "transformer.wpe.weight": "positions hidden",
                "transformer.ln_f.weight": "hidden",
                "transformer.ln_f.bias": "hidden",
            },
            optional={"lm_head.weight": "vocabulary hidden"},
        ),
        Part(
            "block",
            "transformer.h.{layer}.",
            norms | attention,
            unused={"attn.bias": "1 1 positions positions", "attn.masked_bias": ""},
            why_unused="attention masks are constants, which older releases saved",
            counts="layers",
        ),
    ]
