"""The model types of this package, made known to transformers' auto classes when one is to be loaded."""

from __future__ import annotations

from functools import cache

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

__all__ = ["MODEL_TYPES", "register_model_types"]

MODEL_TYPES = frozenset({"hypermoe", "hypermoe_switch", "pha", "task_moe"})
"""What ``model_type`` in a config.json says of a folder that one of our models was saved into."""


@cache
def register_model_types() -> None:
    """Have ``AutoConfig`` and the auto model classes build our models; a second call does nothing."""
    # Four backbones are imported here, which takes a second: only who loads such a model pays for it.
    from moe_models.hypermoe import (
        HyperMoeConfig,
        HyperMoeForCausalLM,
        HyperMoeSwitchConfig,
        HyperMoeSwitchForConditionalGeneration,
    )
    from moe_models.pha import PhaConfig, PhaForConditionalGeneration
    from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration

    for config, auto_class, model in (
        (HyperMoeConfig, AutoModelForCausalLM, HyperMoeForCausalLM),
        (HyperMoeSwitchConfig, AutoModelForSeq2SeqLM, HyperMoeSwitchForConditionalGeneration),
        (PhaConfig, AutoModelForSeq2SeqLM, PhaForConditionalGeneration),
        (TaskMoeConfig, AutoModelForSeq2SeqLM, TaskMoeForConditionalGeneration),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        auto_class.register(config, model, exist_ok=True)
