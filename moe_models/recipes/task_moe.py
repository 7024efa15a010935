"""Train Task-level MoE or a control: ``python -m moe_models.recipes.task_moe --data CORPUS --backbone DIR --out DIR``.

Stage 1 learns experts, router and task embeddings together; stage 2 keeps the routes and trains experts anew, from the
average of the experts to the learned routes. Controls have no stage 1. Writes ``metrics.json``, ``routes.npz`` (routes
over training), and the weights and tokenizer unless told otherwise, to DIR.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from moe_models.task_moe import TaskMoeForConditionalGeneration

from .adaptation import adapted_scores
from .answering import forced, task_scores
from .corpus import Row
from .examples import Examples, MixedBatches, encoded_examples, even_copies, few_of_each
from .optimizer import MasterWeightOptimizer
from .preparation import Corpus, read_corpus
from .route_measures import knock_outs, route_measures
from .routes import TemperedBatches, route_tables, save_snapshots, snapshot
from .run_options import NOT_FINISHED, device_of, training_options
from .scoring import main_score, mean
from .task_moe_options import REPORTED, task_moe_parser
from .task_moe_run import (
    TaskMoeObjective,
    router_state,
    take_router,
    text_embeddings,
    untrained_task_moe,
)
from .text_to_text import read_backbone, seconds_left, short_schedule
from .training import TrainingRun, save_weights


class Recipe:
    """One run: what it reads, and its stages."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device, self.started = options, device_of(options), time.monotonic()
        self.corpus: Corpus = read_corpus(options.data)
        self.backbone, self.tokenizer, self.made = read_backbone(options.backbone)
        known = options.tasks or [task for task in self.corpus.facts if task not in options.new_tasks]
        self.tasks = tuple(known)
        self.examples = self.encoded([row for row in self.corpus.trainable if row.task in self.tasks])
        self.checked = self.encoded(self.corpus.drawn(split="dev", n_per_task=options.check_rows, seed=0))
        self.curves: dict[int, list[dict[str, Any]]] = {}
        self.seconds, self.resumed_at = 0.0, list[int]()

    def encoded(self, rows: Sequence[Row], tasks: tuple[str, ...] | None = None) -> Examples:
        """Return rows of the tasks as examples on the device."""
        options = self.options
        return encoded_examples(
            rows,
            self.tokenizer,
            tasks=self.tasks if tasks is None else tasks,
            source_length=options.source_length,
            target_length=options.target_length,
            device=self.device,
            instruction=options.instruction == "on",
        )

    def model(self, stage: int) -> TaskMoeForConditionalGeneration:
        """Return the model of a stage before its first step, on the device."""
        options, embedding = self.options, None
        if options.task_embedding == "text":
            embedding = text_embeddings(self.backbone.to(self.device), self.examples, n_per_task=64)
            self.backbone.cpu()
        model = untrained_task_moe(
            self.backbone,
            tasks=self.tasks,
            routes=options.routes,
            stage=stage,
            embedding=embedding,
            n_experts=options.experts,
            embedding_width=options.embedding_width,
            router_width=options.router_width,
            reads_instruction=options.instruction == "on",
            dropout=options.dropout,
            seed=options.seed,
        )
        return model.to(self.device).train()

    def train(self, model: TaskMoeForConditionalGeneration, stage: int) -> bool:
        """Train a stage; return whether its last step was reached."""
        options, folder = self.options, self.options.out / "run" / f"stage-{stage}"
        folder.mkdir(parents=True, exist_ok=True)
        limit = seconds_left(options, started=self.started)
        objective = TaskMoeObjective(
            routes=options.routes,
            stage=stage,
            embedding=options.task_embedding,
            instruction=options.instruction,
            router_rate=options.router_rate,
            embedding_rate=options.embedding_rate,
            router_epsilon=options.router_epsilon,
        )
        batches = MixedBatches(
            self.examples,
            n_examples=options.rows,
            seed=options.seed,
            copies=even_copies(self.examples, power=0.5),
        )
        run = TrainingRun(
            model,
            TemperedBatches(batches, stage=stage, n_steps=options.steps),
            schedule=short_schedule(options),
            objective=objective,
            optimizer=MasterWeightOptimizer(model, weight_decay=options.weight_decay, treatment=objective.treatment),
            options=replace(training_options(options), stop_after_seconds=limit),
            folder=folder,
            check=self.check,
        )
        if options.resume and run.resume():
            print(f"resumed stage {stage} at step {run.step}", flush=True)
        else:
            run.curve.append({"step": 0, "tokens_per_second": 0, **snapshot(model)})
        finished = run.run()
        self.curves[stage], self.seconds = run.curve, self.seconds + run.seconds
        self.resumed_at += run.resumed_at
        return finished

    def check(self, model: PreTrainedModel) -> dict[str, Any]:
        """Return dev scores by task and the routes as they are now."""
        by_task = forced(model, self.checked).by_task(self.tasks)
        exact = {task: its["exact"] for task, its in by_task.items()}
        nll = {task: its["nll"] for task, its in by_task.items()}
        kept = snapshot(model)
        print(
            f"  dev exact {mean(list(exact.values())):.3f} · nll {mean(list(nll.values())):.3f} · route entropy "
            f"{kept['entropy']:.3f} · specialization {kept['specialization']:.3f}",
            flush=True,
        )
        return {"dev_exact": exact, "dev_nll": nll, **kept}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and write one model; return the exit code: 3 if training stopped before its last step."""
    options = task_moe_parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(options)
    learned = options.out / "run" / "stage-1.safetensors"
    if options.routes == "learned" and options.stage in ("1", "both") and not (options.resume and learned.is_file()):
        model = recipe.model(stage=1)
        _tell(model, recipe)
        if not recipe.train(model, stage=1):
            print("stopped in stage 1; go on with --resume", flush=True)
            return NOT_FINISHED
        save_file(router_state(model), learned)
        learned.with_suffix(".json").write_text(json.dumps([recipe.curves[1], recipe.seconds]), encoding="utf-8")
        if options.stage == "1":
            write(model, recipe)
            return 0
        # Stage 2 starts from the backbone again; these experts are not needed.
        del model
    if options.stage == "1":
        return 0
    model = recipe.model(stage=2)
    _tell(model, recipe)
    if options.routes == "learned":
        if not learned.is_file():
            message = f"{learned} is not there, and stage 2 takes its routes from it. Run stage 1 first, or both."
            raise FileNotFoundError(message)
        take_router(model, load_file(learned))
        recipe.curves[1], recipe.seconds = json.loads(learned.with_suffix(".json").read_text(encoding="utf-8"))
    if not recipe.train(model, stage=2):
        print("stopped in stage 2; go on with --resume", flush=True)
        return NOT_FINISHED
    write(model, recipe)
    return 0


def write(model: TaskMoeForConditionalGeneration, recipe: Recipe) -> None:
    """Measure a trained model, and write what was found, its routes over training and, unless told not to, itself."""
    options = recipe.options
    model.eval()
    # Where τ was going: a short run can end a little above it.
    model.router.temperature.fill_(1.0)
    metrics = measured(model, recipe)
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    types = {task: metrics["tasks"][task]["task_type"] for task in recipe.tasks}
    save_snapshots(options.out / "routes.npz", curves=recipe.curves, types=types)
    if not options.metrics_only:
        save_weights(model, options.out)
        recipe.tokenizer.save_pretrained(options.out)


def measured(model: TaskMoeForConditionalGeneration, recipe: Recipe) -> dict[str, Any]:
    """Return all that is measured of a trained model, and how it was trained."""
    options, corpus, started = recipe.options, recipe.corpus, time.monotonic()
    test = recipe.encoded(corpus.drawn(split="test", n_per_task=options.score_rows, seed=0))
    scores = task_scores(model, recipe.tokenizer, test, labels=corpus.labels)
    routes, _ = route_tables(model)
    types = [corpus.facts[task].task_type for task in recipe.tasks]
    told = route_measures(routes, types, model, n_permutations=options.permutations, n_untrained=200, seed=options.seed)
    metrics = {
        "model": {
            "class": "TaskMoeForConditionalGeneration",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "n_experts": model.config.num_layer_experts,
            "n_layers": len(model.routed_layers),
            "hidden_size": model.config.d_model,
            "temperature": round(float(model.router.temperature), 4),
        },
        "backbone": {name: value for name, value in recipe.made.items() if name != "curve"},
        "training": {
            **asdict(training_options(options)),
            **{name: getattr(options, name) for name in REPORTED},
            "new_tasks": list(options.new_tasks),
            "tokens_a_batch": options.rows * (recipe.examples.source.shape[1] + recipe.examples.labels.shape[1]),
            "train_rows": len(recipe.examples),
            "train_rows_dropped": corpus.n_dropped,
            "seconds": round(recipe.seconds, 1),
            "resumed_at": recipe.resumed_at,
            "device": torch.cuda.get_device_name() if recipe.device.type == "cuda" else "CPU",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "test": scores,
        "mean_score": mean([main_score(its) for its in scores.values()]),
        "routes": told,
        "knock_outs": knock_outs(
            model, recipe.checked, types, told, n_experts_out=options.knock_out, n_random=options.random_sets
        ),
        "tasks": {task: asdict(known) for task, known in corpus.facts.items()},
        "curve": {
            str(stage): [
                {name: value for name, value in entry.items() if name not in ("route", "route_t1")} for entry in its
            ]
            for stage, its in recipe.curves.items()
        },
    }
    print(f"mean score {metrics['mean_score']:.3f}; measured in {time.monotonic() - started:.0f} s", flush=True)
    if options.adapt_steps and options.new_tasks:
        new = tuple(options.new_tasks)
        support = few_of_each(
            (row for row in corpus.trainable if row.task in new), n=options.adapt_examples, seed=options.seed
        )
        metrics["new_tasks"] = adapted_scores(
            model,
            recipe.tokenizer,
            recipe.encoded(support, new),
            recipe.encoded(corpus.drawn(split="test", n_per_task=options.score_rows, seed=0), new),
            labels=corpus.labels,
            n_steps=options.adapt_steps,
            learning_rate=options.adapt_rate,
            seed=options.seed,
        )
        print(f"new tasks: {metrics['new_tasks']}; {time.monotonic() - started:.0f} s", flush=True)
    return metrics


def _tell(model: TaskMoeForConditionalGeneration, recipe: Recipe) -> None:
    n = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{recipe.options.routes}: {n:,} parameters, {len(recipe.examples):,} examples of {len(recipe.tasks)} tasks, "
        f"sources of {recipe.examples.source.shape[1]} tokens; on {recipe.device}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
