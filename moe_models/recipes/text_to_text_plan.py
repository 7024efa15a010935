"""Plans of PHA and Task-level MoE runs: ``python -m moe_models.recipes.text_to_text_plan STAGE > PLAN.json``.

For `sweep`. ``tune`` pretrains both backbones and tries learning rates on a seed that the studies do not use, the same
ones for methods and controls. ``study`` runs every condition for every seed; the rates found go into its options.
Backbones that are there already (under the sweep's folder) are not made again. All jobs can stop and be resumed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_TUNING_SEED = 100
_SIZES = ("32", "100", "500", "2000")
_PHA_RATES = (3e-4, 1e-3, 3e-3)
_ROUTERS = ((10.0, 30.0, 1e-3), (10.0, 30.0, 1e-4), (3.0, 10.0, 1e-3), (10.0, 30.0, 1e-8))
"""Learning rates of router and task embeddings over the model's, and AdamW's epsilon for both."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a plan, and return the exit code."""
    options = _parser().parse_args(arguments)
    jobs = [*backbone_jobs(options)]
    if options.stage == "tune":
        jobs += tuning_jobs(options)
    else:
        jobs += study_jobs(options)
    print(json.dumps({"jobs": jobs}, indent=1))
    return 0


def backbone_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the pretraining of both backbones."""
    for kind, rows in (("t5", 256), ("bart", 128)):
        yield {
            "name": f"backbones/{kind}",
            "command": _command(
                "backbone", kind=kind, rows=rows, steps=options.backbone_steps, compile=options.compile
            ),
            "slots": 2,
            "seconds": round(60 + 0.03 * options.backbone_steps),
        }


def tuning_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield runs of one seed that differ in their learning rates."""
    for method in ("pha", "no-contrast"):
        for rate in _PHA_RATES:
            name = f"tune/pha-{method}-{rate:g}"
            yield _pha(name, method, n="100", seed=_TUNING_SEED, options=options, learning_rate=f"{rate:g}")
    for router, embedding, epsilon in _ROUTERS:
        rates = _router_options(router, embedding, epsilon)
        yield _task_moe(f"tune/routes-{router:g}-{epsilon:g}", "learned", _TUNING_SEED, options, **rates)
    yield _task_moe("tune/dense", "dense", _TUNING_SEED, options)


def study_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the long runs first, then the short ones, seed by seed, so that what time leaves out is the last seed."""
    rates = _router_options(options.router_rate, options.embedding_rate, options.router_epsilon)
    for seed in range(options.task_moe_seeds):
        kept = seed == 0
        yield _task_moe(f"task_moe/learned-{seed}", "learned", seed, options, weights=kept, **rates)
    text = {"task_embedding": "text", **rates}
    yield _task_moe("task_moe/text-0", "learned", 0, options, **text)
    for seed in range(options.task_moe_seeds):
        for routes in ("task-random", "dense"):
            yield _task_moe(f"task_moe/{routes}-{seed}", routes, seed, options)
    yield _task_moe("task_moe/average-0", "average", 0, options)
    rate = f"{options.pha_rate:g}"
    yield _pha("pha/pha-all-0", "pha", n="all", seed=0, options=options, learning_rate=rate, weights=True)
    for seed in range(options.pha_seeds):
        for method in ("pha", "no-contrast"):
            for n in _SIZES:
                yield _pha(f"pha/{method}-{n}-{seed}", method, n=n, seed=seed, options=options, learning_rate=rate)
        if seed >= options.other_seeds:
            continue
        for method in ("shared", "per-task", "instance"):
            for n in _SIZES[::2]:
                yield _pha(f"pha/{method}-{n}-{seed}", method, n=n, seed=seed, options=options, learning_rate=rate)


def _router_options(router: float, embedding: float, epsilon: float) -> dict[str, str]:
    return {"router_rate": f"{router:g}", "embedding_rate": f"{embedding:g}", "router_epsilon": f"{epsilon:g}"}


def _pha(
    name: str, method: str, *, n: str, seed: int, options: argparse.Namespace, learning_rate: str, weights: bool = False
) -> dict[str, Any]:
    told = {"method": method, "n_examples": n, "seed": seed, "steps": options.pha_steps, "learning_rate": learning_rate}
    command = _command("pha", backbone="{out:backbones/t5}", compile="off", **told)
    return {
        "name": name,
        "command": command if weights else [*command, "--metrics-only"],
        "after": ["backbones/t5"],
        "seconds": round(60 + 0.02 * options.pha_steps),
    }


def _task_moe(
    name: str, routes: str, seed: int, options: argparse.Namespace, *, weights: bool = False, **more: str
) -> dict[str, Any]:
    told = {"routes": routes, "seed": seed, "steps": options.task_moe_steps, **more}
    command = _command("task_moe", backbone="{out:backbones/bart}", compile="off", **told)
    n_stages = 2 if routes == "learned" else 1
    return {
        "name": name,
        "command": command if weights else [*command, "--metrics-only"],
        "after": ["backbones/bart"],
        "seconds": round(100 + n_stages * 0.025 * options.task_moe_steps),
    }


def _command(recipe: str, **options: Any) -> list[str]:
    words = ["python", "-W", "ignore", "-m", f"moe_models.recipes.{recipe}", "--data", "{data}", "--out", "{out}"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return [*words, "--resume", "--stop-after", "{stop_after}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Print a plan of PHA and Task-level MoE runs for `sweep`.")
    parser.add_argument("stage", choices=("tune", "study"))
    parser.add_argument("--backbone-steps", type=int, default=6000)
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto", help="for the backbones alone")
    parser.add_argument("--pha-steps", type=int, default=1500)
    parser.add_argument("--pha-rate", type=float, default=1e-3, help="learning rate of PHA and its controls")
    parser.add_argument("--pha-seeds", type=int, default=4, help="of PHA and the one without contrast")
    parser.add_argument("--other-seeds", type=int, default=2, help="of the other controls")
    parser.add_argument("--task-moe-steps", type=int, default=6000, help="of each stage")
    parser.add_argument("--task-moe-seeds", type=int, default=4)
    parser.add_argument("--router-rate", type=float, default=10.0)
    parser.add_argument("--embedding-rate", type=float, default=30.0)
    parser.add_argument("--router-epsilon", type=float, default=1e-3)
    return parser


if __name__ == "__main__":
    sys.exit(main())
