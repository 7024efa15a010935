"""What many rows of the family table share: rules, parts of configurations, two kinds of rows."""

from __future__ import annotations

from typing import Any

from tests.hooks.families import Family, Rule

SOFTMAX = Rule("softmax", normalized=False)
SOFTMAX_NORMALIZED = Rule("softmax")
SIGMOID = Rule("sigmoid", bias=True, scale=1.5)
DEEPSEEK = Rule("sigmoid", bias=True, groups=True, scale=1.5)

ALL_LAYERS = ("L00", "L01", "L02")
# Multi-head latent attention wants as many key heads as query heads.
LATENT: dict[str, Any] = {"num_key_value_heads": 4}
SPARSE_FROM_1 = {"mlp_layer_types": ["dense", "sparse", "sparse"]}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
THREE_AXES = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
PARTIAL_THREE_AXES = {**THREE_AXES, "partial_rotary_factor": 1.0}
IMAGE_TOKENS = {"image_token_id": 60, "video_token_id": 61}
IMAGE_MARKS = {
    "image_start_token_id": 62,
    "image_end_token_id": 63,
    "video_start_token_id": 58,
    "video_end_token_id": 59,
}
TINY_VISION = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
TINY_SAM = {
    "hidden_size": 16,
    "output_channels": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "global_attn_indexes": (0,),
    "mlp_dim": 16,
    "downsample_channels": [16, 16],
    "window_size": 2,
}
TINY_GEMMA_VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "position_embedding_size": 16,
}
TINY_ENCODER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
DEEPSTACK_VISION = {
    **TINY_VISION,
    "patch_size": 8,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": (0,),
}


def causal(name: str, prefix: str, rule: Rule, labels: tuple[str, ...] = ("L01", "L02"), **more: Any) -> Family:  # noqa: ANN401
    """A row of a family with a causal language model of its own."""
    return Family(name, f"{prefix}ForCausalLM", f"{prefix}Config", rule, labels, **more)


def composite(name: str, prefix: str, rule: Rule, labels: tuple[str, ...] = ("L01", "L02"), **more: Any) -> Family:  # noqa: ANN401
    """A row of a family whose text model is a part of a multimodal one."""
    return Family(
        name,
        f"{prefix}ForConditionalGeneration",
        f"{prefix}Config",
        rule,
        labels,
        text_config=f"{prefix}TextConfig",
        **more,
    )
