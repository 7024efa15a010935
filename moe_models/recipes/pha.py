"""Train PHA or a control: ``python -m moe_models.recipes.pha --data CORPUS --backbone DIR --out DIR``.

Writes ``metrics.json``, and the weights and tokenizer unless told otherwise, to DIR. The rows of each task, the order
of the batches and what is held out depend on seed and number of examples alone, so that methods can be compared pair by
pair. Weights are chosen on dev rows; test rows are reported.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from moe_models.pha import PhaForConditionalGeneration

from .answering import forced, task_scores
from .corpus import Row
from .examples import Examples, MixedBatches, encoded_examples, few_of_each
from .optimizer import MasterWeightOptimizer, Treatment
from .pha_measures import (
    instance_vectors,
    new_tasks,
    own_is_best,
    prototypes,
    retrieval,
    silhouette,
    with_every_prototype,
)
from .pha_run import (
    DEFAULT_NEW_TASKS,
    DEFAULT_TASKS,
    METHODS,
    BestWeights,
    PhaObjective,
    task_means,
    untrained_pha,
)
from .preparation import read_corpus
from .run_options import NOT_FINISHED, device_of, run_parser, training_options
from .scoring import main_score, mean
from .text_to_text import read_backbone, seconds_left, short_schedule
from .training import TrainingRun, save_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and write one model; return the exit code: 3 if training stopped before its last step."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    folder = options.out / "run"
    folder.mkdir(parents=True, exist_ok=True)
    device = device_of(options)
    corpus = read_corpus(options.data)
    backbone, tokenizer, made = read_backbone(options.backbone)
    tasks = tuple(options.tasks)
    n = None if options.n_examples == "all" else int(options.n_examples)

    def encoded(rows: list[Row], names: tuple[str, ...] = tasks) -> Examples:
        return encoded_examples(
            rows,
            tokenizer,
            tasks=names,
            source_length=options.source_length,
            target_length=options.target_length,
            device=device,
        )

    few = few_of_each((row for row in corpus.trainable if row.task in tasks), n=n, seed=options.seed)
    examples = encoded(few)
    batches = MixedBatches(examples, n_examples=options.rows, seed=options.seed)
    checked = encoded(corpus.drawn(split="dev", n_per_task=options.check_rows, seed=0))
    model = untrained_pha(
        backbone,
        tasks=tasks,
        method=options.method,
        adapter_width=options.adapter_width,
        dropout=options.dropout,
        seed=options.seed,
    )
    model = model.to(device).train()
    parameters = {"total": sum(parameter.numel() for parameter in model.parameters())}
    parameters["trained"] = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{options.method}: {len(examples)} examples of {len(tasks)} tasks; {parameters}, on {device}", flush=True)

    options.stop_after = seconds_left(options, started=started)
    best = BestWeights(checked, path=folder / "best.pt")
    run = TrainingRun(
        model,
        batches,
        schedule=short_schedule(options),
        objective=PhaObjective(method=options.method, n_examples=options.n_examples),
        optimizer=MasterWeightOptimizer(
            model, weight_decay=options.weight_decay, treatment=lambda name, parameter: Treatment()
        ),
        options=training_options(options),
        folder=folder,
        check=best.check(lambda: run.step),
    )
    if options.resume and run.resume():
        best.resume(run.curve)
        print(f"resumed at step {run.step}", flush=True)
    if not run.run():
        print(f"stopped at step {run.step} of {options.steps}; go on with --resume", flush=True)
        return NOT_FINISHED
    best.restore(model)

    started = time.monotonic()
    test = encoded(corpus.drawn(split="test", n_per_task=options.score_rows, seed=0))
    scores = task_scores(model, tokenizer, test, labels=corpus.labels)
    metrics = {
        "model": {"class": type(model).__name__, "parameters": parameters, "adapter_width": options.adapter_width},
        "backbone": {name: value for name, value in made.items() if name != "curve"},
        "training": {
            **asdict(training_options(options)),
            "method": options.method,
            "n_examples": options.n_examples,
            "steps": options.steps,
            "warmup": options.warmup,
            "decay_share": options.decay_share,
            "dropout": options.dropout,
            "examples_a_batch": options.rows,
            "tokens_a_batch": batches.tokens_a_batch,
            "examples": {task: len(examples.of_task(task)) for task in tasks},
            "chosen_step": best.step,
            "source_length": options.source_length,
            "target_length": options.target_length,
            "train_rows_dropped": corpus.n_dropped,
            "seconds": round(run.seconds, 1),
            "resumed_at": run.resumed_at,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "test": scores,
        "mean_score": mean([main_score(its) for its in scores.values()]),
        "vectors": vector_measures(model, test),
        "tasks": {task: asdict(corpus.facts[task]) for task in (*tasks, *options.new_tasks)},
        "curve": run.curve,
    }
    if options.method in ("pha", "no-contrast"):
        metrics["swap"] = swap_measures(model, checked)
        support = corpus.drawn(split="dev", n_per_task=options.check_rows, seed=0)
        metrics["new_tasks"] = new_tasks(model, encoded(support, tuple(options.new_tasks)), tasks)
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    if not options.metrics_only:
        save_weights(model, options.out)
        tokenizer.save_pretrained(options.out)
    for task, its in scores.items():
        print(task, {name: round(value, 3) for name, value in its.items()}, flush=True)
    told = f"mean {metrics['mean_score']:.3f} · retrieval {metrics['vectors']['retrieval']['accuracy']:.3f}"
    print(f"{told}; evaluated in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def vector_measures(model: PhaForConditionalGeneration, examples: Examples) -> dict[str, Any]:
    """Return what instance vectors and prototypes say of the tasks: retrieval, silhouette, nearness to the center."""
    vectors, known, task = instance_vectors(model, examples), prototypes(model), examples.task.cpu().numpy()
    centers = np.stack([vectors[task == number].mean(axis=0) for number in range(len(examples.tasks))])
    to_center = (centers / np.linalg.norm(centers, axis=1, keepdims=True) * known).sum(axis=1)
    return {
        "retrieval": retrieval(vectors, task, known),
        "silhouette": silhouette(vectors, task),
        "prototype_to_center": {
            name: round(float(value), 4) for name, value in zip(examples.tasks, to_center, strict=True)
        },
    }


def swap_measures(model: PhaForConditionalGeneration, examples: Examples) -> dict[str, Any]:
    """Return every task run with every task's adapters, and for how many the own ones do best."""
    swapped = with_every_prototype(model, examples)
    exact, nll = task_means(forced(model, examples), examples.tasks)
    return {
        **swapped,
        "own_best_exact": own_is_best(np.array(swapped["exact"]), lower_is_better=False),
        "own_best_nll": own_is_best(np.array(swapped["nll"]), lower_is_better=True),
        "own": {"exact": exact, "nll": nll},
    }


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "Train PHA, or a control, on a frozen backbone.",
        steps=3000,
        decay_share=0.8,
        rows=128,
        learning_rate=1e-3,
        snapshots=(),
    )
    parser.set_defaults(check_every=250, weight_decay=0.0)
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a T5 that `backbone` pretrained")
    parser.add_argument("--method", choices=tuple(METHODS), default="pha")
    parser.add_argument("--tasks", nargs="+", default=list(DEFAULT_TASKS))
    parser.add_argument("--new-tasks", nargs="*", default=list(DEFAULT_NEW_TASKS), help="never seen, for the retriever")
    parser.add_argument("--n-examples", default="all", help="train rows a task, or all")
    parser.add_argument("--warmup", type=int, default=200, help="steps of rising rate")
    parser.add_argument("--adapter-width", type=int, default=32)
    parser.add_argument("--source-length", type=int, default=128, help="most tokens of a source")
    parser.add_argument("--target-length", type=int, default=32, help="most tokens of a target")
    parser.add_argument("--metrics-only", action="store_true", help="write no weights")
    return parser


if __name__ == "__main__":
    sys.exit(main())
