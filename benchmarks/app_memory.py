"""How much memory the app takes for a run of ten million tokens.

    python -m benchmarks.app_memory                  # makes the run, opens every view, prints a table
    python -m benchmarks.app_memory --only load expert --patience 300

Each interaction is opened in a process of its own, whose memory then is that of this view; "all of them" opens one
after another in one process, as a server does whose readers go through the app. Two peaks stand beside each other.
"own" is what only this process holds, sampled every 20 ms, and the budget of 2 GB is for it. "with the file" adds pages
of the trace, which is mapped and read in chunks: the system takes those back when it needs them. "workers" is the
largest process that was started for an answer that takes long; it is waited for as long as `--patience` says, and
ended then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.app_latency import OTHER, RUN, Interaction, Reader, interactions
from benchmarks.count_scan import synthetic_trace
from routing import RoutingTrace, TokenBatch, TraceWriter

BUDGET_GB = 2.0
TOP_K = 4
SHAPE = {"n_layers": 8, "n_experts": 32}
N_TASKS = 40
ALL = "all of them, one after another"
_PART = 1_000_000
_TOKENS_A_PROMPT = 200


def write_runs(folder: Path, *, n_tokens: int) -> None:
    """Write a run, and one of the same tokens in which some last experts are others, a million tokens at a time."""
    writers = {}
    for name, moved in ((RUN, 0.0), (OTHER, 0.25)):
        n_done = 0
        prompts: list[pd.DataFrame] = []
        while n_done < n_tokens:
            n_here = min(_PART, n_tokens - n_done)
            n_prompts = max(1, n_here // _TOKENS_A_PROMPT)
            part = synthetic_trace(n_here, top_k=TOP_K, n_prompts=n_prompts, n_tasks=N_TASKS, seed=n_done, **SHAPE)
            if name not in writers:
                writers[name] = TraceWriter(
                    folder / name,
                    layer_facts=part.layer_facts,
                    level="assignments",
                    n_ranks=part.n_ranks,
                    n_batches_a_sync=100,
                )
            first = sum(map(len, prompts))
            prompts.append(part.prompts.assign(prompt=[f"p{first + number}" for number in range(part.n_prompts)]))
            writers[name].set_prompts(pd.concat(prompts, ignore_index=True))
            writers[name].append(_batch(part, first_prompt=first, moved=moved))
            n_done += n_here
        writers[name].close()


def _batch(part: RoutingTrace, *, first_prompt: int, moved: float) -> TokenBatch:
    experts = part.experts.values.copy()
    here = np.random.default_rng(1).random(part.n_tokens) < moved
    experts[here, :, TOP_K - 1], experts[here, :, TOP_K] = experts[here, :, TOP_K], experts[here, :, TOP_K - 1]
    tokens = part.tokens
    return TokenBatch(
        prompt=(tokens["prompt"].to_numpy() + first_prompt).astype(np.int32),
        position=tokens["position"].to_numpy().astype(np.int32),
        token_id=tokens["token_id"].to_numpy().astype(np.int32),
        phase=np.zeros(len(tokens), np.uint8),
        stack=np.zeros(len(tokens), np.uint8),
        nll=np.full(len(tokens), np.nan, np.float32),
        experts=experts,
        scores=part.scores.values,
        weights=part.weights.values,
    )


class Watch:
    """The memory of this process, sampled from a thread."""

    def __init__(self) -> None:
        self.own = self.workers = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """Peaks in GB."""
        self._over.set()
        self._thread.join()
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        return {"own": self.own, "with the file": largest, "workers": self.workers}

    def _look(self) -> None:
        # Asked of the system at the end, a child would be as large as this process was when it was forked off.
        for number in itertools.count():
            self.own = max(self.own, _own_memory("self"))
            if number % 10 == 0:
                self.workers = max([self.workers, *map(_own_memory, _children())])
            if self._over.wait(0.02):
                return


def _own_memory(process: str) -> float:
    """GB that only this process holds now; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1e6 for line in lines if line.startswith("RssAnon"))


def _children() -> list[str]:
    """Numbers of the processes that this one started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the name, which stands in brackets and may hold anything: state, number of the parent.
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended
            continue
        if int(parent) == os.getpid():
            found.append(path.parent.name)
    return found


def opened(asked: list[Interaction], *, patience: float) -> dict[str, float]:
    """Peaks of memory in GB, and seconds, of this process that opens these one after another."""
    from app import cache

    watch = Watch()
    is_cut_short = False
    start = time.perf_counter()
    for each in asked:
        reader = Reader(each)
        reader.first(patience=patience)
        is_cut_short |= cache.jobs().is_busy
        cache.jobs().stop()
        reader.again()
        cache.jobs().stop()
    return watch.stop() | {"seconds": time.perf_counter() - start, "cut short": is_cut_short}


def main() -> None:
    """Make the runs, open each interaction in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to wait for an answer made elsewhere")
    parser.add_argument("--only", nargs="*", default=(), help="interactions whose name holds one of these words")
    parser.add_argument("--runs", type=Path, help="keep the runs in this folder, and use those that it holds")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    n_prompts = max(1, min(asked.tokens, _PART) // _TOKENS_A_PROMPT)
    known = interactions(n_prompts=n_prompts, n_tasks=N_TASKS, **SHAPE)[1:]
    chosen = [each for each in known if not asked.only or any(word in each.name for word in asked.only)]
    if asked.child:
        mine = chosen if asked.child == ALL else [each for each in chosen if each.name == asked.child]
        print("\n" + json.dumps(opened(mine, patience=asked.patience)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.runs or Path(scratch)
        if not (folder / OTHER).is_dir():
            write_runs(folder, n_tokens=asked.tokens)
        n_bytes = sum(each.stat().st_size for each in (folder / RUN).rglob("*") if each.is_file())
        print(f"{asked.tokens:,} tokens, 8 layers, top-4 of 32 experts, {n_bytes / 1e9:.1f} GB on disk\n")
        print(f"| interaction | own | with the file | workers | time | ≤ {BUDGET_GB:g} GB |")
        print("|---|---|---|---|---|---|")
        for name in [*(each.name for each in chosen), ALL]:
            command = [sys.executable, "-m", "benchmarks.app_memory", "--child", name, "--tokens", str(asked.tokens)]
            command += ["--patience", str(asked.patience), *(["--only", *asked.only] if asked.only else [])]
            environment = os.environ | {"ROUTESCOPE_RUNS": str(folder)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                continue
            found = json.loads(done.stdout.strip().splitlines()[-1])
            sizes = " | ".join(f"{found[each]:.2f} GB" for each in ("own", "with the file", "workers"))
            verdict = "yes" if max(found["own"], found["workers"]) <= BUDGET_GB else "**no**"
            if found["cut short"]:
                sizes += " until it was ended"
            print(f"| {name} | {sizes} | {found['seconds']:.0f} s | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
