"""Train a sample checkpoint: ``python -m moe_models.recipes.sample_moe --data CORPUS --out DIR``.

Writes the weights, tokenizer, ``metrics.json`` and model card to DIR, and state and snapshots to DIR/run. A run that
was cut off or stopped goes on with ``--resume``.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from .architecture import Architecture, untrained_model
from .evaluation import quick_check, task_scores
from .packed_run import add_balance_options, prepared_run, run_metrics, trained_run
from .run_options import NOT_FINISHED, run_parser
from .sample_card import sample_card
from .settling import settle_routers
from .training import save_weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and write one sample model; return the exit code: 3 if training stopped before its last step."""
    options = _parser().parse_args(arguments)
    prepared = prepared_run(options, sizes=Architecture())
    tokenizer, corpus = prepared.tokenizer, prepared.corpus
    model = untrained_model(
        prepared.sizes,
        end_token=tokenizer.eos_token_id,
        padding_token=tokenizer.pad_token_id,
        seed=options.seed,
    )
    run = trained_run(prepared, model)
    if run is None:
        return NOT_FINISHED

    started = time.monotonic()
    settled = []
    if options.balance == "per-layer" and options.settle_rows:
        plain = corpus.drawn(split="train", n_per_task=options.settle_rows, seed=options.seed)
        settled = settle_routers(run.model, tokenizer, plain)
        print(f"settled routers: {settled}", flush=True)
    save_weights(run.model, options.out)
    tokenizer.save_pretrained(options.out)
    scored = corpus.drawn(split="dev", n_per_task=options.score_rows, seed=options.seed)
    metrics = run_metrics(prepared, run)
    metrics["training"]["settled"] = [asdict(router) for router in settled]
    metrics["dev"] = task_scores(run.model, tokenizer, scored, labels=corpus.labels)
    metrics["load"] = quick_check(run.model, tokenizer, scored)["dev_load"]
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(sample_card(metrics, name=options.out.name), encoding="utf-8")
    print(f"load max/mean by layer on dev: {metrics['load']}", flush=True)
    for task, its in metrics["dev"].items():
        print(task, {name: round(value, 3) for name, value in its.items()}, flush=True)
    print(f"evaluated in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "Train a sample Mixture-of-Experts model on a task corpus.",
        steps=20_000,
        decay_share=0.4,
        rows=128,
        learning_rate=3e-3,
        snapshots=(0, 500, 2000, 8000),
    )
    add_balance_options(parser)
    parser.add_argument("--settle-rows", type=int, default=40, help="train rows a task to settle routers on; 0: none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
