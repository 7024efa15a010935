"""Plans of HyperMoE runs for `sweep`: ``python -m moe_models.recipes.hypermoe_plan STAGE > PLAN.json``.

``tune`` tries learning rates of the added parts on a seed that the study does not use, for the method and for the
ordinary adapter alike. ``study`` runs every condition for every seed, and the longer run that is shipped; the rates
found go into its options. All jobs can stop and be resumed.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .hypermoe_model import GENERATED_RATE, ORDINARY_RATE

_TUNING_SEED = 100
_TUNING_STEPS = 600
_RATES = {"unselected": (0.3, 0.1, 0.03), "adapter": (1.0, 0.3, 0.1), "none": (1.0,)}
_WHOLE_GPU = 64
"""More places than a GPU has: `sweep` gives the job one for itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a plan, and return the exit code."""
    options = _parser().parse_args(arguments)
    jobs = tuning_jobs(options) if options.stage == "tune" else study_jobs(options)
    print(json.dumps({"jobs": list(jobs)}, indent=1))
    return 0


def tuning_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield short runs of one seed that differ in the rate of the added parts."""
    for conditioning, rates in _RATES.items():
        for rate in rates:
            extra = ["--adapter-rate", f"{rate:g}", "--score-rows", "0"]
            name = f"tune/{conditioning}-{rate:g}"
            yield _job(name, conditioning, seed=_TUNING_SEED, steps=_TUNING_STEPS, options=options, extra=extra)


def study_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the run that is shipped, then the paired ones seed by seed, then one seed of the other controls."""
    generated, ordinary = (["--adapter-rate", f"{rate:g}"] for rate in (options.rate, options.ordinary_rate))
    # Answers are decoded for what is shipped; losses prompt by prompt are taken of all.
    unscored = ["--score-rows", "0"]
    if options.sample_steps:
        # Alone on its GPU and on its batches, it needs more hands than runs that share theirs.
        alone = argparse.Namespace(**{**vars(options), "workers": 2 * options.workers + 2})
        shipped = _job(
            "sample/unselected-0", "unselected", seed=0, steps=options.sample_steps, options=alone, extra=generated
        )
        yield shipped | {"slots": _WHOLE_GPU}
    paired = {"unselected": generated, "none": generated, "adapter": ordinary, "constant": generated}
    for seed in range(options.seeds):
        for conditioning, rate in paired.items():
            shipped = (conditioning, seed) == ("unselected", 0) and not options.sample_steps
            extra = rate if shipped else [*rate, *unscored]
            name = f"runs/{conditioning}-{seed}"
            yield _job(name, conditioning, seed=seed, steps=options.steps, options=options, extra=extra)
    for name, conditioning, more in (
        ("top3", "none", ["--experts-per-token", "3"]),
        ("selected", "selected", []),
        ("random", "random", []),
    ):
        extra = [*generated, *unscored, *more]
        yield _job(f"runs/{name}-0", conditioning, seed=0, steps=options.steps, options=options, extra=extra)


def _job(
    name: str, conditioning: str, *, seed: int, steps: int, options: argparse.Namespace, extra: Sequence[str]
) -> dict[str, Any]:
    command = ["python", "-m", "moe_models.recipes.hypermoe", "--data", "{data}", "--out", "{out}"]
    command += ["--conditioning", conditioning, "--seed", str(seed), "--steps", str(steps)]
    command += ["--workers", str(options.workers), "--cache", "{out}/../../cache", "--check-every", "500", *extra]
    # Batches of one seed serve all conditions; a step of 65,536 tokens took 35 ms for a like model on one H200.
    return {
        "name": name,
        "command": [*command, "--resume", "--stop-after", "{stop_after}"],
        "seconds": round(90 + 0.035 * steps),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Print a plan of HyperMoE runs for moe_models.recipes.sweep.")
    parser.add_argument("stage", choices=("tune", "study"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000, help="of each paired run")
    parser.add_argument("--sample-steps", type=int, default=6000, help="of the run that is shipped; 0: none of its own")
    parser.add_argument(
        "--rate", type=float, default=GENERATED_RATE, help="learning rate of generating parts over the rest's"
    )
    parser.add_argument("--ordinary-rate", type=float, default=ORDINARY_RATE, help="the same for the ordinary adapter")
    parser.add_argument("--workers", type=int, default=6, help="processes that prepare batches, a run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
