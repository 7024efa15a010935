"""What each function of `analysis` costs: core seconds on a trace of a given length."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import analysis
from benchmarks.count_scan import synthetic_trace
from benchmarks.simulation_study import as_markdown
from routing import Selection


def times(n_tokens: int) -> pd.DataFrame:
    """Core seconds of each function on a trace of 16 layers, top-8 of 64, 40 tasks, the second time it is called."""
    trace = synthetic_trace(n_tokens, n_prompts=max(80, n_tokens // 200))
    other = trace.select(Selection(prompts=tuple(trace.prompts["prompt"])))
    half = (np.arange(trace.n_prompts) % 2).astype(bool)
    works: dict[str, Callable[[], Any]] = {
        "pass_load": lambda: analysis.pass_load(trace),
        "worst_passes": lambda: analysis.worst_passes(trace),
        "balance_scales": lambda: analysis.balance_scales(trace),
        "load_by_position": lambda: analysis.load_by_position(trace),
        "importance": lambda: analysis.importance(trace),
        "load_convergence": lambda: analysis.load_convergence(trace),
        "overload_tasks": lambda: analysis.overload_tasks(trace),
        "overload_tokens": lambda: analysis.overload_tokens(trace, layer=trace.layers[0]),
        "capacity_drops": lambda: analysis.capacity_drops(trace),
        "load_health": lambda: analysis.load_health(trace),
        "placement_what_if": lambda: analysis.placement_what_if(trace, n_devices=8, n_nodes=2),
        "coactivation": lambda: analysis.coactivation(trace),
        "transitions": lambda: analysis.transitions(trace),
        "layer_information": lambda: analysis.layer_information(trace),
        "path_entropy": lambda: analysis.path_entropy(trace),
        "next_layer_predictability": lambda: analysis.next_layer_predictability(trace),
        "repetition": lambda: analysis.repetition(trace),
        "context_independence": lambda: analysis.context_independence(trace),
        "saturation_by_rank": lambda: analysis.saturation_by_rank(trace, other),
        "churn": lambda: analysis.churn(trace, other),
        "changed_prompts": lambda: analysis.changed_prompts(trace, other),
        "routing_distance": lambda: analysis.routing_distance(trace, other),
        "differential": lambda: analysis.differential(trace, half),
        "paired_differential": lambda: analysis.paired_differential(trace, other),
        "controlled_specialization, ids": lambda: analysis.controlled_specialization(trace, match="token_id"),
        "prompt_correlation": lambda: analysis.prompt_correlation(trace),
        "split_half": lambda: analysis.split_half(trace),
        "against_control": lambda: analysis.against_control(trace, other),
        "specialization": lambda: analysis.specialization(trace),
        "task_information": lambda: analysis.task_information(trace),
        "load_balance": lambda: analysis.load_balance(trace),
    }
    rows = {}
    for name, work in works.items():
        if n_tokens <= 500_000:
            work()
        # Of all threads, so that a machine with other work gives the same.
        started = time.process_time()
        work()
        seconds = time.process_time() - started
        rows[name] = {"core_seconds": seconds, "core_seconds_a_million_tokens": seconds * 1e6 / n_tokens}
        print(f"  {name:32} {seconds:7.2f} core seconds", flush=True)
    return pd.DataFrame(rows).T.rename_axis("function")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of the trace")
    print(as_markdown(times(parser.parse_args().tokens)))


if __name__ == "__main__":
    main()
