"""Compare HyperMoE runs with their controls: ``python -m moe_models.recipes.hypermoe_study --runs DIR …``.

Reads ``metrics.json`` and ``dev_losses.npz`` of the runs below the folders, no weights. Writes ``study.json`` and the
model card into the folder of the chosen checkpoint. Two runs are paired when their seeds are equal: then they saw the
same batches and started from the same values.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .dev_losses import AS_TRAINED, KINDS, DevLosses, read_dev_losses
from .hypermoe_card import hypermoe_card
from .intervals import Interval, holm_adjusted, mean_interval, paired_interval
from .runs import finished_runs, study_parser, write_study

HYPERMOE = "hypermoe"
CONTROLS = {"none": "c0", "adapter": "c2", "constant": "c3", "selected": "c4", "random": "c5"}

# What paired runs must have in common beside their seed; a gap between runs that differ here says nothing.
_SHARED_TRAINING = (
    "steps",
    "decay_share",
    "tokens_a_batch",
    "learning_rate",
    "weight_decay",
    "dropout",
    "balance",
    "balance_weight",
    "train_rows",
)
_SHARED_SIZES = ("vocab_size", "hidden_size", "n_layers", "n_heads", "n_experts", "expert_width", "context_length")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run, without its weights."""

    folder: str
    metrics: Mapping[str, Any]
    losses: DevLosses

    @property
    def conditioning(self) -> str:
        """What its extra adapter is made from."""
        return self.metrics["hypermoe"]["conditioning"]

    @property
    def top_k(self) -> int:
        """Experts a token."""
        return self.metrics["model"]["top_k"]

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.metrics["training"]["seed"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the runs, write the study and the card, and return the exit code."""
    parser = study_parser("Compare HyperMoE runs with their controls, and write the card.")
    parser.add_argument("--speed", type=Path, help="what hypermoe_speed wrote on a machine left alone")
    options = parser.parse_args(arguments)
    runs = read_runs(options.runs)
    result = study(runs)
    if options.speed:
        result["cost"] = json.loads(options.speed.read_text(encoding="utf-8"))
    own = override_effects(read_dev_losses(options.checkpoint / "dev_losses.npz"))
    name = options.checkpoint.name
    write_study(
        options.checkpoint, result, card=lambda metrics: hypermoe_card(metrics, name=name, study=result, own=own)
    )
    for control, gap in result["gaps"].items():
        print(f"HyperMoE − {control}: {Interval(**gap['written'])} nats a token of the answer")
    for override, effect in result["overrides"].items():
        print(f"{override}: {Interval(**effect['written'])}")
    return 0


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the finished runs in or below folders, in the order of their paths.

    Raises:
        FileNotFoundError: there is no finished run of this recipe.
    """
    found = [
        Run(folder=folder.name, metrics=metrics, losses=read_dev_losses(folder / "dev_losses.npz"))
        for folder, metrics in finished_runs(folders)
        if "hypermoe" in metrics
    ]
    if not found:
        message = (
            "No finished run of moe_models.recipes.hypermoe was found: none of the folders holds a metrics.json of it. "
            "Pass the folders that its --out wrote."
        )
        raise FileNotFoundError(message)
    return found


def study(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the gaps between HyperMoE and each control, and what replacing the selection embedding does.

    ``p_values`` are of the gaps on answers over seeds, each as it is and adjusted for how many controls were compared.

    Raises:
        ValueError: runs differ in more than condition and seed, two are of one condition and seed, or none is HyperMoE.
    """
    by_condition = _by_condition(runs)
    own = by_condition[HYPERMOE]
    others = {name: its for name, its in by_condition.items() if name != HYPERMOE and own.keys() & its.keys()}
    gaps = {name: _gap(own, its) for name, its in others.items()}
    return {
        "steps": runs[0].metrics["training"]["steps"],
        "n_dev_rows": len(runs[0].losses.tasks),
        "n_tasks": len(set(runs[0].losses.tasks.tolist())),
        "conditions": {name: _described(its) for name, its in by_condition.items()},
        "gaps": gaps,
        "p_values": holm_adjusted({name: list(gap["per_seed"].values()) for name, gap in gaps.items()}),
        "overrides": {
            override: {
                kind: asdict(mean_interval([_effect(run, override, kind) for run in own.values()])) for kind in KINDS
            }
            | {"per_seed": {seed: run.losses.change_interval(override) for seed, run in own.items()}}
            for override in next(iter(own.values())).losses.nats
            if override != AS_TRAINED
        },
        "speed": {
            name: asdict(mean_interval([_speed(own[seed]) / _speed(its[seed]) - 1 for seed in own.keys() & its.keys()]))
            for name, its in others.items()
        },
    }


def override_effects(losses: DevLosses) -> dict[str, tuple[float, float, float]]:
    """Return what each replacement does to one model's overall loss, with its interval over prompts."""
    return {change: losses.change_interval(change) for change in losses.nats if change != AS_TRAINED}


def _by_condition(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Return the runs by condition, HyperMoE first, and seed."""
    methods = [run for run in runs if run.conditioning == "unselected"]
    if not methods:
        message = "None of the runs is HyperMoE itself. Run it with --conditioning unselected and the controls' seeds."
        raise ValueError(message)
    top_k, found = methods[0].top_k, {HYPERMOE: {}}
    for run in runs:
        _check_comparable(run, methods[0])
        name = HYPERMOE if run.conditioning == "unselected" else CONTROLS[run.conditioning]
        if run.top_k != top_k:
            name = "c1" if (run.conditioning, run.top_k) == ("none", top_k + 1) else f"{name}, top-{run.top_k}"
        its = found.setdefault(name, {})
        if run.seed in its:
            message = (
                f"{run.folder} and {its[run.seed].folder} are both {name} with seed {run.seed}. Leave one of them out."
            )
            raise ValueError(message)
        its[run.seed] = run
    return {
        name: dict(sorted(found[name].items())) for name in sorted(found, key=lambda name: (name != HYPERMOE, name))
    }


def _check_comparable(run: Run, reference: Run) -> None:
    pairs = [
        (name, run.metrics[part][name], reference.metrics[part][name])
        for part, names in (("training", _SHARED_TRAINING), ("model", _SHARED_SIZES))
        for name in names
    ]
    pairs.append(("dev rows", run.losses.tasks.tolist(), reference.losses.tasks.tolist()))
    for name, its, wanted in pairs:
        if its != wanted:
            told = "" if name == "dev rows" else f" ({its!r}, not {wanted!r})"
            message = (
                f"{run.folder} and {reference.folder} differ in their {name}{told}, so their losses cannot be paired. "
                "Compare runs that differ in condition and seed alone."
            )
            raise ValueError(message)


def _gap(own: Mapping[int, Run], others: Mapping[int, Run]) -> dict[str, Any]:
    """Return HyperMoE's loss minus a control's, over the seeds of both."""

    def gap(kind: str) -> Interval:
        return paired_interval(_overall(own, kind), _overall(others, kind))

    tasks = list(next(iter(own.values())).losses.means())
    by_task = {
        task: paired_interval(
            {seed: run.losses.means()[task] for seed, run in own.items()},
            {seed: run.losses.means()[task] for seed, run in others.items()},
        )
        for task in tasks
    }
    seeds = sorted(own.keys() & others.keys())
    return {
        **{kind: asdict(gap(kind)) for kind in KINDS},
        "per_seed": {seed: own[seed].losses.overall() - others[seed].losses.overall() for seed in seeds},
        "by_task": {task: asdict(interval) for task, interval in by_task.items()},
    }


def _overall(runs: Mapping[int, Run], kind: str) -> dict[int, float]:
    return {seed: run.losses.overall(kind=kind) for seed, run in runs.items()}


def _effect(run: Run, override: str, kind: str) -> float:
    return run.losses.overall(override, kind=kind) - run.losses.overall(kind=kind)


def _speed(run: Run) -> float:
    return run.metrics["training"]["tokens_per_second"]


def _described(runs: Mapping[int, Run]) -> dict[str, Any]:
    first = next(iter(runs.values())).metrics
    return {
        "parameters": first["model"]["parameters"],
        "added_parameters": first["hypermoe"]["added_parameters"],
        "top_k": first["model"]["top_k"],
        "loss": {kind: _overall(runs, kind) for kind in KINDS},
        "tokens_per_second": {seed: _speed(run) for seed, run in runs.items()},
        "load": {seed: max(run.metrics["load"]) for seed, run in runs.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
