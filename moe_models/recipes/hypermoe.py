"""Train a HyperMoE or one of its controls: ``python -m moe_models.recipes.hypermoe --data CORPUS --out DIR``.

Writes the weights, tokenizer, ``metrics.json``, ``dev_losses.npz`` (per prompt, also with the selection embedding
replaced) and a model card to DIR, and state and snapshots to DIR/run. Runs of one seed see the same batches and start
from the same values in all that they share; `hypermoe_study` compares them. A run that was cut off goes on with
``--resume``.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
from transformers import PreTrainedTokenizerFast

from moe_models.hypermoe import HyperMoeForCausalLM, overridden_selection
from moe_models.hypermoe.hyper_expert import Conditioning, Override

from .corpus import Row
from .dev_losses import AS_TRAINED, DevLosses, save_dev_losses
from .evaluation import PromptReadings, prompt_readings, task_scores
from .hypermoe_card import hypermoe_card
from .hypermoe_model import HYPERMOE_SIZES, adapter_rate, hypermoe_treatment, untrained_hypermoe
from .packed_run import add_balance_options, prepared_run, run_metrics, trained_run
from .run_options import NOT_FINISHED, run_parser
from .training import save_weights

# Dev rows are the same in all runs, whatever their seed, so that losses can be compared prompt by prompt.
_DEV_SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and write one model; return the exit code: 3 if training stopped before its last step."""
    options = parsed(arguments)
    prepared = prepared_run(options, sizes=replace(HYPERMOE_SIZES, top_k=options.experts_per_token))
    tokenizer, corpus = prepared.tokenizer, prepared.corpus
    widths = json.loads(options.widths)
    model = untrained_hypermoe(
        prepared.sizes,
        conditioning=options.conditioning,
        widths=widths,
        end_token=tokenizer.eos_token_id,
        padding_token=tokenizer.pad_token_id,
        seed=options.seed,
    )
    run = trained_run(
        prepared,
        model,
        treatment=hypermoe_treatment(options.adapter_rate),
        identity={
            "conditioning": options.conditioning,
            "experts_per_token": prepared.sizes.top_k,
            "adapter_rate": options.adapter_rate,
        },
    )
    if run is None:
        return NOT_FINISHED

    started = time.monotonic()
    save_weights(run.model, options.out)
    tokenizer.save_pretrained(options.out)
    rows = corpus.drawn(split="dev", n_per_task=options.loss_rows, seed=_DEV_SEED)
    losses, readings = measured_losses(run.model, tokenizer, rows)
    save_dev_losses(losses, options.out / "dev_losses.npz")
    metrics = run_metrics(prepared, run)
    metrics["training"]["adapter_rate"] = options.adapter_rate
    metrics["hypermoe"] = {
        "conditioning": options.conditioning,
        **{name: getattr(run.model.config, name) for name in _WIDTHS},
        "added_parameters": _n_added(run.model),
    }
    metrics["losses"] = {change: losses.overall(change) for change in losses.nats}
    metrics["dev_rows"] = len(rows)
    metrics["load"] = readings.load
    if options.score_rows:
        scored = corpus.drawn(split="dev", n_per_task=options.score_rows, seed=_DEV_SEED)
        metrics["dev"] = task_scores(run.model, tokenizer, scored, labels=corpus.labels)
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(hypermoe_card(metrics, name=options.out.name), encoding="utf-8")
    told = " · ".join(f"{change} {loss:.4f}" for change, loss in metrics["losses"].items())
    print(f"dev loss, nats a token of the answer, mean over tasks: {told}", flush=True)
    print(f"load max/mean by layer on dev: {metrics['load']}", flush=True)
    print(f"{metrics['training']['tokens_per_second']:,} tokens/s; evaluated in {time.monotonic() - started:.0f} s")
    return 0


def measured_losses(
    model: HyperMoeForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]
) -> tuple[DevLosses, PromptReadings]:
    """Return the losses on rows, as trained and under each change that means something, and the plain readings."""
    plain = prompt_readings(model, tokenizer, rows)
    nats = {AS_TRAINED: np.stack([plain.written, plain.read])}
    for override in _overrides(model.config.conditioning):
        with overridden_selection(model, override):
            changed = prompt_readings(model, tokenizer, rows)
        nats[override] = np.stack([changed.written, changed.read])
    return DevLosses(tasks=np.array([row.task for row in rows]), nats=nats), plain


_WIDTHS = (
    "expert_embedding_dim",
    "process_dim",
    "hypernetwork_input_dim",
    "layer_embedding_dim",
    "hypernetwork_bottleneck",
    "adapter_dim",
)


def _overrides(conditioning: str) -> tuple[str, ...]:
    """Return the replacements of the selection embedding that a model of this conditioning can be asked about."""
    if conditioning in ("none", "adapter"):
        return ()
    # Controls c3 and c4 have no sum over unselected experts to replace; what they add can be left out.
    return get_args(Override) if conditioning in ("unselected", "random") else ("skip",)


def _n_added(model: HyperMoeForCausalLM) -> int:
    """Return how many parameters a model has beyond control c0's."""
    named = model.named_parameters()
    return sum(its.numel() for name, its in named if "hypernetwork." in name or ".hyper_expert." in name)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options that command-line words give."""
    parser = run_parser(
        "Train a HyperMoE, or one of its controls, on a task corpus.",
        steps=2000,
        decay_share=0.5,
        rows=128,
        learning_rate=3e-3,
        snapshots=(),
    )
    add_balance_options(parser)
    parser.add_argument(
        "--conditioning",
        choices=get_args(Conditioning),
        default="unselected",
        help="what the extra adapter is made from; unselected is HyperMoE, the others are its controls",
    )
    parser.add_argument(
        "--experts-per-token",
        type=int,
        default=HYPERMOE_SIZES.top_k,
        help="k; one more with --conditioning none is control c1",
    )
    parser.add_argument(
        "--adapter-rate",
        type=float,
        help="learning rate of the added parts over the rest's; 0.1, and 1 for the ordinary adapter",
    )
    parser.add_argument("--widths", default="{}", help="JSON of HyperExpert widths that differ from the defaults")
    parser.add_argument(
        "--loss-rows", type=int, default=400, help="most dev rows a task in the losses prompt by prompt"
    )
    options = parser.parse_args(arguments)
    if options.adapter_rate is None:
        options.adapter_rate = adapter_rate(options.conditioning)
    return options


if __name__ == "__main__":
    sys.exit(main())
