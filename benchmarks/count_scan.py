"""What counting costs: all assignments into task × layer × expert counts, against copying the same bytes.

    python -m benchmarks.count_scan                  # a million tokens, 16 layers, top-8 of 64, as OLMoE-1B-7B
    python -m benchmarks.count_scan --functions      # and the time of every analysis function on them

Copy and scan are measured by turns in one process; the best of all rounds stands for each, for everything else that a
shared machine does only ever makes them slower. Routing is synthetic: Zipf-like loads, tilted by task.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import analysis
from analysis import scan
from routing import LayerFacts, RoutingTrace

TASK_TYPES = ("extractive", "classification", "knowledge", "generation", "dialogue")


def synthetic_trace(
    n_tokens: int,
    *,
    n_layers: int = 16,
    n_experts: int = 64,
    top_k: int = 8,
    n_runners_up: int = 4,
    n_tasks: int = 40,
    n_prompts: int = 5000,
    with_logits: bool = False,
    seed: int = 0,
) -> RoutingTrace:
    """A trace in memory with the shape of a large run; tokens are drawn from a pool of 256 a task."""
    rng = np.random.default_rng(seed)
    popular = -0.7 * np.log(np.arange(1, n_experts + 1))
    prompt = np.sort(rng.integers(0, n_prompts, n_tokens))
    task_of_prompt = np.arange(n_prompts) * n_tasks // n_prompts
    n_ranks = top_k + n_runners_up
    pool = []
    for _ in range(n_tasks):
        tilt = rng.normal(0, 0.7, (n_layers, n_experts))
        pool.append(rng.gumbel(size=(256, n_layers, n_experts)) + popular + tilt)
    logits = np.stack(pool).astype(np.float16)
    order = np.argsort(-logits.astype(np.float32), axis=-1)[..., :n_ranks]
    shares = np.exp(logits.astype(np.float32))
    shares /= shares.sum(axis=-1, keepdims=True)
    scores = np.take_along_axis(shares, order, axis=-1).astype(np.float16)
    drawn = task_of_prompt[prompt], rng.integers(0, 256, n_tokens)
    facts = [
        LayerFacts(label=f"L{number:02d}", number=number, n_experts=n_experts, top_k=top_k, score_function="softmax")
        for number in range(n_layers)
    ]
    names = [f"task-{number:02d}" for number in task_of_prompt]
    prompts = pd.DataFrame(
        {
            "prompt": [f"p{number}" for number in range(n_prompts)],
            "task": names,
            "task_type": [TASK_TYPES[number % len(TASK_TYPES)] for number in task_of_prompt],
            "text": "synthetic",
        }
    )
    return RoutingTrace.from_arrays(
        order.astype(np.uint8)[drawn],
        layer_facts=facts,
        scores=scores[drawn],
        weights=scores[drawn][:, :, :top_k],
        logits=logits[drawn] if with_logits else None,
        tokens=pd.DataFrame({"prompt": prompt, "token_id": rng.integers(0, 30_000, n_tokens)}),
        prompts=prompts,
        checked=False,
    )


def best_seconds(work: Callable[[], Any], *, n_rounds: int) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(n_rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def compare(trace: RoutingTrace, *, n_rounds: int) -> dict[str, float]:
    """Best seconds of a copy, of a scan on all cores and of one on a single core, measured by turns."""
    experts = trace.storage.require_rows("experts").read(0, trace.n_tokens)
    target = np.empty_like(experts)

    def on_one_core() -> None:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            scan.count_table(trace, by="task")
        finally:
            os.sched_setaffinity(0, cores)

    works = {
        "copy": lambda: np.copyto(target, experts),
        "scan": lambda: scan.count_table(trace, by="task"),
        "scan, one core": on_one_core,
    }
    found = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    for _ in range(n_rounds):
        for name, work in works.items():
            found[name] = min(found[name], best_seconds(work, n_rounds=1))
    return found


def report(trace: RoutingTrace, *, n_rounds: int) -> None:
    """Print the comparison."""
    n_bytes = trace.n_tokens * trace.n_layers * trace.n_ranks
    found = compare(trace, n_rounds=n_rounds)
    print(f"{trace.n_ranks} stored ranks, {n_bytes / 1e6:.0f} MB of ids, {len(os.sched_getaffinity(0))} cores")
    for name, seconds in found.items():
        ratio = found["copy"] / seconds
        print(
            f"  {name:15} {1e3 * seconds:7.1f} ms  {n_bytes / seconds / 1e9:6.1f} GB/s  "
            f"{trace.n_tokens / seconds / 1e6:6.1f} Mtokens/s  {ratio:5.2f} of the copy"
        )


def functions_of(trace: RoutingTrace) -> dict[str, Callable[[], Any]]:
    """Every function of the room that the app asks, as the app asks it."""
    prompt = trace.prompts["prompt"][0]
    experts = analysis.signatures(trace)
    labels = analysis.clusters(experts, n_permutations=0, n_bootstrap=0).labels
    lift = analysis.signatures(trace, of="prompt")
    return {
        "assignment_counts by task": lambda: analysis.assignment_counts(trace, by="task"),
        "assignment_counts by prompt": lambda: analysis.assignment_counts(trace, by="prompt"),
        "expert_load": lambda: analysis.expert_load(trace),
        "activation_rate": lambda: analysis.activation_rate(trace),
        "load_balance": lambda: analysis.load_balance(trace),
        "load_balance by task": lambda: analysis.load_balance(trace, by="task"),
        "idle_experts": lambda: analysis.idle_experts(trace),
        "specialization": lambda: analysis.specialization(trace),
        "specialists": lambda: analysis.specialists(trace),
        "task_information": lambda: analysis.task_information(trace),
        "feature_correlation": lambda: analysis.feature_correlation(trace),
        "expert_profile": lambda: analysis.expert_profile(trace, layer=trace.layers[3], expert=5),
        "signatures of experts": lambda: analysis.signatures(trace),
        "signatures of prompts": lambda: analysis.signatures(trace, of="prompt"),
        "hierarchical_order of experts": lambda: analysis.hierarchical_order(experts),
        "clusters of experts": lambda: analysis.clusters(experts),
        "clusters of prompts": lambda: analysis.clusters(lift),
        "expert_task_types": lambda: analysis.expert_task_types(experts, labels),
        "project experts, pca": lambda: analysis.project(experts, method="pca"),
        "project prompts, pca": lambda: analysis.project(lift, method="pca"),
        "margins": lambda: analysis.margins(trace),
        "routing_entropy of weights": lambda: analysis.routing_entropy(trace, of="weights"),
        "prompt_tokens": lambda: analysis.prompt_tokens(trace, prompt),
        "token_experts": lambda: analysis.token_experts(trace, prompt, layer=trace.layers[3]),
        "token_route": lambda: analysis.token_route(trace, prompt, position=0),
        "saturation": lambda: analysis.saturation(trace, trace),
        "findings": lambda: analysis.findings(trace),
    }


def report_functions(trace: RoutingTrace) -> None:
    """Print the seconds of every function, the second time it is called."""
    for name, work in functions_of(trace).items():
        first = best_seconds(work, n_rounds=1)
        print(f"  {name:32} {best_seconds(work, n_rounds=2):7.2f} s   (first call {first:.2f})", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--functions", action="store_true", help="time every analysis function too")
    asked = parser.parse_args()
    for n_runners_up in (4, 0):
        report(synthetic_trace(asked.tokens, n_runners_up=n_runners_up), n_rounds=asked.rounds)
    if asked.functions:
        report_functions(synthetic_trace(asked.tokens))
        small = synthetic_trace(asked.tokens // 8, with_logits=True)
        seconds = best_seconds(lambda: analysis.routing_entropy(small), n_rounds=2)
        print(f"  routing_entropy of scores, {small.n_tokens:,} tokens {seconds:.2f} s")


if __name__ == "__main__":
    main()
