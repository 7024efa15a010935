"""Command-line options of the Task-level MoE recipe."""

import argparse
from pathlib import Path

from .run_options import run_parser
from .task_moe_run import DEFAULT_NEW_TASKS, ROUTES

REPORTED = (
    "routes", "stage", "task_embedding", "instruction", "steps", "warmup", "decay_share", "dropout", "router_rate",
    "embedding_rate", "router_epsilon", "embedding_width", "router_width", "source_length", "target_length",
    "adapt_steps", "adapt_examples", "adapt_rate", "permutations", "rows",
)  # fmt: skip
"""Options that metrics.json tells beside those of every recipe."""


def task_moe_parser() -> argparse.ArgumentParser:
    """Return the parser of the recipe's options."""
    parser = run_parser(
        "Train Task-level MoE, or a control, from a pretrained BART.",
        steps=8000,
        decay_share=0.6,
        rows=64,
        learning_rate=1e-3,
        snapshots=(),
    )
    parser.set_defaults(check_every=600, weight_decay=0.01, check_rows=48, score_rows=200)
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a BART that `backbone` pretrained")
    parser.add_argument("--stage", choices=("1", "2", "both"), default="both", help="--steps are those of each stage")
    parser.add_argument("--routes", choices=tuple(ROUTES), default="learned")
    parser.add_argument("--task-embedding", choices=("random", "text"), default="random")
    parser.add_argument(
        "--instruction",
        choices=("on", "off"),
        default="off",
        help="whether prompts name the task; off, the route is the only word of it",
    )
    parser.add_argument("--tasks", nargs="+", help="all of the corpus but the new ones, if not given")
    parser.add_argument("--new-tasks", nargs="*", default=list(DEFAULT_NEW_TASKS), help="held out of training")
    parser.add_argument("--experts", type=int, default=3, help="experts a layer")
    parser.add_argument("--embedding-width", type=int, default=128)
    parser.add_argument("--router-width", type=int, default=64)
    parser.add_argument("--router-rate", type=float, default=10.0, help="learning rate of the router over the model's")
    parser.add_argument("--embedding-rate", type=float, default=30.0, help="that of the task embeddings")
    parser.add_argument("--router-epsilon", type=float, default=1e-3, help="AdamW's epsilon for both")
    parser.add_argument("--warmup", type=int, default=400, help="steps of rising rate")
    parser.add_argument("--source-length", type=int, default=224, help="most tokens of a source")
    parser.add_argument("--target-length", type=int, default=64, help="most tokens of a target")
    parser.add_argument("--permutations", type=int, default=5000)
    parser.add_argument("--knock-out", type=int, default=3, help="experts of a feature to disable")
    parser.add_argument("--random-sets", type=int, default=24, help="matched sets to hold them against")
    parser.add_argument("--adapt-steps", type=int, default=200, help="steps on each new task; 0: none")
    parser.add_argument("--adapt-examples", type=int, default=64, help="train rows of each new task")
    parser.add_argument("--adapt-rate", type=float, default=5e-4)
    parser.add_argument("--metrics-only", action="store_true", help="write no weights")
    return parser
