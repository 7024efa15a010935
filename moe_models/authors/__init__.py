"""Files made by the authors' released code of HyperMoE, PHA and Task-level MoE: recognized, mapped, read."""

from moe_models.authors.checkpoint import Checkpoint, open_checkpoint, state_dict
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.hyper_expert_view import HyperExperts, LayerHyperExperts, hyper_experts
from moe_models.authors.mapping import Mapped
from moe_models.authors.models import mapped_model
from moe_models.authors.ontology import TaskOrder, task_order
from moe_models.authors.pha_model import pha_model
from moe_models.authors.prototype_view import Prototypes, prototypes
from moe_models.authors.recognition import Recognized, recognize
from moe_models.authors.route_maps import RouteMap, routes, saved_routes
from moe_models.authors.switch_model import switch_model
from moe_models.authors.task_moe_model import task_moe_model

__all__ = [
    "AuthorsFileError",
    "Checkpoint",
    "HyperExperts",
    "LayerHyperExperts",
    "Mapped",
    "Prototypes",
    "Recognized",
    "RouteMap",
    "TaskOrder",
    "hyper_experts",
    "mapped_model",
    "open_checkpoint",
    "pha_model",
    "prototypes",
    "recognize",
    "routes",
    "saved_routes",
    "state_dict",
    "switch_model",
    "task_moe_model",
    "task_order",
]
