"""Reading the authors' files from disk: weights, and the small files that lie beside them.

Nothing here runs what a file holds: weights come from safetensors or through ``torch.load(weights_only=True)``, arrays
through ``np.load(allow_pickle=False)``. A file that needs more is refused.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from moe_models.authors.errors import AuthorsFileError, listed

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "model.pt")
"""Names that the authors' scripts give their weights, and safetensors, in the order they are looked for."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of the authors' code and what lay beside them.

    Attributes:
        tensors: the state dict.
        config: config.json, as written; empty where there was none.
        task_vectors: task_vecs.npy of Task-level MoE, one row a task.
        tasks: the names of the rows: id2task.json of Task-level MoE, ``tasks`` of PHA's config.json.
    """

    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, object] = field(default_factory=dict)
    task_vectors: np.ndarray | None = None
    tasks: tuple[str, ...] = ()


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file of weights, or the folder that holds one, with config.json, task_vecs.npy and id2task.json beside it.

    Task-level MoE keeps its config.json one folder up; it is looked for there as well.

    Raises:
        AuthorsFileError: there are no weights, or a file cannot be read safely.
    """
    path = Path(path)
    weights = path if path.is_file() else _weight_file(path)
    folder = weights.parent
    config_file = next((at for at in (folder / "config.json", folder.parent / "config.json") if at.is_file()), None)
    config = {} if config_file is None else json_object(config_file)
    names, vectors = folder / "id2task.json", folder / "task_vecs.npy"
    tasks = config.get("tasks") or ()
    if not isinstance(tasks, list | tuple) or not all(isinstance(task, str) for task in tasks):
        msg = f"In {config_file}, tasks is {tasks!r} instead of a list of names. Give the config.json that was saved."
        raise AuthorsFileError(msg)
    return Checkpoint(
        tensors=state_dict(weights),
        config=config,
        task_vectors=read_array(vectors) if vectors.is_file() else None,
        tasks=_task_names(names) if names.is_file() else tuple(tasks),
    )


def state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file that holds nothing but tensors.

    Raises:
        AuthorsFileError: the file is missing, broken, or could run code when opened.
    """
    path = Path(path)
    if not path.is_file():
        msg = f"There is no file {path}. Name the file of weights, or the folder that holds it."
        raise AuthorsFileError(msg)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is refused in our words
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of anything fails anywhere in the readers
        msg = (
            f"{path.name} is broken, or a pickle of more than tensors, which may run code when opened and is never "
            "opened here (torch.load is called with weights_only=True). Save the bare state dict: "
            "safetensors.torch.save_file(model.state_dict(), …) or torch.save(model.state_dict(), …)."
        )
        raise AuthorsFileError(msg) from error
    if not isinstance(held, Mapping):
        msg = f"{path.name} holds a {type(held).__name__}, not a state dict. Save model.state_dict() alone."
        raise AuthorsFileError(msg)
    if others := [f"{key} ({type(value).__name__})" for key, value in held.items() if not torch.is_tensor(value)]:
        msg = f"{path.name} holds more than tensors: {listed(others)}. Save model.state_dict() alone."
        raise AuthorsFileError(msg)
    return dict(held)


def read_array(path: str | Path) -> np.ndarray:
    """The array in a .npy file; one that holds pickled objects is refused.

    Raises:
        AuthorsFileError: the file is missing, broken, no array of numbers, or holds what is not a number.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = (
            f"{path} cannot be read as a plain array; arrays of pickled objects are never opened. "
            "Save the numbers with numpy.save."
        )
        raise AuthorsFileError(msg) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not np.isfinite(array).all():
        msg = (
            f"{path} does not hold one array of finite floating-point numbers. Give the file the training script wrote."
        )
        raise AuthorsFileError(msg)
    return array


def json_object(path: str | Path) -> dict[str, object]:
    """The object in a JSON file.

    Raises:
        AuthorsFileError: the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read as JSON: {error}. Give the file the training script wrote."
        raise AuthorsFileError(msg) from error
    if not isinstance(held, dict):
        msg = f"{path} holds a {type(held).__name__} instead of an object. Give the file the training script wrote."
        raise AuthorsFileError(msg)
    return held


def _weight_file(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    parts = sorted(path.name for path in folder.glob("*.index.json"))
    msg = (
        f"{folder} holds weights in several files ({parts[0]}). Join them in one state dict and save that."
        if parts
        else f"There are no weights at {folder}. Name a file, or a folder with one of {', '.join(WEIGHT_FILES)}."
    )
    raise AuthorsFileError(msg)


def _task_names(path: Path) -> tuple[str, ...]:
    names = json_object(path)
    rows = [str(row) for row in range(len(names))]
    if sorted(names) != sorted(rows) or len(set(map(str, names.values()))) != len(names):
        msg = f"{path} does not give each row 0 to {len(names) - 1} one task of its own. Give the file as it was saved."
        raise AuthorsFileError(msg)
    return tuple(str(names[row]) for row in rows)
