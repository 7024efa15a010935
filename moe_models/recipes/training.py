"""The training loop: steps, progress, snapshots, and a state from which to go on."""

import copy
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from .batches import Batch, BatchSource, batches
from .optimizer import MasterWeightOptimizer
from .schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a run is trained, whatever its loss; all of it goes into the model card."""

    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0
    n_workers: int = 0
    compile: str = "auto"
    snapshot_steps: tuple[int, ...] = ()
    log_every: int = 50
    check_every: int = 1000
    stop_after_seconds: float | None = None


class Objective(Protocol):
    """What a run minimizes, and what else it tells of a batch."""

    def __call__(self, model: PreTrainedModel, batch: Batch) -> tuple[dict[str, torch.Tensor], Any]:
        """Return the losses, ``total`` and others to log, and readings for ``entry``; it compiles into one graph."""

    def entry(self, model: PreTrainedModel, readings: Any, batch: Batch) -> dict[str, Any]:
        """Return what the curve says of a batch beside its losses."""

    def identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""


class TrainingRun:
    """One model on its way; `run` trains it, `save` and `resume` carry it over a break.

    Args:
        model: the model, already on its device and in its precision.
        dataset: the batches.
        schedule: learning rate and mix over the steps.
        objective: the loss.
        optimizer: steps the model's weights.
        options: how to train.
        folder: where state and snapshots go.
        check: called with the model every ``check_every`` steps; what it returns is kept in the curve.
        identity: what else, beside the objective's options, learning rate and seed, a resumed run must share.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dataset: BatchSource,
        *,
        schedule: Schedule,
        objective: Objective,
        optimizer: MasterWeightOptimizer,
        options: TrainingOptions,
        folder: Path,
        check: Callable[[PreTrainedModel], dict[str, Any]],
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.step, self.curve, self.seconds = model, 0, [], 0.0
        self.resumed_at: list[int] = []
        self._dataset, self._schedule, self._options = dataset, schedule, options
        self._objective, self._optimizer = objective, optimizer
        self._folder, self._check = folder, check
        self._more_identity = dict(identity or {})

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    @property
    def tokens_per_second(self) -> float:
        """Speed of training, padding counted: the median over the stretches between log lines, checks left out."""
        rates = [entry["tokens_per_second"] for entry in self.curve]
        return statistics.median(rates) if rates else 0.0

    def run(self) -> bool:
        """Train up to the schedule's last step; return whether it was reached.

        When the time is up, and when the process is asked to end (SIGTERM), the state is saved and training stops.
        """
        if self.step >= self._schedule.n_steps:  # resumed when all that was missing was its evaluation
            return True
        with _asked_to_end() as asked:
            return self._run(asked)

    def _run(self, asked: threading.Event) -> bool:
        options, started = self._options, time.monotonic()
        seconds_before = self.seconds
        if self.step in options.snapshot_steps:
            self._snapshot()
        feed = batches(self._dataset, start=self.step, stop=self._schedule.n_steps, n_workers=options.n_workers)
        # After the workers have been forked: the compiler starts threads, and threads and forks do not mix.
        loss_of = self._fastest_loss()
        marked, n_marked = time.monotonic(), self.step
        for batch in feed:
            batch = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
            # Seeded by the step, so that dropout after a resume is what it would have been.
            torch.manual_seed(options.seed * 1_000_003 + self.step)
            losses, readings = loss_of(self.model, batch)
            losses["total"].backward()
            factor = self._schedule.learning_rate_factor(self.step)
            self._optimizer.step(learning_rate=options.learning_rate * factor)
            self.step += 1
            self.seconds = seconds_before + time.monotonic() - started
            last = self.step == self._schedule.n_steps
            checked = self.step % options.check_every == 0 or last
            if self.step % options.log_every == 0 or checked:
                # Reading the losses waits for the device, so speed is measured between such waits.
                entry = self._entry(losses, readings, batch)
                if not math.isfinite(entry["total"]):
                    message = (
                        f"The loss at step {self.step} is {entry['total']}, expected a finite number. "
                        "Resume from an earlier state with a lower learning rate."
                    )
                    raise FloatingPointError(message)
                pace = (time.monotonic() - marked) / (self.step - n_marked)
                entry["tokens_per_second"] = round(self._dataset.tokens_a_batch / pace)
                self.curve.append(entry)
                self._report(entry, seconds_left=pace * (self._schedule.n_steps - self.step))
                marked, n_marked = time.monotonic(), self.step
            if checked:
                begun = time.monotonic()
                self.curve[-1].update(self._check(self.model))
                # A run that is killed goes on from here.
                self.save()
                marked += time.monotonic() - begun
            if self.step in options.snapshot_steps or last:
                self._snapshot()
            late = options.stop_after_seconds and time.monotonic() - started > options.stop_after_seconds
            if (late or asked.is_set()) and not last:
                self.save()
                self._snapshot()
                break
        return self.step >= self._schedule.n_steps

    def save(self) -> None:
        """Write the state so that a cut at any moment leaves the old one or the new one."""
        path = self._folder / "state.pt"
        partial = path.with_suffix(".partial")
        state = {"step": self.step, "curve": self.curve, "seconds": self.seconds, "resumed_at": self.resumed_at}
        torch.save(state | self._identity() | {"optimizer": self._optimizer.state()}, partial)
        os.replace(partial, path)

    def resume(self) -> bool:
        """Take up the saved state; return whether there was one."""
        path = self._folder / "state.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, wanted in self._identity().items():
            if state[name] != wanted:
                message = (
                    f"The saved state was trained with {name} {state[name]!r}, and {wanted!r} is asked for. "
                    "Resume with the same option, or train into another folder."
                )
                raise ValueError(message)
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]
        self.resumed_at = [*state["resumed_at"], self.step]
        self._optimizer.restore(state["optimizer"])
        return True

    def _identity(self) -> dict[str, Any]:
        """Return the options that a resumed run must share with the run it goes on with."""
        options = self._options
        own = {"learning_rate": options.learning_rate, "seed": options.seed}
        return {**self._objective.identity(), **self._more_identity, **own}

    def _fastest_loss(self) -> Callable[[PreTrainedModel, Batch], tuple[dict[str, torch.Tensor], Any]]:
        """Return the loss function, compiled where that works and is asked for or worth trying."""
        options, objective = self._options, self._objective

        def loss(model: PreTrainedModel, batch: Batch) -> tuple[dict[str, torch.Tensor], Any]:
            return objective(model, batch)

        if options.compile == "off" or (options.compile == "auto" and self.device.type != "cuda"):
            return loss
        compiled = torch.compile(loss, dynamic=False)
        try:
            started = time.monotonic()
            batch = {name: values.to(self.device) for name, values in self._dataset[0].items()}
            seconds = []
            for attempt in (compiled, compiled, loss, loss):
                torch.manual_seed(0)
                begun = time.monotonic()
                for _ in range(5):
                    attempt(self.model, batch)[0]["total"].backward()
                    self.model.zero_grad(set_to_none=True)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append((time.monotonic() - begun) / 5)
            print(
                f"compiled {seconds[1]:.4f} s a step, eager {seconds[3]:.4f}; "
                f"compiling took {time.monotonic() - started:.0f} s",
                flush=True,
            )
        except Exception as error:  # the compiler fails in many ways, and training goes on without it
            print(f"not compiled: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            self.model.zero_grad(set_to_none=True)
            return loss
        return compiled if options.compile == "on" or seconds[1] < seconds[3] else loss

    def _entry(self, losses: dict[str, torch.Tensor], readings: Any, batch: Batch) -> dict[str, Any]:
        entry = {name: round(float(value.detach()), 4) for name, value in losses.items()}
        told = self._objective.entry(self.model, readings, batch)
        return {"step": self.step, "seconds": round(self.seconds, 1), **entry, **told}

    def _report(self, entry: dict[str, Any], *, seconds_left: float) -> None:
        told = [
            f"{name} {value:.3f}" for name, value in entry.items() if isinstance(value, float) and name != "seconds"
        ]
        told += [f"{name} {max(value):.2f}" for name, value in entry.items() if isinstance(value, list)]
        speed = f"{entry['tokens_per_second']:,} tokens/s"
        step = f"step {self.step}/{self._schedule.n_steps}"
        print(" · ".join([step, *told, speed, f"{seconds_left:.0f} s left"]), flush=True)

    def _snapshot(self) -> None:
        save_weights(self.model, self._folder / "snapshots" / f"step-{self.step:06d}")


@contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    """Yield what is set once the process is asked to end, instead of ending it in the middle of a step."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's alone
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write a model in bfloat16 as safetensors shards of at most 14 MB."""
    # A copy, since the class writes down the precision of the model it is asked to save.
    copy.deepcopy(model).to("cpu", torch.bfloat16).save_pretrained(folder, max_shard_size="14MB")
