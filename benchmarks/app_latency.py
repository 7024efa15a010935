"""How long the app's server takes to answer a click, on a run of a million tokens.

    python -m benchmarks.app_latency                 # makes the run, asks every view, prints a table
    python -m benchmarks.app_latency --tokens 100000 --rounds 5

Measured is a whole rerun of the script as Streamlit's AppTest makes it: what the server does, without the network and
the browser. "first" is the first time of a question, when nothing is known yet; "again" is the same kind of
interaction with another answer each time, as a reader clicks around. The budget is a p95 of 500 ms for "again". The
processor's time stands beside the clock's: on a machine that does other things too, it is the one to compare.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from benchmarks.count_scan import synthetic_trace
from routing import save_trace

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
BUDGET_MS = 500

Address = dict[str, str]


def interactions(*, n_prompts: int, n_layers: int, n_experts: int) -> dict[str, tuple[str, Iterator[Address]]]:
    """What readers do, as the addresses that they come to one after another.

    Returns:
        name of the interaction → view, addresses.
    """
    rng = np.random.default_rng(0)
    layers = [f"L{number:02d}" for number in range(n_layers)]

    def expert() -> str:
        return f"{rng.choice(layers)}.E{rng.integers(n_experts)}"

    def prompt() -> str:
        return f"p{rng.integers(n_prompts)}"

    return {
        "overview: reload": ("", ({} for _ in itertools.count())),
        "tasks: pick an expert": ("tasks", ({"experts": expert()} for _ in itertools.count())),
        "load: pick an expert": ("load", ({"experts": expert()} for _ in itertools.count())),
        "map: pick an expert (PCA)": ("map", ({"layout": "pca", "experts": expert()} for _ in itertools.count())),
        "map: prompts by score (PCA)": ("map", ({"layout": "pca", "of": "prompt"} for _ in itertools.count())),
        "tokens: another prompt": ("tokens", ({"focus": prompt()} for _ in itertools.count())),
        "tokens: another layer": ("tokens", ({"focus": "p7", "layer": layer} for layer in itertools.cycle(layers))),
        "tokens: another token": ("tokens", ({"focus": f"p7@{place % 100}"} for place in itertools.count())),
        "tokens: search": ("tokens", ({"find": str(number)} for number in itertools.count(100))),
    }


def seconds_of(view: str, addresses: Iterator[Address], *, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """What reruns took: the first, and each of the rounds after it.

    Returns:
        (clock, processor) · seconds; (round, [clock, processor]) · seconds.
    """
    page = AppTest.from_file(str(MAIN), default_timeout=600)
    page._page_hash = calc_hash(view) if view else ""
    found = []
    for address in itertools.islice(addresses, rounds + 1):
        for name in list(page.query_params):
            del page.query_params[name]
        for name, value in address.items():
            page.query_params[name] = value
        start = np.array([time.perf_counter(), time.process_time()])
        page.run()
        found.append(np.array([time.perf_counter(), time.process_time()]) - start)
        if page.exception:
            msg = f"{view or 'overview'} failed at {address}: {page.exception[0].value}"
            raise RuntimeError(msg)
    return found[0], np.array(found[1:])


def main() -> None:
    """Make the run, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    shape = {"n_layers": 8, "n_experts": 32}
    with tempfile.TemporaryDirectory() as folder:
        trace = synthetic_trace(asked.tokens, top_k=4, n_prompts=asked.prompts, **shape)
        save_trace(trace, Path(folder) / "synthetic")
        del trace
        os.environ["ROUTESCOPE_RUNS"] = folder
        print(f"{asked.tokens:,} tokens, 8 layers, top-4 of 32 experts, {asked.prompts:,} prompts, 40 tasks\n")
        print(f"| interaction | first | again, median | again, p95 | processor, p95 | ≤ {BUDGET_MS} ms |")
        print("|---|---|---|---|---|---|")
        for name, (view, addresses) in interactions(n_prompts=asked.prompts, **shape).items():
            first, again = seconds_of(view, addresses, rounds=asked.rounds)
            p95, processor = 1000 * np.quantile(again, 0.95, axis=0)
            median = 1000 * np.median(again[:, 0])
            verdict = "yes" if p95 <= BUDGET_MS else "no"
            line = f"| {name} | {first[0]:.1f} s | {median:.0f} ms | {p95:.0f} ms | {processor:.0f} ms | {verdict} |"
            print(line, flush=True)


if __name__ == "__main__":
    main()
