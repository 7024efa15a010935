"""PHA: task adapters generated from prototypes, on a frozen text-to-text model."""

from moe_models.pha.contrast import instance_contrast, prototype_contrast
from moe_models.pha.model import PhaConfig, PhaForConditionalGeneration, PhaOutput, backbone_loaded
from moe_models.pha.parts import AdaptedFeedForward, GeneratedAdapter, PrototypicalHypernetwork, Retriever

__all__ = [
    "AdaptedFeedForward",
    "GeneratedAdapter",
    "PhaConfig",
    "PhaForConditionalGeneration",
    "PhaOutput",
    "PrototypicalHypernetwork",
    "Retriever",
    "backbone_loaded",
    "instance_contrast",
    "prototype_contrast",
]
