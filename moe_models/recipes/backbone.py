"""Pretrain a backbone: ``python -m moe_models.recipes.backbone --kind t5|bart --data CORPUS --out DIR``.

A small T5 (for PHA) or BART (for Task-level MoE) that has read the inputs and long outputs of the corpus's train rows,
and has never seen an input with its answer. Writes weights, tokenizer and ``backbone.json`` to DIR.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
import transformers
from transformers import PreTrainedModel

from .answering import evaluating
from .denoising import Denoiser
from .optimizer import MasterWeightOptimizer
from .preparation import read_corpus
from .run_options import NOT_FINISHED, device_of, run_parser, training_options
from .running_text import DenoisingBatches, documents_of, token_stream
from .text_to_text import (
    DEFAULT_SIZES,
    KINDS,
    OBJECTIVE_SHARES,
    WINDOWS,
    DenoisingObjective,
    backbone_treatment,
    seconds_left,
    short_schedule,
    untrained_backbone,
)
from .tokenization import train_text_to_text_tokenizer
from .training import TrainingRun, save_weights

N_SENTINELS = 32
_CHECK_BATCHES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Pretrain and write one backbone; return the exit code: 3 if training stopped before its last step."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    (options.out / "run").mkdir(parents=True, exist_ok=True)
    device = device_of(options)
    sizes = replace(DEFAULT_SIZES[options.kind], dropout=options.dropout, **json.loads(options.architecture))
    window = options.window or WINDOWS[options.kind]
    shares = json.loads(options.shares) if options.shares else OBJECTIVE_SHARES[options.kind]

    corpus = read_corpus(options.data)
    tokenizer = train_text_to_text_tokenizer(
        (text for texts in documents_of(corpus.trainable).values() for text in texts),
        vocab_size=sizes.vocab_size,
        context_length=sizes.source_length,
        n_sentinels=N_SENTINELS,
    )
    stream = token_stream(corpus.trainable, tokenizer, seed=0).to(device)
    unseen = token_stream([row for row in corpus.rows if row.split == "dev"], tokenizer, seed=0).to(device)
    denoiser = Denoiser(
        density=options.density,
        mean_span=options.mean_span,
        end=tokenizer.eos_token_id,
        mask=tokenizer.mask_token_id,
        n_sentinels=N_SENTINELS,
    )
    told = {"denoiser": denoiser, "shares": shares, "n_windows": options.rows, "length": window}
    dataset = DenoisingBatches(stream, seed=options.seed, **told)
    held_out = DenoisingBatches(unseen, seed=0, **told)
    model = untrained_backbone(options.kind, sizes, tokenizer, window=window, seed=options.seed).to(device).train()
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{n_parameters:,} parameters; {len(stream):,} tokens of text, {len(tokenizer):,} distinct; on {device}")

    def check(trained: PreTrainedModel) -> dict[str, dict[str, float]]:
        found = {name: denoising_loss(trained, held_out, objective=name) for name in dataset.objectives}
        print("  dev nll · " + " · ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
        return {"dev_nll": {name: round(value, 4) for name, value in found.items()}}

    options.stop_after = seconds_left(options, started=started)
    run = TrainingRun(
        model,
        dataset,
        schedule=short_schedule(options),
        objective=DenoisingObjective(shares=shares, density=options.density, mean_span=options.mean_span),
        optimizer=MasterWeightOptimizer(model, weight_decay=options.weight_decay, treatment=backbone_treatment),
        options=training_options(options),
        folder=options.out / "run",
        check=check,
    )
    if options.resume and run.resume():
        print(f"resumed at step {run.step}", flush=True)
    if not run.run():
        print(f"stopped at step {run.step} of {options.steps}; go on with --resume", flush=True)
        return NOT_FINISHED
    save_weights(model, options.out)
    tokenizer.save_pretrained(options.out)
    facts = {
        "kind": options.kind,
        "parameters": n_parameters,
        **asdict(sizes),
        "objectives": shares,
        "window": window,
        "density": options.density,
        "mean_span": options.mean_span,
        "text_tokens": len(stream),
        "train_rows": len(corpus.trainable),
        "train_rows_dropped": corpus.n_dropped,
        "steps": options.steps,
        "tokens_a_batch": dataset.tokens_a_batch,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "seed": options.seed,
        "seconds": round(run.seconds, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "curve": run.curve,
    }
    (options.out / "backbone.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


def denoising_loss(model: PreTrainedModel, batches: DenoisingBatches, *, objective: str) -> float:
    """Return the mean loss in nats a token of a few batches of one objective, the same at every call."""
    found = []
    with evaluating(model):
        for key in range(_CHECK_BATCHES):
            batch = batches.batch(objective, key=key)
            logits = model(**batch).logits.float()
            found.append(float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())))
    return sum(found) / len(found)


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "Pretrain a small text-to-text backbone by denoising.",
        steps=8000,
        decay_share=0.4,
        rows=256,
        learning_rate=3e-3,
        snapshots=(),
    )
    parser.add_argument("--kind", choices=KINDS, required=True, help="t5 for PHA, bart for Task-level MoE")
    parser.add_argument("--warmup", type=int, default=200, help="steps of rising rate")
    parser.add_argument("--window", type=int, help="tokens a window; 128 for t5, 256 for bart")
    parser.add_argument("--density", type=float, default=0.2, help="share of a window that is taken out")
    parser.add_argument("--mean-span", type=float, default=3.0, help="mean tokens of what is taken out together")
    parser.add_argument("--shares", help="JSON: how often spans, infilling and continuation are drawn")
    return parser


if __name__ == "__main__":
    sys.exit(main())
