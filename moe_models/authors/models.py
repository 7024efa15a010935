"""One door to our models for any of the authors' files."""

from __future__ import annotations

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.mapping import Mapped
from moe_models.authors.pha_model import pha_model
from moe_models.authors.recognition import recognize
from moe_models.authors.switch_model import switch_model
from moe_models.authors.task_moe_model import task_moe_model


def mapped_model(checkpoint: Checkpoint) -> Mapped:
    """The model of ours that a file of the authors' code becomes.

    Raises:
        AuthorsFileError: it is none of the systems, is broken, or has a form that none of our models has.
    """
    found = recognize(checkpoint.tensors)
    if found.system == "PHA":
        return pha_model(checkpoint)
    if found.system == "Task-level MoE":
        return task_moe_model(checkpoint)
    if found.form in ("switch", "switch baseline"):
        return switch_model(checkpoint)
    instead = (
        "" if found.form.endswith("baseline") else " Its hyper-experts can be read: use hyper_experts(checkpoint)."
    )
    msg = f"HyperMoE's {found.form} form has noisy top-k routing, which none of our models has.{instead}"
    raise AuthorsFileError(msg)
