"""Train a sample checkpoint: ``python -m moe_models.recipes.sample_moe --data CORPUS --out DIR``.

Writes the weights, tokenizer, ``metrics.json`` and model card to DIR, and state and snapshots to DIR/run. A run that
was cut off or stopped goes on with ``--resume``.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from .architecture import Architecture, n_parameters, untrained_model
from .balance import BALANCES
from .batches import PackedBatches
from .corpus import Row, completion_of, held_out_inputs, label_sets, prompt_of, read_manifest, read_rows
from .corpus import trainable_rows as find_trainable_rows
from .documents import Documents
from .evaluation import quick_check, task_scores
from .model_card import model_card
from .schedule import Schedule
from .settling import settle_routers
from .tokenization import train_tokenizer
from .training import TrainingOptions, TrainingRun, save_weights

# Per layer, the loss has to hold against what the layer would rather do; the pooled one is the stock class's default.
_BALANCE_WEIGHTS = {"per-layer": 0.1, "pooled": 0.01}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and write one sample model; return the exit code: 3 if training stopped before its last step."""
    options = _parser().parse_args(arguments)
    out, run_folder = options.out, options.out / "run"
    run_folder.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32

    facts = read_manifest(options.data)
    rows = read_rows(options.data)
    trainable, n_dropped = find_trainable_rows(rows)
    print(f"{len(trainable)} train rows; {n_dropped} dropped that a held-out row would show in", flush=True)
    sizes = Architecture(**json.loads(options.architecture))
    tokenizer = train_tokenizer(
        (text for row in trainable for text in (prompt_of(row) + completion_of(row.output),)),
        vocab_size=sizes.vocab_size,
        context_length=sizes.context_length,
    )
    schedule = Schedule(n_steps=options.steps, decay_share=options.decay_share)
    dataset = PackedBatches(
        Documents(trainable, facts=facts, held_out=held_out_inputs(rows), schedule=schedule),
        tokenizer,
        schedule=schedule,
        n_rows=options.rows,
        row_length=sizes.context_length,
        seed=options.seed,
    )
    model = untrained_model(
        sizes,
        end_token=tokenizer.eos_token_id,
        padding_token=tokenizer.pad_token_id,
        seed=options.seed,
    ).to(device, precision)
    print(f"{n_parameters(model):,} parameters, {len(tokenizer):,} tokens, on {device}", flush=True)

    training = TrainingOptions(
        balance=options.balance,
        balance_weight=options.balance_weight or _BALANCE_WEIGHTS[options.balance],
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        dropout=options.dropout,
        seed=options.seed,
        n_workers=options.workers,
        compile=options.compile,
        snapshot_steps=tuple(options.snapshots),
        log_every=options.log_every,
        check_every=options.check_every,
        stop_after_seconds=options.stop_after,
    )
    checked = _drawn(rows, split="dev", n_per_task=options.check_rows, seed=options.seed)
    run = TrainingRun(
        model,
        dataset,
        schedule=schedule,
        options=training,
        folder=run_folder,
        check=lambda trained: quick_check(trained, tokenizer, checked),
    )
    if options.resume and run.resume():
        print(f"resumed at step {run.step}", flush=True)
    finished = run.run()
    if not finished:
        print(f"stopped at step {run.step} of {options.steps}; go on with --resume", flush=True)
        return 3

    started = time.monotonic()
    model.eval()
    settled = []
    if options.balance == "per-layer" and options.settle_rows:
        plain = _drawn(trainable, split="train", n_per_task=options.settle_rows, seed=options.seed)
        settled = settle_routers(model, tokenizer, plain)
        print(f"settled routers: {settled}", flush=True)
    save_weights(model, out)
    tokenizer.save_pretrained(out)
    scored = _drawn(rows, split="dev", n_per_task=options.score_rows, seed=options.seed)
    metrics = {
        "model": {"class": type(model).__name__, "parameters": n_parameters(model), **asdict(sizes)},
        "training": {
            **asdict(training),
            "steps": options.steps,
            "decay_share": options.decay_share,
            "rows_a_batch": options.rows,
            "tokens_a_batch": options.rows * sizes.context_length,
            "train_rows": len(trainable),
            "train_rows_dropped": n_dropped,
            "seconds": round(run.seconds, 1),
            "resumed_at": run.resumed_at,
            "settled": [asdict(router) for router in settled],
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "dev": task_scores(model, tokenizer, scored, labels=label_sets(rows, facts=facts)),
        "load": quick_check(model, tokenizer, scored)["dev_load"],
        "tasks": {task: asdict(known) for task, known in facts.items()},
        "curve": run.curve,
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(metrics, name=out.name), encoding="utf-8")
    print(f"load max/mean by layer on dev: {metrics['load']}", flush=True)
    for task, its in metrics["dev"].items():
        print(task, {name: round(value, 3) for name, value in its.items()}, flush=True)
    print(f"evaluated in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _drawn(rows: list[Row], *, split: str, n_per_task: int, seed: int) -> list[Row]:
    """Return at most so many rows of each task of a split, drawn with a seed."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.split == split:
            by_task.setdefault(row.task, []).append(row)
    drawing = random.Random(seed)
    return [
        row
        for its_rows in by_task.values()
        for row in (its_rows if len(its_rows) <= n_per_task else drawing.sample(its_rows, n_per_task))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a sample Mixture-of-Experts model on a task corpus.")
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.json and tasks/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--balance", choices=BALANCES, default="per-layer", help="where load is balanced")
    parser.add_argument("--balance-weight", type=float, help="weight of the balance loss; 0.1 or, pooled, 0.01")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--decay-share", type=float, default=0.4, help="last share of the steps, with falling rate")
    parser.add_argument("--rows", type=int, default=128, help="rows of context length a batch")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/run/state.pt if it is there")
    parser.add_argument("--stop-after", type=float, help="seconds of training, then save and stop")
    parser.add_argument("--snapshots", type=int, nargs="*", default=[0, 500, 2000, 8000], help="steps to keep")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--device", help="cuda or cpu; a GPU if there is one")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--check-every", type=int, default=1000)
    parser.add_argument("--check-rows", type=int, default=64, help="dev rows a task in the curve")
    parser.add_argument("--settle-rows", type=int, default=40, help="train rows a task to settle routers on; 0: none")
    parser.add_argument("--score-rows", type=int, default=400, help="most dev rows a task in the final scores")
    parser.add_argument("--architecture", default="{}", help="JSON of sizes that differ from the defaults")
    return parser


if __name__ == "__main__":
    sys.exit(main())
