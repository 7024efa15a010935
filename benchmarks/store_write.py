"""What writing a trace costs, against a plain write of the same bytes in the same run.

Run from the repository: ``python -m benchmarks.store_write``. Rounds are interleaved and the first is discarded;
ratios are medians. Absolute speeds are those of the page cache, so only the ratio says something.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from routing import LayerFacts, TokenBatch, TraceWriter

SHAPES = {  # layers, experts, top_k, runners-up, tokens a batch, batches
    "OLMoE full": (16, 64, 8, 4, 4096, 12, True),
    "OLMoE assignments": (16, 64, 8, 4, 4096, 48, False),
    "48 layers, top-8 of 128, assignments": (48, 128, 8, 4, 4096, 24, False),
}


def batches_of(shape: tuple[int, int, int, int, int, int, bool]) -> tuple[TokenBatch, int]:
    """One batch of random content; how many times it is written."""
    n_layers, n_experts, top_k, n_runners_up, n_tokens, n_batches, with_logits = shape
    rng = np.random.default_rng(0)
    n_ranks = top_k + n_runners_up
    logits = rng.integers(0x3C00, 0x4100, (n_tokens, n_layers, n_experts), dtype=np.uint16) if with_logits else None
    batch = TokenBatch(
        prompt=np.zeros(n_tokens, np.int32),
        position=np.arange(n_tokens, dtype=np.int32),
        token_id=rng.integers(0, 50_000, n_tokens, dtype=np.int32),
        phase=np.zeros(n_tokens, np.uint8),
        stack=np.zeros(n_tokens, np.uint8),
        nll=rng.random(n_tokens, dtype=np.float32),
        experts=rng.integers(0, n_experts, (n_tokens, n_layers, n_ranks), dtype=np.uint8),
        scores=rng.random((n_tokens, n_layers, n_ranks)).astype(np.float16),
        weights=rng.random((n_tokens, n_layers, top_k)).astype(np.float16),
        logits=logits,
    )
    return batch, n_batches


def written_plainly(folder: Path, batch: TokenBatch, n_batches: int) -> tuple[float, int]:
    """Seconds and bytes of appending the same arrays to one plain file."""
    arrays = [np.ascontiguousarray(each) for each in batch.__dict__.values() if each is not None]
    n_bytes = 0
    start = time.perf_counter()
    fd = os.open(folder / "plain.bin", os.O_WRONLY | os.O_CREAT)
    for _ in range(n_batches):
        for array in arrays:
            n_bytes += os.write(fd, array.data.cast("B"))
    os.close(fd)
    seconds = time.perf_counter() - start
    # Both writers shall find the same free memory: pages that were never touched before are several times slower.
    (folder / "plain.bin").unlink()
    return seconds, n_bytes


def written_as_trace(folder: Path, batch: TokenBatch, n_batches: int, facts: list[LayerFacts]) -> tuple[float, float]:
    """Seconds of appending to a trace that is under way, and of closing it."""
    level = "assignments" if batch.logits is None else "full"
    writer = TraceWriter(folder / "run", layer_facts=facts, level=level, n_ranks=batch.experts.shape[2])
    writer.set_prompts(pd.DataFrame({"prompt": ["a"]}))
    writer.append(batch)  # makes the files, once a trace
    start = time.perf_counter()
    for _ in range(n_batches):
        writer.append(batch)
    appended = time.perf_counter()
    writer.close()
    return appended - start, time.perf_counter() - appended


def main() -> None:
    """Print one line a shape."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--folder", type=Path, default=None, help="where to write; the system's temporary folder")
    asked = options.parse_args()
    print(f"{'shape':40} {'bytes/token':>11} {'plain MB/s':>10} {'append ratio':>12} {'close seconds':>13}")
    for name, shape in SHAPES.items():
        batch, n_batches = batches_of(shape)
        facts = [
            LayerFacts(label=f"L{number:02d}", number=number, n_experts=shape[1], top_k=shape[2])
            for number in range(shape[0])
        ]
        plain, trace, closing, n_bytes = [], [], [], 0
        for _ in range(asked.rounds + 1):
            folder = Path(tempfile.mkdtemp(dir=asked.folder))
            try:
                seconds, n_bytes = written_plainly(folder, batch, n_batches)
                plain.append(seconds)
                appended, closed = written_as_trace(folder, batch, n_batches, facts)
                trace.append(appended)
                closing.append(closed)
            finally:
                shutil.rmtree(folder)
        ratios = [ours / theirs for ours, theirs in zip(trace[1:], plain[1:], strict=True)]
        n_tokens = n_batches * batch.n_tokens
        print(
            f"{name:40} {n_bytes / n_tokens:11.0f} {n_bytes / statistics.median(plain[1:]) / 1e6:10.0f} "
            f"{statistics.median(ratios):12.2f} {statistics.median(closing[1:]):13.3f}"
        )


if __name__ == "__main__":
    main()
