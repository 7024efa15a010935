"""What the HyperExpert costs: ``python -m moe_models.recipes.hypermoe_speed --out FILE``, on a machine left alone.

Models of several conditions take turns in one process, a few steps each, so that whatever slows the machine down for
a while slows all of them. Ratios to control c0 are taken within a round.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .architecture import Architecture
from .batches import Batch
from .hypermoe_model import HYPERMOE_SIZES, hypermoe_treatment, untrained_hypermoe
from .intervals import mean_interval
from .objective import MoeObjective
from .optimizer import MasterWeightOptimizer

CONDITIONS = {"c0": "none", "hypermoe": "unselected", "c2": "adapter", "c3": "constant"}
MORE_EXPERTS = "c1"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One model that can take training steps, and forward passes alone."""

    train: Callable[[], None]
    infer: Callable[[], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the ratios, and return the exit code."""
    options = _parser().parse_args(arguments)
    sizes = replace(HYPERMOE_SIZES, **json.loads(options.architecture))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # All contestants compile the same few lines, each for itself; the stock limit is fewer than they are.
    torch._dynamo.config.recompile_limit = 64
    batch = _batch(sizes, n_rows=options.rows, device=device)
    contestants = {name: _contestant(sizes, kind, batch, device=device) for name, kind in CONDITIONS.items()}
    wider = replace(sizes, top_k=sizes.top_k + 1)
    contestants[MORE_EXPERTS] = _contestant(wider, "none", batch, device=device)
    n_tokens = options.steps * batch["tokens"].numel()
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "tokens_a_batch": batch["tokens"].numel(),
        "rounds": options.rounds,
        **{
            kind: ratios(
                measured_rounds(
                    {name: getattr(its, kind) for name, its in contestants.items()},
                    n_rounds=options.rounds,
                    n_steps=options.steps,
                    wait=torch.cuda.synchronize if device.type == "cuda" else lambda: None,
                ),
                n_tokens=n_tokens,
            )
            for kind in ("train", "infer")
        },
        "memory_bytes": {name: _peak(its.train) for name, its in contestants.items()} if device.type == "cuda" else {},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for kind in ("train", "infer"):
        for name, its in result[kind].items():
            ratio = its["against_c0"]
            print(f"{kind} {name}: {its['tokens_per_second']:,} tokens/s, {ratio['mean']:+.1%} against c0", flush=True)
    return 0


def measured_rounds(
    turns: dict[str, Callable[[], None]], *, n_rounds: int, n_steps: int, wait: Callable[[], None]
) -> list[dict[str, float]]:
    """Return the seconds that each took in each round; the order of turns moves on by one from round to round."""
    for step in turns.values():  # compile, and settle the memory
        for _ in range(3):
            step()
    names, rounds = list(turns), []
    for number in range(n_rounds):
        first = number % len(names)
        seconds = {}
        for name in names[first:] + names[:first]:
            wait()
            begun = time.perf_counter()
            for _ in range(n_steps):
                turns[name]()
            wait()
            seconds[name] = time.perf_counter() - begun
        rounds.append(seconds)
    return rounds


def ratios(rounds: Sequence[dict[str, float]], *, n_tokens: int) -> dict[str, dict[str, Any]]:
    """Return each one's speed, and its speed over c0's less one, with an interval over rounds."""
    return {
        name: {
            "tokens_per_second": round(n_tokens / sorted(its[name] for its in rounds)[len(rounds) // 2]),
            "against_c0": asdict(mean_interval([its["c0"] / its[name] - 1 for its in rounds])),
        }
        for name in rounds[0]
    }


def _contestant(sizes: Architecture, conditioning: str, batch: Batch, *, device: torch.device) -> Contestant:
    model = untrained_hypermoe(sizes, conditioning=conditioning, widths={}, end_token=0, padding_token=1, seed=0)
    model = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    optimizer = MasterWeightOptimizer(model, weight_decay=0.1, treatment=hypermoe_treatment(0.1))
    losses = {dropout: _loss(MoeObjective(balance="per-layer", balance_weight=0.1, dropout=dropout), device)
              for dropout in (0.0, 0.1)}  # fmt: skip

    def train() -> None:
        losses[0.1](model, batch)[0]["total"].backward()
        optimizer.step(learning_rate=1e-3)

    @torch.no_grad()
    def infer() -> None:
        losses[0.0](model, batch)

    return Contestant(train=train, infer=infer)


def _loss(objective: MoeObjective, device: torch.device) -> Callable[..., Any]:
    def loss(model: torch.nn.Module, batch: Batch) -> Any:
        return objective(model, batch)

    return torch.compile(loss, dynamic=False) if device.type == "cuda" else loss


def _batch(sizes: Architecture, *, n_rows: int, device: torch.device) -> Batch:
    drawing = torch.Generator().manual_seed(0)
    shape = (n_rows, sizes.context_length)
    batch = {
        "tokens": torch.randint(2, sizes.vocab_size, shape, generator=drawing, dtype=torch.int32),
        "documents": torch.ones(shape, dtype=torch.int16),
        "positions": torch.arange(sizes.context_length, dtype=torch.int32).expand(shape).contiguous(),
        "weights": torch.ones(shape),
    }
    return {name: values.to(device) for name, values in batch.items()}


def _peak(step: Callable[[], None]) -> int:
    """Return how much more memory a training step takes than lies there before and after it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure what HyperExperts cost in speed and memory.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--rows", type=int, default=128, help="rows of context length a batch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps of each model a round")
    parser.add_argument("--architecture", default="{}", help="JSON of sizes that differ from the recipe's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
