"""PHA's prototypes and the adapters generated from them, from the authors' weights alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from moe_models.authors.checkpoint import Checkpoint
from moe_models.authors.errors import AuthorsFileError
from moe_models.authors.mapping import below, left_out, renamed
from moe_models.authors.pha_model import NORM_EPSILON, RENAMES, row_tasks
from moe_models.authors.recognition import Recognized, recognize
from moe_models.pha import PrototypicalHypernetwork


@dataclass(frozen=True)
class Prototypes:
    """What PHA has for each task.

    Attributes:
        tasks: the name of each row.
        prototypes: (task, z).
        layers: the decoder layers: dec00 ….
        adapters: (layer, task, parameter) · D row by row, β_D, U row by row, β_U.
        recognized: what the file was.
        sentences: what was assumed or left out.
    """

    tasks: tuple[str, ...]
    prototypes: np.ndarray
    layers: tuple[str, ...]
    adapters: np.ndarray
    recognized: Recognized
    sentences: tuple[str, ...]


@torch.no_grad()
def prototypes(checkpoint: Checkpoint) -> Prototypes:
    """The prototype matrix, and every task's adapter in every decoder layer.

    Raises:
        AuthorsFileError: the file is another system's, or config.json names another number of tasks.
    """
    found = recognize(checkpoint.tensors)
    if found.system != "PHA":
        msg = f"This is {found.system} in its {found.form} form, which has no prototypes. Give a file of PHA."
        raise AuthorsFileError(msg)
    tasks, order = row_tasks(checkpoint, found)
    dims, table = found.dims, checkpoint.tensors["decoder.adapter_task_embedding.weight"].float()
    network = PrototypicalHypernetwork(
        n_layers=dims["decoder_layers"],
        prototype=dims["prototype"],
        hidden=dims["hidden"],
        width=dims["adapter"],
        bias=True,
        norm_epsilon=NORM_EPSILON,
    )
    weights = renamed(checkpoint.tensors, RENAMES, without=left_out(found))
    network.load_state_dict(below(weights, "hypernetwork."))
    adapters = torch.stack([layer.flat() for layer in network(table)])
    return Prototypes(tasks, table.numpy(), found.layers, adapters.numpy(), found, (*found.sentences(), order))
