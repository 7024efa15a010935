"""Write the archive's traces in the present format version: ``python -m tests.archive.write_fixtures``.

To be run once for each format version. What an older version wrote stays as it is: it must open for ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from routing import LayerFacts, Provenance, TokenBatch, TraceWriter, open_trace, pack_trace

VERSION = 1
N_TOKENS, N_LAYERS, N_EXPERTS, TOP_K, N_RANKS = 20, 2, 8, 2, 3
TEXTS = ["What is 2 + 2?", "Wo liegt Zürich? \u202e<b>&\x07", "東京 λ"]


def known_arrays() -> dict[str, np.ndarray]:
    """The content of every fixture, by formula."""
    token = np.arange(N_TOKENS)[:, None, None]
    layer = np.arange(N_LAYERS)[None, :, None]
    rank, expert = np.arange(N_RANKS)[None, None, :], np.arange(N_EXPERTS)[None, None, :]
    shape = (N_TOKENS, N_LAYERS, N_RANKS)
    return {
        "experts": ((3 * token + 5 * layer + rank) % N_EXPERTS).astype(np.uint8),
        "scores": np.broadcast_to(0.5 ** (rank + 1), shape).astype(np.float16),
        "weights": np.broadcast_to(np.array([0.75, 0.25]), (N_TOKENS, N_LAYERS, TOP_K)).astype(np.float16),
        "dropped": np.broadcast_to((token % 5 == 0) & (layer == 1) & (rank[..., :TOP_K] == 1), shape[:2] + (TOP_K,)),
        "logits": ((7 * token + 3 * layer + 5 * expert) % 11 - 5).astype(np.float32),
        "prompt": (np.arange(N_TOKENS) // 8).astype(np.int32),
        "position": (np.arange(N_TOKENS) % 8).astype(np.int32),
        "token_id": (np.arange(N_TOKENS) % 6).astype(np.int32),
        "phase": (np.arange(N_TOKENS) % 8 >= 6).astype(np.uint8),
        "stack": np.zeros(N_TOKENS, np.uint8),
        "nll": np.where(np.arange(N_TOKENS) % 8 == 0, np.nan, np.arange(N_TOKENS) / 4).astype(np.float32),
    }


def known_facts() -> list[LayerFacts]:
    """The routers of every fixture."""
    return [
        LayerFacts(
            label=f"L{number:02d}", number=number, module=f"model.layers.{number}.mlp", n_experts=N_EXPERTS,
            top_k=TOP_K, router_class="FixtureRouter", score_function="sigmoid", bias=[0.25] * N_EXPERTS, n_groups=2,
            top_groups=1, weights_normalized=True, scale=2.5, capacity=64, n_shared_experts=1, proof="replay",
        )
        for number in (3, 4)
    ]  # fmt: skip


def known_prompts() -> pd.DataFrame:
    """The prompts of every fixture."""
    return pd.DataFrame(
        {
            "prompt": ["a-0", "b-0", "a-1"], "task": ["a", "b", "a"], "task_type": ["maths", "knowledge", "maths"],
            "text": TEXTS, "target": [" 4", None, " 東"], "prediction": [" 4", " ?", None], "score": [1.0, 0.0, np.nan],
            "metric": ["exact_match", "token_f1", "exact_match"], "source": "fixture", "difficulty": [1, 2, 3],
        }
    )  # fmt: skip


def writer_at(path: Path, *, level: str) -> TraceWriter:
    """A writer with everything but the tokens."""
    made = Provenance(model="fixture", seed=7, started="2026-11-22T00:00:00+00:00", self_check={"replay": "passed"})
    writer = TraceWriter(
        path, layer_facts=known_facts(), level=level, n_ranks=N_RANKS, provenance=made, chunk_tokens=12,
        logits_dtype="bfloat16", vocabulary={number: f" p{number}" for number in range(6)},
    )  # fmt: skip
    writer.set_prompts(known_prompts())
    return writer


def append(writer: TraceWriter, *, with_logits: bool) -> None:
    """All tokens in batches of 7."""
    arrays = known_arrays()
    if not with_logits:
        del arrays["logits"]
    for start in range(0, N_TOKENS, 7):
        writer.append(TokenBatch(**{name: values[start : start + 7] for name, values in arrays.items()}))


def main() -> None:
    """Write every form of a trace; fails where one is there already."""
    root = Path(__file__).parent / f"v{VERSION}"
    for level in ("full", "assignments"):
        with writer_at(root / level, level=level) as writer:
            append(writer, with_logits=level == "full")
        pack_trace(root / level, root / f"{level}-packed")
    killed = writer_at(root / "full-killed", level="full")
    append(killed, with_logits=True)
    with writer_at(root / "counts", level="counts") as writer:
        experts, task = known_arrays()["experts"][:, :, :TOP_K], np.array([0, 1, 0])[np.arange(N_TOKENS) // 8]
        counts = np.zeros((2, N_LAYERS, N_EXPERTS), np.int64)
        for layer in range(N_LAYERS):
            np.add.at(counts, (task[:, None], layer, experts[:, layer]), 1)
        writer.set_counts(counts, tasks=["a", "b"], n_tokens=N_TOKENS)
    print(open_trace(root / "full"))


if __name__ == "__main__":
    main()
