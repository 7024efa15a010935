"""Makers of small traces: by hand, random, planted, null, encoder–decoder; and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from routing import LayerFacts, Provenance, RoutingTrace

WORDS = tuple(
    "the of and to in is was for on that with as by at from river mountain city capital born wrote novel "  # noqa: SIM905
    "energy protein cell number twelve plus equals answer question France Paris Bach treaty glass quickly delight "
    "dreadful film plot return list for_each null index café naïve 東京 λ".split()
)
TASKS = {
    "spans": "extractive",
    "sentiment": "classification",
    "facts": "knowledge",
    "names": "extractive",
    "topics": "classification",
    "capitals": "knowledge",
    "sums": "maths",
    "shell": "code",
}


def facts_of(
    n_layers: int, *, n_experts: int = 8, top_k: int = 2, first: int = 0, **options: Any
) -> tuple[LayerFacts, ...]:
    """Facts of a plain decoder whose MoE layers are numbered from `first`."""
    plain: dict[str, Any] = {
        "stack": "decoder",
        "router_class": "TinyRouter",
        "score_function": "softmax",
        "weights_normalized": True,
        "n_shared_experts": 0,
        "proof": "replay",
    } | options
    return tuple(
        LayerFacts(
            label=f"L{number:02d}",
            number=number,
            module=f"model.layers.{number}.mlp",
            n_experts=n_experts,
            top_k=top_k,
            **plain,
        )
        for number in range(first, first + n_layers)
    )


def trace_of(
    experts: Sequence[Any] | np.ndarray,
    *,
    n_experts: int = 4,
    top_k: int | None = None,
    prompts: Sequence[int] | None = None,
    tasks: Sequence[str] = ("task",),
    task_types: Mapping[str, str] | None = None,
    scores: Any = None,
    weights: Any = None,
    logits: Any = None,
    dropped: Any = None,
    phase: Sequence[str] | None = None,
    **parts: Any,
) -> RoutingTrace:
    """A trace by hand.

    Args:
        experts: tokens × ranks of one layer, or tokens × layers × ranks; -1 where absent.
        n_experts: experts in each layer.
        top_k: selected ranks; all of them unless told otherwise.
        prompts: prompt number of each token; all of prompt 0 unless told otherwise.
        tasks: task of each prompt; a single one holds for all prompts.
        task_types: type of each task; "other" where not given.
        scores: like experts; 1/2, 1/4, … along rank unless given.
        weights: like experts up to top_k; the scores of the selected, normalized, unless given.
        logits: tokens × layers × experts (or tokens × experts of one layer); none unless given.
        dropped: like weights; none unless given.
        phase: "prompt" or "generated" of each token.
        parts: further parts of `trace_from_arrays`.
    """

    def three(values: Any, dtype: Any) -> np.ndarray:
        array = np.asarray(values, dtype=dtype)
        return array[:, None, :] if array.ndim == 2 else array

    ids = three(experts, np.int64)
    n_tokens, n_layers, n_ranks = ids.shape
    top_k = n_ranks if top_k is None else top_k
    there = ids >= 0
    halves = np.broadcast_to(0.5 ** np.arange(1, n_ranks + 1), ids.shape)
    scores = np.where(there, halves, np.nan) if scores is None else three(scores, np.float32)
    if weights is None:
        chosen = scores[:, :, :top_k]
        total = np.where(np.isnan(chosen), 0, chosen).sum(axis=2, keepdims=True)
        weights = chosen / np.where(total == 0, 1, total)
    prompt_of_token = np.zeros(n_tokens, dtype=int) if prompts is None else np.asarray(prompts)
    n_prompts = max(len(tasks), int(prompt_of_token.max(initial=0)) + 1)
    task_of = list(tasks) if len(tasks) > 1 else list(tasks) * n_prompts
    types = task_types or {}
    table = pd.DataFrame(
        {
            "prompt": [f"p{number}" for number in range(n_prompts)],
            "task": task_of,
            "task_type": [types.get(task, "other") for task in task_of],
            "text": [f"text {number}" for number in range(n_prompts)],
        }
    )
    tokens: dict[str, Any] = {"prompt": prompt_of_token}
    if phase is not None:
        tokens["phase"] = list(phase)
    given: dict[str, Any] = {
        "layer_facts": facts_of(n_layers, n_experts=n_experts, top_k=top_k),
        "scores": scores,
        "weights": three(weights, np.float32),
        "logits": None if logits is None else three(logits, np.float32),
        "dropped": None if dropped is None else three(dropped, bool),
        "tokens": pd.DataFrame(tokens),
        "prompts": table,
    }
    return RoutingTrace.from_arrays(ids, **(given | parts))


def routed(logits: np.ndarray, *, top_k: int, n_runners_up: int) -> dict[str, np.ndarray]:
    """What a softmax router with normalized weights makes of its logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[..., : top_k + n_runners_up]
    scores = np.take_along_axis(probabilities, order, axis=-1)
    weights = scores[..., :top_k] / scores[..., :top_k].sum(axis=-1, keepdims=True)
    return {"experts": order, "scores": scores, "weights": weights, "logits": logits.astype(np.float32)}


def planted_trace(
    *,
    seed: int,
    n_tasks: int = 6,
    specialists: Mapping[str, tuple[int, int]] | None = None,
    strength: float = 3.0,
    popular: Mapping[tuple[int, int], float] | None = None,
    n_prompts_a_task: int = 10,
    n_tokens_a_prompt: int = 14,
    n_generated: int = 3,
    n_layers: int = 4,
    n_experts: int = 8,
    top_k: int = 2,
    n_runners_up: int = 2,
    prompt_effect: float = 0.5,
    with_logits: bool = True,
    first_layer: int = 0,
) -> RoutingTrace:
    """A trace in which tasks own experts.

    Args:
        seed: of everything random.
        n_tasks: how many of `TASKS`, in their order.
        specialists: for a task, (layer, expert) that it prefers; by default task s owns expert s of
            the last layer.
        strength: what the owner's logit gains.
        popular: for (layer, expert), what its logit gains in every task: unbalanced load.
        n_prompts_a_task, n_tokens_a_prompt, n_generated: size; the last tokens of a prompt are generated.
        n_layers, n_experts, top_k, n_runners_up, first_layer: shape of the routers.
        prompt_effect: standard deviation of what a prompt adds to each expert's logit, so that tokens of one
            prompt are alike.
        with_logits: whether logits are kept.
    """
    rng = np.random.default_rng(seed)
    names = list(TASKS)[:n_tasks]
    if specialists is None:
        specialists = {name: (n_layers - 1, number % n_experts) for number, name in enumerate(names)}
    n_prompts = n_tasks * n_prompts_a_task
    n_tokens = n_prompts * n_tokens_a_prompt
    prompt = np.repeat(np.arange(n_prompts), n_tokens_a_prompt)
    task = np.repeat(np.arange(n_tasks), n_prompts_a_task)[prompt]
    of_prompt = rng.normal(0, prompt_effect, (n_prompts, n_layers, n_experts))
    logits = rng.gumbel(0, 1, (n_tokens, n_layers, n_experts)) + of_prompt[prompt]
    for name, (layer, expert) in specialists.items():
        logits[task == names.index(name), layer, expert] += strength
    for (layer, expert), gain in (popular or {}).items():
        logits[:, layer, expert] += gain
    logits = logits.astype(np.float16).astype(np.float32)
    arrays = routed(logits, top_k=top_k, n_runners_up=n_runners_up)
    if not with_logits:
        del arrays["logits"]

    token_id = rng.integers(0, len(WORDS), n_tokens)
    position = np.tile(np.arange(n_tokens_a_prompt), n_prompts)
    pieces = np.array([" " + word for word in WORDS])
    texts = pieces[token_id].reshape(n_prompts, n_tokens_a_prompt)
    n_read = n_tokens_a_prompt - n_generated
    nll = rng.gamma(2.0, 0.8, n_tokens).astype(np.float32)
    nll[position == 0] = np.nan  # nothing predicts the first token
    right = rng.random(n_prompts) < 0.35 + 0.5 * (np.repeat(np.arange(n_tasks), n_prompts_a_task) / n_tasks)
    target = ["".join(row[n_read:]) for row in texts]
    prompts = pd.DataFrame(
        {
            "prompt": [
                f"{names[number // n_prompts_a_task]}-{number % n_prompts_a_task:03d}" for number in range(n_prompts)
            ],
            "task": np.repeat(names, n_prompts_a_task),
            "task_type": np.repeat([TASKS[name] for name in names], n_prompts_a_task),
            "text": ["".join(row[:n_read]) for row in texts],
            "target": target,
            "prediction": [text if hit else " unknown" for text, hit in zip(target, right, strict=True)],
            "score": right.astype(float),
            "metric": "exact_match",
            "source": "planted",
        }
    )
    tokens = pd.DataFrame(
        {
            "prompt": prompt,
            "position": position,
            "token_id": token_id,
            "phase": np.where(position < n_read, "prompt", "generated"),
            "nll": nll,
        }
    )
    return RoutingTrace.from_arrays(
        arrays.pop("experts"),
        layer_facts=facts_of(n_layers, n_experts=n_experts, top_k=top_k, first=first_layer),
        tokens=tokens,
        prompts=prompts,
        vocabulary=dict(enumerate(pieces.tolist())),
        provenance=Provenance(
            model="planted",
            model_class="PlantedForCausalLM",
            seed=seed,
            n_tokens=n_tokens,
            complete=True,
            started="2026-11-22T08:00:00+00:00",
            finished="2026-11-22T08:01:00+00:00",
            device="cpu",
            dtype="float32",
            self_check={"counts": "passed", "replay": "passed"},
            n_bytes=sum(a.nbytes for a in arrays.values()),
        ),
        **arrays,
    )


def null_trace(*, seed: int, **shape: Any) -> RoutingTrace:
    """A trace in which prompts differ and tasks do not: what is found here is found wrongly."""
    return planted_trace(seed=seed, specialists={}, **shape)


def random_trace(
    *,
    seed: int,
    n_tokens: int = 120,
    n_layers: int = 3,
    n_experts: int = 8,
    top_k: int = 2,
    n_runners_up: int = 2,
    n_prompts: int = 8,
    n_tasks: int = 3,
    with_logits: bool = True,
) -> RoutingTrace:
    """A trace of a random router, prompts of uneven length."""
    rng = np.random.default_rng(seed)
    arrays = routed(
        rng.normal(0, 1.5, (n_tokens, n_layers, n_experts)).astype(np.float16).astype(np.float32),
        top_k=top_k,
        n_runners_up=min(n_runners_up, n_experts - top_k),
    )
    if not with_logits:
        del arrays["logits"]
    names = list(TASKS)[:n_tasks]
    task_of = [names[number % n_tasks] for number in range(n_prompts)]
    prompts = pd.DataFrame(
        {
            "prompt": [f"p{number}" for number in range(n_prompts)],
            "task": task_of,
            "task_type": [TASKS[name] for name in task_of],
            "text": [f"text of {number}" for number in range(n_prompts)],
        }
    )
    prompt = np.sort(rng.integers(0, n_prompts, n_tokens))
    tokens = pd.DataFrame(
        {"prompt": prompt, "token_id": rng.integers(0, 100, n_tokens), "nll": rng.gamma(2, 1, n_tokens)}
    )
    tokens["phase"] = rng.choice(["prompt", "generated"], n_tokens)
    return RoutingTrace.from_arrays(
        arrays.pop("experts"),
        layer_facts=facts_of(n_layers, n_experts=n_experts, top_k=top_k),
        tokens=tokens,
        prompts=prompts,
        vocabulary={number: f" w{number}" for number in range(100)},
        **arrays,
    )


def encoder_decoder_trace(*, seed: int = 0, n_prompts: int = 6, n_read: int = 7, n_written: int = 4) -> RoutingTrace:
    """A trace of two stacks: enc01, enc03 (8 experts, top-1, capacity) and dec01 (4 experts, top-2).

    Tokens of one stack are absent in the layers of the other, ranks beyond a layer's own are absent too.
    """
    rng = np.random.default_rng(seed)
    plain = {"router_class": "TinyRouter", "score_function": "softmax", "proof": "replay"}
    facts = (
        LayerFacts(
            label="enc01",
            number=1,
            stack="encoder",
            n_experts=8,
            top_k=1,
            capacity=64,
            module="encoder.1",
            **plain,
        ),
        LayerFacts(
            label="enc03",
            number=3,
            stack="encoder",
            n_experts=8,
            top_k=1,
            capacity=64,
            module="encoder.3",
            **plain,
        ),
        LayerFacts(label="dec01", number=1, stack="decoder", n_experts=4, top_k=2, module="decoder.1", **plain),
    )
    n_each = n_read + n_written
    n_tokens = n_prompts * n_each
    place = np.tile(np.arange(n_each), n_prompts)
    reads = place < n_read
    experts = np.full((n_tokens, 3, 3), -1)
    scores = np.full((n_tokens, 3, 3), np.nan)
    weights = np.full((n_tokens, 3, 2), np.nan)
    logits = np.full((n_tokens, 3, 8), np.nan, dtype=np.float32)
    for layer, fact in enumerate(facts):
        rows = reads if fact.stack == "encoder" else ~reads
        drawn = rng.normal(0, 1.5, (int(rows.sum()), fact.n_experts)).astype(np.float16).astype(np.float32)
        parts = routed(drawn, top_k=fact.top_k, n_runners_up=1)
        n_ranks = fact.top_k + 1
        experts[rows, layer, :n_ranks] = parts["experts"]
        scores[rows, layer, :n_ranks] = parts["scores"]
        weights[rows, layer, : fact.top_k] = parts["weights"]
        logits[rows, layer, : fact.n_experts] = drawn
    dropped = np.zeros(weights.shape, dtype=bool)
    dropped[:, 0, 0] = reads & (place == n_read - 1)
    names = list(TASKS)[:2]
    task_of = [names[number % 2] for number in range(n_prompts)]
    prompts = pd.DataFrame(
        {
            "prompt": [f"p{number}" for number in range(n_prompts)],
            "task": task_of,
            "task_type": [TASKS[name] for name in task_of],
            "text": ["Translate to German: a small text"] * n_prompts,
            "target": "ein kleiner Text",
        }
    )
    tokens = pd.DataFrame(
        {
            "prompt": np.repeat(np.arange(n_prompts), n_each),
            "position": np.where(reads, place, place - n_read),
            "token_id": rng.integers(0, len(WORDS), n_tokens),
            "phase": np.where(reads, "prompt", "generated"),
            "stack": np.where(reads, "encoder", "decoder"),
            "nll": np.where(reads, np.nan, rng.gamma(2, 0.8, n_tokens)),
        }
    )
    return RoutingTrace.from_arrays(
        experts,
        layer_facts=facts,
        scores=scores,
        weights=weights,
        logits=logits,
        dropped=dropped,
        tokens=tokens,
        prompts=prompts,
        vocabulary={number: " " + word for number, word in enumerate(WORDS)},
    )


@st.composite
def traces(draw: st.DrawFn, *, max_tokens: int = 40, with_logits: bool | None = None) -> RoutingTrace:
    """Random traces of every small shape."""
    n_experts = draw(st.integers(1, 12))
    top_k = draw(st.integers(1, min(4, n_experts)))
    return random_trace(
        seed=draw(st.integers(0, 2**31)),
        n_tokens=draw(st.integers(1, max_tokens)),
        n_layers=draw(st.integers(1, 4)),
        n_experts=n_experts,
        top_k=top_k,
        n_runners_up=draw(st.integers(0, 4)),
        n_prompts=draw(st.integers(1, 6)),
        n_tasks=draw(st.integers(1, 4)),
        with_logits=draw(st.booleans()) if with_logits is None else with_logits,
    )


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
"""Any text that UTF-8 can write, control characters and markup included."""
