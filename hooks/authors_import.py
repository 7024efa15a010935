"""Files of the papers' authors as traces: what their weights and arrays say without data, for the app to show.

A trace made here holds no token. HyperMoE and PHA give their adapters and vectors; Task-level MoE gives a row a task,
since its routes depend on the task alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

from moe_models.authors import (
    AuthorsFileError,
    Checkpoint,
    HyperExperts,
    RouteMap,
    TaskOrder,
    hyper_experts,
    open_checkpoint,
    prototypes,
    recognize,
    routes,
    saved_routes,
    task_order,
)
from routing import (
    AdapterSite,
    LayerFacts,
    Provenance,
    RecordingError,
    RoutingTrace,
    adapters_of,
    flattened_adapter,
    selected_set_key,
)

__all__ = ["Imported", "imported"]

_STACKS = {"enc": "encoder", "dec": "decoder", "L": "decoder"}
_EXPERT = re.compile(r"^(?:(encoder|decoder)\.block|transformer\.h)\.(\d+)\..*experts\.expert_(\d+)\.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """What a file became.

    Attributes:
        trace: in memory, to be saved.
        what: system and form, in words.
        sentences: what was assumed, left out, or could not be mapped.
    """

    trace: RoutingTrace
    what: str
    sentences: tuple[str, ...]


def imported(
    path: str | Path,
    *,
    split: str | Path | None = None,
    ontology: str | Path | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
) -> Imported:
    """A checkpoint of the authors' code, or an array of routes it saved, as a trace.

    Args:
        path: a folder or file of weights, or route.npy or route_t1.npy.
        split: which tasks a run was trained on, for Task-level MoE; needed for an array.
        ontology: categories of tasks, with `split`.
        temperature: τ of the routes computed from weights; 1 where nothing is given.
        top_k: experts a token, for HyperMoE on GPT-2; what its config.json says where nothing is given.

    Raises:
        RecordingError: the file is none of theirs, is incomplete, or cannot be shown without data.
    """
    try:
        return _imported(Path(path), split=split, ontology=ontology, temperature=temperature, top_k=top_k)
    except AuthorsFileError as error:
        raise RecordingError(str(error)) from error


def _imported(
    path: Path,
    *,
    split: str | Path | None,
    ontology: str | Path | None,
    temperature: float | None,
    top_k: int | None,
) -> Imported:
    if (split is None) != (ontology is None):
        msg = "A split file and an ontology name tasks only together, and one is missing. Give both, or neither."
        raise RecordingError(msg)
    order = None if split is None or ontology is None else task_order(split, ontology=ontology)
    if path.suffix == ".npy":
        if order is None:
            msg = (
                f"{path.name} carries no names of tasks. Give the split file and the ontology of its training run "
                "(`--split`, `--ontology`)."
            )
            raise RecordingError(msg)
        return _of_routes(saved_routes(path, order=order), path, what="Task-level MoE, saved routes", vectors={})
    checkpoint = open_checkpoint(path)
    found = recognize(checkpoint.tensors)
    what = f"{found.system}, {found.form} form"
    if found.system == "Task-level MoE":
        made = routes(checkpoint, temperature=temperature, order=order)
        return _of_routes(made, path, what=what, vectors=_task_vectors(checkpoint, made, order))
    if found.system == "PHA":
        return _of_prototypes(checkpoint, path, what=what)
    return _of_hyper_experts(hyper_experts(checkpoint, top_k=top_k), checkpoint, path, what=what)


def _of_routes(made: RouteMap, path: Path, *, what: str, vectors: Mapping[str, xr.DataArray]) -> Imported:
    """One row a task, every expert selected and weighed: the routes of a softmax are dense."""
    kept = [number for number, is_routed in enumerate(made.routed) if is_routed]
    weights = made.weights[:, kept]
    layers = [made.layers[number] for number in kept]
    n_tasks, _, n_experts = weights.shape
    facts = [
        LayerFacts(
            label=label,
            number=int(label[3:]),
            stack="model",
            n_experts=n_experts,
            top_k=n_experts,
            score_function="softmax",
            weights_normalized=True,
            selection="softmax",
            temperature=made.temperature,
        )
        for label in layers
    ]
    order = np.argsort(-weights, axis=-1, kind="stable")
    scores = np.take_along_axis(weights, order, axis=-1)
    categories = made.categories or tuple(("other", "other") for _ in made.tasks)
    axes = {"task_row": list(made.tasks), "layer": layers, "expert": np.arange(n_experts)}
    table = xr.DataArray(weights.astype(np.float32), dims=tuple(axes), coords=axes)
    prompts = pd.DataFrame({"prompt": list(made.tasks), "task": list(made.tasks)})
    prompts["task_type"] = [category for category, _ in categories]
    if made.categories is not None:
        prompts["sub_category"] = [below for _, below in categories]
    trace = RoutingTrace.from_arrays(
        order,
        layer_facts=facts,
        scores=scores,
        weights=scores,
        tokens=pd.DataFrame({"prompt": np.arange(n_tasks), "position": 0, "token_id": -1}),
        prompts=prompts.assign(text="", source=path.name),
        unit="prompt",
        vectors={"route_softmax_t1": table} | dict(vectors) if made.temperature == 1 else vectors,
        provenance=_provenance(path, what, made.sentences),
    )
    return Imported(trace=trace, what=what, sentences=made.sentences)


def _task_vectors(checkpoint: Checkpoint, made: RouteMap, order: TaskOrder | None) -> dict[str, xr.DataArray]:
    if checkpoint.task_vectors is None:
        return {}
    rows = checkpoint.task_vectors
    if order is not None:
        rows = rows[[checkpoint.tasks.index(task) for task in made.tasks]]
    return {"task_embedding": _table(rows, task_row=list(made.tasks), feature=None)}


def _of_prototypes(checkpoint: Checkpoint, path: Path, *, what: str) -> Imported:
    made = prototypes(checkpoint)
    hidden, width = (made.recognized.dims[name] for name in ("hidden", "adapter"))
    names = list(made.tasks)
    facts = [
        LayerFacts(
            label="retriever",
            number=0,
            stack="model",
            n_experts=len(names),
            top_k=1,
            score_function="cosine",
            expert_names=names,
            note="Read off the weights: what is retrieved needs texts.",
        )
    ]
    sites = [_site(label, hidden, width, made_from="task") for label in made.layers]
    keys = [(label, task) for label in made.layers for task in names]
    flat = made.adapters.reshape(len(keys), -1)
    conditioning = {"conditioning_vector": np.tile(made.prototypes, (len(sites), 1))}
    trace = _without_rows(
        facts,
        sites,
        keys,
        _in_our_order(flat, hidden, width),
        conditioning=conditioning,
        vectors={"prototype": _table(made.prototypes, prototype=names, feature=None)},
        unit="prompt",
        provenance=_provenance(path, what, made.sentences),
    )
    return Imported(trace=trace, what=what, sentences=made.sentences)


def _of_hyper_experts(made: HyperExperts, checkpoint: Checkpoint, path: Path, *, what: str) -> Imported:
    n_experts, hidden, width = (made.recognized.dims[name] for name in ("n_experts", "hidden", "adapter"))
    labels = [layer.layer for layer in made.layers]
    top_k = made.layers[0].sets.shape[1]
    facts = [
        LayerFacts(
            label=label, number=_number(label), stack=_stack(label), n_experts=n_experts, top_k=top_k,
            score_function="softmax",
        )
        for label in labels
    ]  # fmt: skip
    keys = [(layer.layer, selected_set_key(chosen.tolist())) for layer in made.layers for chosen in layer.sets]
    embeddings = np.stack([layer.expert_embeddings for layer in made.layers])
    vectors = {"expert_embedding": _table(embeddings, layer=labels, expert=None, feature=None)}
    alike = _weights_alike(checkpoint.tensors, labels, n_experts)
    vectors["expert_weight_similarity"] = _table(alike, layer=labels, expert=None, other=None)
    trace = _without_rows(
        facts,
        [_site(label, hidden, width, made_from="selected_set") for label in labels],
        keys,
        _in_our_order(np.concatenate([layer.adapters for layer in made.layers]), hidden, width),
        conditioning={
            "selection_embedding": np.concatenate([layer.selection_embeddings for layer in made.layers]),
            "hypernetwork_input": np.concatenate([layer.hypernetwork_inputs for layer in made.layers]),
        },
        vectors=vectors,
        unit="token",
        provenance=_provenance(path, what, made.sentences),
    )
    return Imported(trace=trace, what=what, sentences=made.sentences)


def _without_rows(
    facts: Sequence[LayerFacts],
    sites: Sequence[AdapterSite],
    keys: Sequence[tuple[str, str]],
    parameters: np.ndarray,
    *,
    conditioning: Mapping[str, np.ndarray],
    vectors: Mapping[str, xr.DataArray],
    unit: str,
    provenance: Provenance,
) -> RoutingTrace:
    nothing = np.zeros((0, len(facts), max(each.top_k for each in facts)))
    table = pd.DataFrame(keys, columns=["site", "key"])
    return RoutingTrace.from_arrays(
        nothing.astype(np.int64),
        layer_facts=list(facts),
        scores=nothing,
        weights=nothing,
        tokens=pd.DataFrame({"prompt": [], "position": [], "token_id": []}, dtype=np.int64),
        prompts=pd.DataFrame({"prompt": [], "task": [], "task_type": [], "text": []}, dtype=object),
        unit=unit,
        adapters=adapters_of(sites, table, parameters, conditioning=conditioning),
        adapter_index=np.zeros((0, len(sites)), np.int32),
        adapter_ratio=np.zeros((0, len(sites)), np.float16),
        vectors=vectors,
        provenance=provenance,
    )


def _site(label: str, hidden: int, width: int, *, made_from: str) -> AdapterSite:
    return AdapterSite(
        label=label,
        hidden=hidden,
        width=width,
        n_parameters=2 * hidden * width + hidden + width,
        made_from=made_from,  # type: ignore[arg-type]
        number=_number(label),
        stack=_stack(label),
        note="Read off the weights: which rows used it needs texts.",
    )


def _in_our_order(flat: np.ndarray, hidden: int, width: int) -> np.ndarray:
    """Adapters written D, β_D, U, β_U as traces keep them: D, U, β_D, β_U."""
    down, bias_down, up, bias_up = np.split(flat, np.cumsum([hidden * width, width, width * hidden]), axis=1)
    return flattened_adapter(
        down.reshape(-1, hidden, width), up.reshape(-1, width, hidden), bias_down, bias_up
    )  # fmt: skip


def _weights_alike(tensors: Mapping[str, torch.Tensor], labels: Sequence[str], n_experts: int) -> np.ndarray:
    """(layer, expert, other) cosine of all that the experts of a layer learned, each as one row of numbers."""
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for name in sorted(tensors):
        if match := _EXPERT.match(name):
            stack, layer, expert = match[1], int(match[2]), int(match[3])
            label = f"{'L' if stack is None else stack[:3]}{layer:02d}"
            parts.setdefault((label, expert), []).append(tensors[name].float().numpy().ravel())
    found = np.empty((len(labels), n_experts, n_experts), np.float32)
    for place, label in enumerate(labels):
        rows = np.stack([np.concatenate(parts[label, expert]) for expert in range(n_experts)]).astype(np.float64)
        unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        found[place] = unit @ unit.T
    return found


def _table(values: np.ndarray, **coords: list[str] | None) -> xr.DataArray:
    along = {
        name: np.arange(size) if given is None else given
        for (name, given), size in zip(coords.items(), values.shape, strict=True)
    }
    return xr.DataArray(np.asarray(values, np.float32), dims=tuple(coords), coords=along)


def _provenance(path: Path, what: str, sentences: Sequence[str]) -> Provenance:
    note = " ".join([f"Read off a file of the authors' code ({what}); no text was run.", *sentences])
    return Provenance(model=str(path), model_class=what, torch=torch.__version__, complete=True, note=note)


def _number(label: str) -> int:
    return int(label.lstrip("encdL"))


def _stack(label: str) -> str:
    return _STACKS[label.rstrip("0123456789")]
