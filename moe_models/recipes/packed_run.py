"""A run of a decoder-only Mixture-of-Experts on packed rows: what the OLMoE and the HyperMoE recipes share."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import transformers
from transformers import OlmoeForCausalLM, PreTrainedTokenizerFast

from .architecture import Architecture, n_parameters
from .balance import BALANCES
from .batches import BatchSource, PackedBatches
from .documents import Documents
from .evaluation import quick_check
from .objective import MoeObjective
from .optimizer import MasterWeightOptimizer, Treatment, moe_treatment
from .preparation import Corpus, corpus_tokenizer, digest_of, read_corpus
from .run_options import device_of, schedule_of, training_options
from .schedule import Schedule
from .shared_batches import SharedBatches
from .training import TrainingRun

# Per layer, the loss has to hold against what the layer would rather do; the pooled one is the stock class's default.
_BALANCE_WEIGHTS = {"per-layer": 0.1, "pooled": 0.01}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that a run needs but its model."""

    options: argparse.Namespace
    corpus: Corpus
    sizes: Architecture
    tokenizer: PreTrainedTokenizerFast
    schedule: Schedule
    dataset: BatchSource
    objective: MoeObjective
    device: torch.device


def add_balance_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the balance loss."""
    parser.add_argument("--balance", choices=BALANCES, default="per-layer", help="where load is balanced")
    parser.add_argument("--balance-weight", type=float, help="weight of the balance loss; 0.1 or, pooled, 0.01")


def prepared_run(options: argparse.Namespace, *, sizes: Architecture) -> Prepared:
    """Return what a run with these options needs; ``sizes`` are the defaults that ``--architecture`` changes."""
    (options.out / "run").mkdir(parents=True, exist_ok=True)
    corpus = read_corpus(options.data)
    sizes = Architecture(**{**asdict(sizes), **json.loads(options.architecture)})
    tokenizer = corpus_tokenizer(
        corpus, vocab_size=sizes.vocab_size, context_length=sizes.context_length, cache=options.cache
    )
    schedule = schedule_of(options)
    dataset: BatchSource = PackedBatches(
        Documents(corpus.trainable, facts=corpus.facts, held_out=corpus.held_out, schedule=schedule),
        tokenizer,
        schedule=schedule,
        n_rows=options.rows,
        row_length=sizes.context_length,
        seed=options.seed,
    )
    if options.cache:
        told = digest_of([corpus.digest, sizes.vocab_size, sizes.context_length, schedule, options.rows])
        dataset = SharedBatches(dataset, options.cache / f"batches-{told}-{options.seed}")
    return Prepared(
        options=options,
        corpus=corpus,
        sizes=sizes,
        tokenizer=tokenizer,
        schedule=schedule,
        dataset=dataset,
        objective=MoeObjective(
            balance=options.balance,
            balance_weight=options.balance_weight or _BALANCE_WEIGHTS[options.balance],
            dropout=options.dropout,
        ),
        device=device_of(options),
    )


def trained_run(
    prepared: Prepared,
    model: OlmoeForCausalLM,
    *,
    treatment: Callable[[str, torch.nn.Parameter], Treatment] = moe_treatment,
    identity: Mapping[str, Any] | None = None,
) -> TrainingRun | None:
    """Train a new model, moved to its device, and return its run; None if it stopped before the last step.

    Args:
        prepared: what the run needs beside its model.
        model: the model, fresh.
        treatment: how the parameter of a name is stepped.
        identity: options of the model that a resumed run must share.
    """
    options, corpus = prepared.options, prepared.corpus
    model = model.to(prepared.device, torch.bfloat16 if prepared.device.type == "cuda" else torch.float32)
    print(f"{n_parameters(model):,} parameters, {len(prepared.tokenizer):,} tokens, on {prepared.device}", flush=True)
    checked = corpus.drawn(split="dev", n_per_task=options.check_rows, seed=options.seed)
    run = TrainingRun(
        model,
        prepared.dataset,
        schedule=prepared.schedule,
        objective=prepared.objective,
        optimizer=MasterWeightOptimizer(model, weight_decay=options.weight_decay, treatment=treatment),
        options=training_options(options),
        folder=options.out / "run",
        check=lambda trained: _told(quick_check(trained, prepared.tokenizer, checked)),
        identity=identity,
    )
    if options.resume and run.resume():
        print(f"resumed at step {run.step}", flush=True)
    if not run.run():
        print(f"stopped at step {run.step} of {options.steps}; go on with --resume", flush=True)
        return None
    model.eval()
    return run


def run_metrics(prepared: Prepared, run: TrainingRun) -> dict[str, Any]:
    """Return what a finished run says of its model, its training and its data."""
    options, sizes, model = prepared.options, prepared.sizes, run.model
    on_gpu = prepared.device.type == "cuda"
    return {
        "model": {"class": type(model).__name__, "parameters": n_parameters(model), **asdict(sizes)},
        "training": {
            **asdict(prepared.objective),
            **asdict(training_options(options)),
            "steps": options.steps,
            "decay_share": options.decay_share,
            "rows_a_batch": options.rows,
            "tokens_a_batch": prepared.dataset.tokens_a_batch,
            "train_rows": len(prepared.corpus.trainable),
            "train_rows_dropped": prepared.corpus.n_dropped,
            "seconds": round(run.seconds, 1),
            "tokens_per_second": round(run.tokens_per_second),
            "most_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
            "resumed_at": run.resumed_at,
            "device": torch.cuda.get_device_name() if on_gpu else "CPU",
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "tasks": {task: asdict(known) for task, known in prepared.corpus.facts.items()},
        "curve": run.curve,
    }


def _told(checked: dict[str, Any]) -> dict[str, Any]:
    """Print what a check found, and return it."""
    print("  dev exact · " + " · ".join(f"{task} {share:.2f}" for task, share in checked["dev_exact"].items()))
    print(f"  dev load max/mean {checked['dev_load']}", flush=True)
    return checked
