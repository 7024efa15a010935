"""Command-line options that every recipe has."""

import argparse
from pathlib import Path

import torch

from .schedule import Schedule
from .training import TrainingOptions

NOT_FINISHED = 3
"""Exit code of a recipe that stopped before its last step and goes on with ``--resume``."""


def run_parser(
    description: str, *, steps: int, decay_share: float, rows: int, learning_rate: float, snapshots: tuple[int, ...]
) -> argparse.ArgumentParser:
    """Return a parser of the options that every recipe has, with a recipe's own defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.json and tasks/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--decay-share", type=float, default=decay_share, help="last share of steps, with falling rate")
    parser.add_argument("--rows", type=int, default=rows, help="rows of context length a batch")
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/run/state.pt if it is there")
    parser.add_argument("--stop-after", type=float, help="seconds of training, then save and stop")
    parser.add_argument("--snapshots", type=int, nargs="*", default=list(snapshots), help="steps to keep")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--cache", type=Path, help="folder where runs on one host share tokenizer and batches")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--device", help="cuda or cpu; a GPU if there is one")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--check-every", type=int, default=1000)
    parser.add_argument("--check-rows", type=int, default=64, help="dev rows a task in the curve")
    parser.add_argument("--score-rows", type=int, default=400, help="most dev rows a task in the final scores")
    parser.add_argument("--architecture", default="{}", help="JSON of sizes that differ from the defaults")
    return parser


def training_options(options: argparse.Namespace) -> TrainingOptions:
    """Return how to train, from a recipe's parsed options."""
    return TrainingOptions(
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        seed=options.seed,
        n_workers=options.workers,
        compile=options.compile,
        snapshot_steps=tuple(options.snapshots),
        log_every=options.log_every,
        check_every=options.check_every,
        stop_after_seconds=options.stop_after,
    )


def device_of(options: argparse.Namespace) -> torch.device:
    """Return the device asked for, or a GPU if there is one."""
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def schedule_of(options: argparse.Namespace) -> Schedule:
    """Return learning rate and mix over the steps asked for."""
    return Schedule(n_steps=options.steps, decay_share=options.decay_share)
