"""The small encoder–decoders that PHA and Task-level MoE stand on, and how they are pretrained."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from .answering import autocast
from .optimizer import Treatment
from .run_options import schedule_of
from .schedule import Schedule

KINDS = ("t5", "bart")

OBJECTIVE_SHARES = {
    "t5": {"spans": 0.5, "infilling": 0.25, "continuation": 0.25},
    "bart": {"infilling": 1.0},
}
"""How often each way of denoising is drawn.

PHA's T5 stays frozen, so what its decoder cannot do at the end of pretraining, small adapters must add. Filling in
spans alone teaches it to write behind sentinels only; whole texts and continuations teach it to copy from its source
and to write without one.
"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a backbone; the defaults of each kind leave room for what is built on it."""

    hidden_size: int
    n_encoder_layers: int
    n_decoder_layers: int
    n_heads: int
    feed_forward: int
    vocab_size: int = 4096
    source_length: int = 256
    dropout: float = 0.1


DEFAULT_SIZES = {
    "t5": Sizes(hidden_size=256, n_encoder_layers=4, n_decoder_layers=4, n_heads=8, feed_forward=1024),
    "bart": Sizes(
        hidden_size=160, n_encoder_layers=3, n_decoder_layers=3, n_heads=5, feed_forward=640, source_length=224
    ),
}

WINDOWS = {"t5": 128, "bart": 256}
"""Tokens a window of running text. BART has an embedding for every position: each must have been seen."""

_POSITIONS_FOR_THE_END = 16


def untrained_backbone(
    kind: str, sizes: Sizes, tokenizer: PreTrainedTokenizerFast, *, window: int, seed: int
) -> PreTrainedModel:
    """Return a freshly initialized T5 or BART in float32 on the CPU; the same for the same seed.

    Args:
        kind: ``t5`` or ``bart``.
        sizes: of the model.
        tokenizer: gives the special tokens.
        window: the longest text that the model shall write, in tokens.
        seed: of the initialization.
    """
    torch.manual_seed(seed)
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=sizes.hidden_size,
                d_kv=sizes.hidden_size // sizes.n_heads,
                d_ff=sizes.feed_forward,
                num_layers=sizes.n_encoder_layers,
                num_decoder_layers=sizes.n_decoder_layers,
                num_heads=sizes.n_heads,
                dropout_rate=sizes.dropout,
                decoder_start_token_id=tokenizer.pad_token_id,
                **special,
            )
        )
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=sizes.hidden_size,
            encoder_layers=sizes.n_encoder_layers,
            decoder_layers=sizes.n_decoder_layers,
            encoder_attention_heads=sizes.n_heads,
            decoder_attention_heads=sizes.n_heads,
            encoder_ffn_dim=sizes.feed_forward,
            decoder_ffn_dim=sizes.feed_forward,
            max_position_embeddings=max(sizes.source_length, window) + _POSITIONS_FOR_THE_END,
            dropout=sizes.dropout,
            decoder_start_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.eos_token_id,
            # BART's own default would force token 2 at the longest length; here that is the mask.
            forced_eos_token_id=None,
            **special,
        )
    )


def backbone_treatment(name: str, parameter: torch.nn.Parameter) -> Treatment:
    """Return how a parameter of a T5 or BART is stepped: Muon for matrices of its layers, AdamW for the rest."""
    in_layer = ".block." in name or ".layers." in name
    is_matrix = parameter.dim() == 2 and "relative_attention_bias" not in name
    return Treatment(n_matrices=1) if in_layer and is_matrix else Treatment()


@dataclass(frozen=True, kw_only=True)
class DenoisingObjective:
    """The loss of denoising pairs: mean negative log-likelihood of the target's tokens."""

    shares: dict[str, float]
    density: float
    mean_span: float

    def __call__(
        self, model: PreTrainedModel, batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the loss of a batch."""
        with autocast(batch["input_ids"].device):
            logits = model(**batch).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten())
        return {"total": loss}, loss.detach()

    def entry(self, model: PreTrainedModel, readings: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        """Return nothing more for the curve."""
        return {}

    def identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""
        return asdict(self)


def short_schedule(options: argparse.Namespace) -> Schedule:
    """Return a schedule whose warm-up is a tenth of the run at most: these runs can be short."""
    return replace(schedule_of(options), n_warmup_steps=max(1, min(options.warmup, options.steps // 10)))


def seconds_left(options: argparse.Namespace, *, started: float) -> float | None:
    """Return how much of ``--stop-after`` is left for training, or None without that option.

    Reading the corpus, and a stage before, have taken their part of it.

    Args:
        options: parsed options.
        started: when the recipe began, by the monotonic clock.
    """
    return None if options.stop_after is None else max(0.001, options.stop_after - (time.monotonic() - started))


def read_backbone(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, dict[str, Any]]:
    """Return a pretrained backbone in float32 on the CPU, its tokenizer, and how it was made.

    Raises:
        FileNotFoundError: the folder holds no finished backbone.
    """
    path = folder / "backbone.json"
    if not path.is_file():
        message = f"{folder} holds no backbone.json. Make one with `python -m moe_models.recipes.backbone`."
        raise FileNotFoundError(message)
    facts = json.loads(path.read_text(encoding="utf-8"))
    kind = {"t5": T5ForConditionalGeneration, "bart": BartForConditionalGeneration}[facts["kind"]]
    return kind.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder), facts
