"""Makers of small traces of the three systems: generated adapters, prototypes, routes per task; planted and null."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr

from routing import Adapters, AdapterSite, LayerFacts, Provenance, RoutingTrace, adapters_of, selected_set_key
from tests.traces import TASKS, facts_of, routed

HIDDEN, WIDTH = 6, 2
N_PARAMETERS = 2 * HIDDEN * WIDTH + HIDDEN + WIDTH
TYPES = ("extractive", "classification", "knowledge", "translation")


def site_of(label: str, number: int, *, made_from: str, stack: str = "decoder") -> AdapterSite:
    """A site of small adapters."""
    return AdapterSite(
        label=label, number=number, stack=stack, module=f"model.{stack}.{number}.adapter", hidden=HIDDEN, width=WIDTH,
        n_parameters=N_PARAMETERS, made_from=made_from, proof="replay",
    )  # fmt: skip


def hyper_moe_trace(
    *,
    seed: int = 0,
    planted: bool = True,
    n_layers: int = 2,
    n_experts: int = 6,
    top_k: int = 2,
    n_tasks: int = 3,
    n_prompts_a_task: int = 6,
    n_tokens_a_prompt: int = 8,
) -> RoutingTrace:
    """A token trace with one adapter for each set of selected experts.

    Planted: adapters follow from the sum of the unselected experts' embeddings, the experts' weights are as alike as
    their embeddings, task s prefers expert s of the last layer, the runner-up of an expert is the one after it, and the
    adapters of expert 0 in the last layer add four times as much. Null: adapters, embeddings, weights, runners-up and
    ratios are independent.
    """
    rng = np.random.default_rng(seed)
    names = list(TASKS)[:n_tasks]
    facts = facts_of(n_layers, n_experts=n_experts, top_k=top_k, first=1)
    n_prompts = n_tasks * n_prompts_a_task
    prompt = np.repeat(np.arange(n_prompts), n_tokens_a_prompt)
    task = prompt // n_prompts_a_task
    n_tokens = len(prompt)
    logits = rng.normal(0, 1, (n_tokens, n_layers, n_experts))
    logits += rng.normal(0, 0.4, (n_prompts, n_layers, n_experts))[prompt]
    if planted:
        for number in range(n_tasks):
            logits[task == number, n_layers - 1, number % n_experts] += 2.0
        first = logits.argmax(axis=2)
        rows, layers = np.indices(first.shape)
        logits[rows, layers, (first + 1) % n_experts] += 0.8
    logits = logits.astype(np.float16).astype(np.float32)
    arrays = routed(logits, top_k=top_k, n_runners_up=min(2, n_experts - top_k))

    embedding = rng.normal(0, 1, (n_layers, n_experts, 5)).astype(np.float32)
    latent = embedding if planted else rng.normal(0, 1, embedding.shape)
    unit = latent / np.linalg.norm(latent, axis=-1, keepdims=True)
    weight_similarity = np.einsum("lef,lgf->leg", unit, unit)
    generator = rng.normal(0, 1, (6, N_PARAMETERS))
    keys, parameters, selection, inputs = [], [], [], []
    number_of: dict[tuple[int, str], int] = {}
    index = np.full((n_tokens, n_layers), -1, dtype=np.int32)
    for layer in range(n_layers):
        for chosen in combinations(range(n_experts), top_k):
            key = selected_set_key(chosen)
            rows = (np.sort(arrays["experts"][:, layer, :top_k], axis=1) == np.array(chosen)).all(axis=1)
            if not rows.any():
                continue
            summed = embedding[layer].sum(axis=0) - embedding[layer, list(chosen)].sum(axis=0)
            made = np.append(summed, layer) @ generator
            number_of[layer, key] = len(keys)
            index[rows, layer] = len(keys)
            keys.append((facts[layer].label, key))
            selection.append(summed)
            inputs.append(np.tanh(summed))
            parameters.append(made if planted else rng.normal(0, 1, N_PARAMETERS))
    ratio = rng.gamma(4.0, 0.025, (n_tokens, n_layers))
    if planted:
        ratio[(arrays["experts"][:, -1, :top_k] == 0).any(axis=1), -1] *= 4.0
    adapters = adapters_of(
        [site_of(each.label, each.number, made_from="selected_set") for each in facts],
        pd.DataFrame(keys, columns=["site", "key"]),
        np.array(parameters),
        conditioning={"selection_embedding": np.array(selection), "hypernetwork_input": np.array(inputs)},
    )
    layer_axis, experts = [each.label for each in facts], np.arange(n_experts)
    vectors = {
        "expert_embedding": xr.DataArray(
            embedding, dims=("layer", "expert", "feature"), coords={"layer": layer_axis, "expert": experts}
        ),
        "expert_weight_similarity": xr.DataArray(
            weight_similarity.astype(np.float32),
            dims=("layer", "expert", "other"),
            coords={"layer": layer_axis, "expert": experts, "other": experts},
        ),
    }
    tokens = pd.DataFrame({"prompt": prompt, "nll": rng.gamma(2, 0.8, n_tokens)})
    return RoutingTrace.from_arrays(
        arrays.pop("experts"),
        layer_facts=facts,
        tokens=tokens,
        prompts=_prompts(names, [TASKS[name] for name in names], n_prompts_a_task, rng=rng),
        provenance=_provenance("planted-hyper-moe", seed=seed, n_tokens=n_tokens),
        adapters=adapters,
        adapter_index=index,
        adapter_ratio=ratio,
        vectors=vectors,
        **arrays,
    )


def pha_trace(
    *,
    seed: int = 0,
    planted: bool = True,
    n_tasks: int = 6,
    n_prompts_a_task: int = 8,
    n_sites: int = 2,
    n_held_out: int = 1,
    n_features: int = 8,
) -> RoutingTrace:
    """A prompt trace of a retriever over prototypes, with one adapter a task and decoder layer.

    The last `n_held_out` tasks have no prototype and no adapter. Planted: examples lie around their task's prototype,
    tasks 2s and 2s + 1 are alike, and adapters follow from prototypes; examples of a held-out task lie around the first
    prototype. Null: examples, prototypes and adapters are independent.
    """
    rng = np.random.default_rng(seed)
    names = list(TASKS)[: n_tasks + n_held_out]
    known = names[:n_tasks]
    pair = rng.normal(0, 1, ((n_tasks + 1) // 2, n_features))
    prototype = np.repeat(pair, 2, axis=0)[:n_tasks] + rng.normal(0, 0.5, (n_tasks, n_features))
    task = np.repeat(np.arange(len(names)), n_prompts_a_task)
    n_prompts = len(task)
    center = prototype[np.where(task < n_tasks, task, 0)] if planted else np.zeros((n_prompts, n_features))
    instance = center + rng.normal(0, 0.35 if planted else 1.0, (n_prompts, n_features))

    def unit(values: np.ndarray) -> np.ndarray:
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    cosine = (unit(instance) @ unit(prototype).T)[:, None, :].astype(np.float16).astype(np.float32)
    order = np.argsort(-cosine, axis=-1, kind="stable")[..., : min(n_tasks, 4)]
    facts = LayerFacts(
        label="retriever", number=0, stack="model", module="decoder.mlp", router_class="PrototypeRetriever",
        n_experts=n_tasks, top_k=1, score_function="cosine", proof="replay", expert_names=known,
        note="What was retrieved; the adapters that were applied were those of the prompt's own task.",
    )  # fmt: skip
    generator = rng.normal(0, 1, (n_sites, n_features, N_PARAMETERS))
    sites = [site_of(f"dec{number:02d}", number, made_from="task") for number in range(n_sites)]
    rows = [(site.label, name) for site in sites for name in known]
    parameters = np.concatenate([prototype @ generator[number] for number in range(n_sites)])
    if not planted:
        parameters = rng.normal(0, 1, parameters.shape)
    index = np.where((task < n_tasks)[:, None], task[:, None] + n_tasks * np.arange(n_sites), -1)
    adapters = adapters_of(
        sites,
        pd.DataFrame(rows, columns=["site", "key"]),
        parameters,
        conditioning={"conditioning_vector": np.tile(prototype, (n_sites, 1))},
    )
    prompts = _prompts(names, [TASKS[name] for name in names], n_prompts_a_task, rng=rng)
    vectors = {
        "instance": xr.DataArray(
            instance.astype(np.float32), dims=("prompt", "feature"), coords={"prompt": prompts["prompt"].tolist()}
        ),
        "prototype": xr.DataArray(
            prototype.astype(np.float32), dims=("prototype", "feature"), coords={"prototype": known}
        ),
    }
    return RoutingTrace.from_arrays(
        order,
        layer_facts=[facts],
        scores=np.take_along_axis(cosine, order, axis=-1),
        weights=np.ones((n_prompts, 1, 1)),
        logits=cosine,
        tokens=_prompt_rows(n_prompts, rng=rng),
        prompts=prompts,
        provenance=_provenance("planted-pha", seed=seed, n_tokens=n_prompts),
        unit="prompt",
        adapters=adapters,
        adapter_index=index,
        adapter_ratio=np.where(index >= 0, rng.gamma(4.0, 0.025, index.shape), np.nan),
        vectors=vectors,
    )


def task_moe_trace(
    *,
    seed: int = 0,
    soft: bool = False,
    specialists: Mapping[str, tuple[int, int]] | None = None,
    n_tasks_a_type: int = 4,
    n_prompts_a_task: int = 3,
    n_layers: int = 4,
    n_experts: int = 3,
    temperature: float = 0.5,
    strength: float = 3.0,
) -> RoutingTrace:
    """A prompt trace of whole layers routed by task; the first half of the layers is the encoder's.

    Args:
        seed: of everything random.
        soft: whether all experts are mixed by their weights; otherwise the best one is taken.
        specialists: for a task type, the (layer, expert) that its tasks prefer; by default type s prefers expert
            s mod n_experts of layer s mod n_layers; an empty mapping is the null.
        n_tasks_a_type, n_prompts_a_task, n_layers, n_experts: size; there are four types.
        temperature: of the softmax.
        strength: what the preferred expert's logit gains.
    """
    rng = np.random.default_rng(seed)
    if specialists is None:
        specialists = {name: (number % n_layers, number % n_experts) for number, name in enumerate(TYPES)}
    types = [TYPES[number // n_tasks_a_type] for number in range(n_tasks_a_type * len(TYPES))]
    names = [f"{name}-{number % n_tasks_a_type}" for number, name in enumerate(types)]
    n_tasks = len(names)
    task_logits = rng.normal(0, 1, (n_tasks, n_layers, n_experts))
    for name, (layer, expert) in specialists.items():
        task_logits[[each == name for each in types], layer, expert] += strength
    task_logits = task_logits.astype(np.float16).astype(np.float32)
    soft_route = _softmax(task_logits / temperature)
    task = np.repeat(np.arange(n_tasks), n_prompts_a_task)
    top_k = n_experts if soft else 1
    order = np.argsort(-soft_route, axis=-1, kind="stable")
    scores = np.take_along_axis(soft_route, order, axis=-1)
    weights = scores[..., :top_k] if soft else np.ones((n_tasks, n_layers, 1))
    n_encoder = n_layers // 2
    labels = [f"enc{n:02d}" if n < n_encoder else f"dec{n - n_encoder:02d}" for n in range(n_layers)]
    facts = [
        LayerFacts(
            label=label, number=int(label[3:]), stack="model", module=f"model.{label}", router_class="TaskRouter",
            n_experts=n_experts, top_k=top_k, score_function="softmax", proof="replay",
            selection="softmax" if soft else "gumbel_hard", temperature=temperature,
        )
        for label in labels
    ]  # fmt: skip
    route = soft_route if soft else np.eye(n_experts)[soft_route.argmax(axis=-1)]
    axes = {"dims": ("task_row", "layer", "expert")}
    coords = {"task_row": names, "layer": labels, "expert": np.arange(n_experts)}
    vectors = {
        "task_embedding": xr.DataArray(
            rng.normal(0, 1, (n_tasks, 5)).astype(np.float32), dims=("task_row", "feature"), coords={"task_row": names}
        ),
        "route": xr.DataArray(route.astype(np.float32), coords=coords, **axes),
        "route_softmax_t1": xr.DataArray(_softmax(task_logits).astype(np.float32), coords=coords, **axes),
    }
    return RoutingTrace.from_arrays(
        order[task],
        layer_facts=facts,
        scores=scores[task],
        weights=weights[task],
        logits=task_logits[task],
        tokens=_prompt_rows(len(task), rng=rng),
        prompts=_prompts(names, types, n_prompts_a_task, rng=rng),
        provenance=_provenance("planted-task-moe", seed=seed, n_tokens=len(task)),
        unit="prompt",
        vectors=vectors,
    )


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _prompts(names: list[str], types: list[str], n_each: int, *, rng: np.random.Generator) -> pd.DataFrame:
    n_prompts = len(names) * n_each
    right = rng.random(n_prompts) < 0.6
    return pd.DataFrame(
        {
            "prompt": [f"{name}-{number:02d}" for name in names for number in range(n_each)],
            "task": np.repeat(names, n_each),
            "task_type": np.repeat(types, n_each),
            "text": [f"a text of {name}" for name in names for _ in range(n_each)],
            "target": " yes",
            "prediction": np.where(right, " yes", " no"),
            "score": right.astype(float),
            "metric": "exact_match",
            "source": "planted",
        }
    )


def _prompt_rows(n_prompts: int, *, rng: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {"prompt": np.arange(n_prompts), "position": 0, "token_id": -1, "nll": rng.gamma(2, 0.5, n_prompts)}
    )


def _provenance(model: str, *, seed: int, n_tokens: int) -> Provenance:
    return Provenance(
        model=model, seed=seed, n_tokens=n_tokens, complete=True, started="2026-11-22T08:00:00+00:00",
        finished="2026-11-22T08:01:00+00:00", device="cpu", dtype="float32", self_check={"replay": "passed"},
    )  # fmt: skip


def adapters_in(trace: RoutingTrace) -> Adapters:
    """The adapters of a trace that has some."""
    assert trace.adapters is not None
    return trace.adapters
