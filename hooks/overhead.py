"""What recording costs: the same batches with and without it, by turns, in one process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hooks.conditioning import Conditioning
from hooks.encoding import padded, tokens_alone
from hooks.models import model_device
from hooks.options import decoder_start_id
from hooks.recorder import Recorder
from routing import Prompt

__all__ = ["Overhead", "forward_batches", "measure_overhead"]

Batch = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Time with recording over time without.

    Attributes:
        ratio: median over the rounds.
        low, high: a 90 % bootstrap interval of that median.
        cpu_ratio: the same of processor time, all threads together; the steadier figure on a busy machine, and the
            cost that is left where the model itself runs on the processor.
        seconds_off, seconds_on: medians of the time that the batches took.
        seconds_to_finish: median of what was still to be written once the model was done.
        n_rounds, n_batches: what it was measured on.
        n_tokens: positions fed in a round, padding included.
        level: what was kept.
    """

    ratio: float
    low: float
    high: float
    cpu_ratio: float
    seconds_off: float
    seconds_on: float
    seconds_to_finish: float
    n_rounds: int
    n_batches: int
    n_tokens: int
    level: str

    def to_json(self) -> dict[str, Any]:
        """The figures as a dictionary, for the provenance."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def forward_batches(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], *, batch_size: int) -> list[Batch]:
    """Arguments of forwards over prompts: with their tasks, where a model is told them, and targets for a decoder."""
    device, two_stacks = model_device(model), bool(getattr(model.config, "is_encoder_decoder", False))
    pad_id = tokenizer.pad_token_id or 0
    conditioning = Conditioning(model)
    conditioning.foreign([each.task for each in prompts])
    batches: list[Batch] = []
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        rows = tokenizer([each.text for each in part])["input_ids"]
        ids, mask = padded(rows, pad_id=pad_id, side="right", device=device)
        batch = {"input_ids": ids, "attention_mask": mask, **conditioning.arguments(part, ids, mask)}
        if two_stacks:
            begin = decoder_start_id(model, pad_id=pad_id)
            written = [(begin, *(tokens_alone(tokenizer, each.target) if each.target else ())) for each in part]
            out, out_mask = padded(written, pad_id=pad_id, side="right", device=device)
            batch |= {"decoder_input_ids": out, "decoder_attention_mask": out_mask}
        batches.append(batch)
    return batches


def measure_overhead(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    n_rounds: int = 5,
    run: Callable[[Batch], object] | None = None,
    warm_up: Callable[[Batch], object] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    **options: Any,
) -> Overhead:
    """Overhead of recording, by turns: a round without, a round with, to the disk and through the writing thread.

    Each recorded round begins with a batch that is not timed, in which the routers are proven. A slow disk shows in
    the ratio, since the model waits once three deliveries are under way.

    Args:
        model: the model.
        batches: arguments of its forward.
        n_rounds: pairs of rounds.
        run: what a round does with a batch; a forward, unless told.
        warm_up: what is run before anything is timed, and at the beginning of each recording; like `run`, unless told.
        folder: where the traces are written, and removed again; a temporary folder unless told.
        seed: of the bootstrap.
        options: further options of `Recorder`.
    """
    device = model_device(model)
    call = run if run is not None else lambda batch: model(**batch)
    warm = warm_up if warm_up is not None else call

    def timed() -> tuple[float, float]:
        _finish(device)
        began = time.perf_counter(), time.process_time()
        for batch in batches:
            call(batch)
        _finish(device)
        return time.perf_counter() - began[0], time.process_time() - began[1]

    off, on, tail = [], [], []
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=folder, prefix="routescope-overhead-") as parent:
        warm(batches[0])
        for number in range(n_rounds):
            off.append(timed())
            with Recorder(model, out=Path(parent) / f"round-{number}", **options):
                warm(batches[0])
                on.append(timed())
                began = time.perf_counter(), time.process_time()
            tail.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    (off_wall, off_cpu), (on_wall, on_cpu), (tail_wall, _) = np.array(off).T, np.array(on).T, np.array(tail).T
    ratios = on_wall / off_wall
    draws = np.random.default_rng(seed).choice(ratios, (2000, n_rounds)) if n_rounds > 1 else ratios[None]
    low, high = np.quantile(np.median(draws, axis=1), (0.05, 0.95))
    return Overhead(
        ratio=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        cpu_ratio=float(np.median(on_cpu / off_cpu)),
        seconds_off=float(np.median(off_wall)),
        seconds_on=float(np.median(on_wall)),
        seconds_to_finish=float(np.median(tail_wall)),
        n_rounds=n_rounds,
        n_batches=len(batches),
        n_tokens=sum(int(batch["input_ids"].numel()) for batch in batches),
        level=str(options.get("level", "full")),
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
