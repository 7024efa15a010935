"""Write the archive's traces in the present format version: ``python -m tests.archive.write_fixtures``.

To be run once for each format version. What an older version wrote stays as it is: it must open for ever.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from routing import AdapterSite, LayerFacts, Provenance, TokenBatch, TraceWriter, open_trace, pack_trace

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


def known_sites() -> list[AdapterSite]:
    """Where the fixtures apply adapters: beside the second router, and at a place that has none."""
    return [
        AdapterSite(label="L04", number=4, hidden=3, width=2, n_parameters=17, made_from="selected_set"),
        AdapterSite(label="dec00", number=0, hidden=2, width=1, n_parameters=7, made_from="task", note="smaller"),
    ]


def known_adapters() -> tuple[list[tuple[str, str]], np.ndarray, dict[str, np.ndarray]]:
    """Keys, parameters and conditioning of the fixtures' adapters: sets of selected experts of L04, tasks."""
    sets = np.unique(np.sort(known_arrays()["experts"][:, 1, :TOP_K], axis=1), axis=0)
    keys = [("L04", f"{low} {high}") for low, high in sets.tolist()] + [("dec00", "a"), ("dec00", "b")]
    adapter, parameter = np.arange(len(keys))[:, None], np.arange(17)[None, :]
    parameters = (adapter - parameter / 4).astype(np.float32)
    parameters[-2:, 7:] = np.nan
    return keys, parameters, {"selection_embedding": np.column_stack([adapter[:, 0], -adapter[:, 0]]) / 2}


def known_adapter_rows() -> dict[str, np.ndarray]:
    """Which adapters the fixtures' tokens use."""
    keys, arrays = known_adapters()[0], known_arrays()
    chosen = np.sort(arrays["experts"][:, 1, :TOP_K], axis=1)
    of_set = [keys.index(("L04", f"{low} {high}")) for low, high in chosen.tolist()]
    of_task = [keys.index(("dec00", "aba"[prompt])) if place else -1 for prompt, place in zip(
        arrays["prompt"], arrays["position"], strict=True)]  # fmt: skip
    index = np.column_stack([of_set, of_task]).astype(np.int32)
    return {
        "adapter_index": index,
        "adapter_ratio": np.where(index >= 0, np.arange(N_TOKENS)[:, None] / 8, np.nan).astype(np.float16),
    }


def known_vectors() -> dict[str, xr.DataArray]:
    """Tables beside the fixtures' arrays."""
    values = (np.arange(3)[:, None] - np.arange(2) / 4).astype(np.float32)
    return {"instance": xr.DataArray(values, dims=("prompt", "feature"), coords={"prompt": ["a-0", "b-0", "a-1"]})}


def write_adapter_fixtures(root: Path) -> None:
    """The forms of a trace with adapters and vectors; they came after the others, in the same version."""
    for name in ("adapters", "adapters-killed"):
        made = Provenance(model="fixture", seed=7, started="2026-11-22T00:00:00+00:00")
        writer = TraceWriter(
            root / name, layer_facts=known_facts(), level="assignments", n_ranks=N_RANKS, provenance=made,
            chunk_tokens=12, vocabulary={number: f" p{number}" for number in range(6)}, adapter_sites=known_sites(),
        )  # fmt: skip
        writer.set_prompts(known_prompts())
        keys, parameters, conditioning = known_adapters()
        arrays = known_arrays() | known_adapter_rows()
        del arrays["logits"]
        for start in range(0, N_TOKENS, 7):
            writer.append(TokenBatch(**{name: values[start : start + 7] for name, values in arrays.items()}))
            here = slice(start // 7 * 4, start // 7 * 4 + 4 if start < 14 else None)
            if name == "adapters" or start < 14:
                rows = {of: values[here] for of, values in conditioning.items()}
                writer.add_adapters(keys[here], parameters[here], conditioning=rows)
        writer.set_vectors(known_vectors())
        if name == "adapters":
            writer.close()
    pack_trace(root / "adapters", root / "adapters-packed")


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
    write_adapter_fixtures(root)
    print(open_trace(root / "full"))


if __name__ == "__main__":
    main()
