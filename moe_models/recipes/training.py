"""The training loop: steps, progress, snapshots, and a state from which to go on."""

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import OlmoeForCausalLM

from .architecture import hidden_states
from .balance import assignment_counts, balance_loss, max_over_mean
from .batches import Batch, PackedBatches, batches
from .optimizer import MasterWeightOptimizer
from .schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a run is trained; all of it goes into the model card."""

    balance: str
    balance_weight: float
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    dropout: float = 0.1
    seed: int = 0
    n_workers: int = 0
    compile: str = "auto"
    snapshot_steps: tuple[int, ...] = ()
    log_every: int = 50
    check_every: int = 1000
    stop_after_seconds: float | None = None


class TrainingRun:
    """One model on its way; `run` trains it, `save` and `resume` carry it over a break.

    Args:
        model: the model, already on its device and in its precision.
        dataset: the batches.
        schedule: learning rate and mix over the steps.
        options: how to train.
        folder: where state and snapshots go.
        check: called with the model every ``check_every`` steps; what it returns is kept in the curve.
    """

    def __init__(
        self,
        model: OlmoeForCausalLM,
        dataset: PackedBatches,
        *,
        schedule: Schedule,
        options: TrainingOptions,
        folder: Path,
        check: Callable[[OlmoeForCausalLM], dict],
    ) -> None:
        self.model, self.step, self.curve, self.seconds = model, 0, [], 0.0
        self.resumed_at: list[int] = []
        self._dataset, self._schedule, self._options = dataset, schedule, options
        self._folder, self._check = folder, check
        self._optimizer = MasterWeightOptimizer(model, weight_decay=options.weight_decay)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    def run(self) -> bool:
        """Train up to the schedule's last step, or until the time is up; return whether the last step was reached."""
        options, started = self._options, time.monotonic()
        seconds_before, n_marked, n_tokens = self.seconds, self.step, 0
        if self.step in options.snapshot_steps:
            self._snapshot()
        feed = batches(self._dataset, start=self.step, stop=self._schedule.n_steps, n_workers=options.n_workers)
        # After the workers have been forked: the compiler starts threads, and threads and forks do not mix.
        loss_of = self._fastest_loss()
        marked = time.monotonic()
        for batch in feed:
            batch = {name: values.to(self.device, non_blocking=True) for name, values in batch.items()}
            # Seeded by the step, so that dropout after a resume is what it would have been.
            torch.manual_seed(options.seed * 1_000_003 + self.step)
            losses, router_logits = loss_of(self.model, batch)
            losses["total"].backward()
            factor = self._schedule.learning_rate_factor(self.step)
            self._optimizer.step(learning_rate=options.learning_rate * factor)
            self.step += 1
            n_tokens += batch["tokens"].numel()
            self.seconds = seconds_before + time.monotonic() - started
            last = self.step == self._schedule.n_steps
            if self.step % options.log_every == 0 or last:
                # Reading the losses waits for the device, so speed is measured between such waits.
                entry = self._entry(losses, router_logits, batch)
                if not math.isfinite(entry["total"]):
                    message = (
                        f"The loss at step {self.step} is {entry['total']}, expected a finite number. "
                        "Resume from an earlier state with a lower learning rate."
                    )
                    raise FloatingPointError(message)
                now = time.monotonic()
                rate = n_tokens / (now - marked)
                left = (self._schedule.n_steps - self.step) * (now - marked) / (self.step - n_marked)
                marked, n_marked, n_tokens = now, self.step, 0
                self.curve.append(entry)
                self._report(entry, tokens_per_second=rate, seconds_left=left)
            if self.step % options.check_every == 0 or last:
                checked = self._check(self.model)
                self.curve[-1].update(checked)
                exact, load = checked["dev_exact"], checked["dev_load"]
                print("  dev exact · " + " · ".join(f"{task} {share:.2f}" for task, share in exact.items()))
                print(f"  dev load max/mean {load}", flush=True)
            if self.step in options.snapshot_steps or last:
                self._snapshot()
            if options.stop_after_seconds and time.monotonic() - started > options.stop_after_seconds:
                self._snapshot()
                break
        self.save()
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

    def _identity(self) -> dict[str, str | int | float]:
        """Return the options that a resumed run must share with the run it goes on with."""
        options = self._options
        return {
            "balance": options.balance,
            "balance_weight": options.balance_weight,
            "dropout": options.dropout,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
        }

    def _fastest_loss(self) -> Callable:
        """Return the loss function, compiled where that works and is asked for or worth trying."""
        options = self._options

        def loss(model: OlmoeForCausalLM, batch: Batch) -> tuple[dict, list[torch.Tensor]]:
            return training_loss(
                model,
                batch,
                balance=options.balance,
                balance_weight=options.balance_weight,
                dropout=options.dropout,
            )

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

    def _entry(self, losses: dict, router_logits: Sequence[torch.Tensor], batch: Batch) -> dict:
        valid = (batch["documents"] > 0).reshape(-1)
        counts = assignment_counts(router_logits, valid, top_k=self.model.config.num_experts_per_tok)
        entry = {name: round(float(value.detach()), 4) for name, value in losses.items()}
        entry["load"] = [round(float(ratio), 2) for ratio in max_over_mean(counts)]
        return {"step": self.step, "seconds": round(self.seconds, 1), **entry}

    def _report(self, entry: dict, *, tokens_per_second: float, seconds_left: float) -> None:
        print(
            f"step {self.step}/{self._schedule.n_steps} · written {entry['written']:.3f} · read {entry['read']:.3f} · "
            f"balance {entry['balance']:.3f} · load max/mean {max(entry['load']):.2f} · "
            f"{tokens_per_second:,.0f} tokens/s · {seconds_left:.0f} s left",
            flush=True,
        )

    def _snapshot(self) -> None:
        save_weights(self.model, self._folder / "snapshots" / f"step-{self.step:06d}")


def training_loss(
    model: OlmoeForCausalLM, batch: Batch, *, balance: str, balance_weight: float, dropout: float
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Return the losses of a batch and each layer's router logits.

    ``total`` is the weighted mean over targets of the negative log-likelihood, plus the weighted balance loss;
    ``written`` and ``read`` are its plain means, in nats a token, over completions and prompts.
    """
    states, router_logits = hidden_states(
        model, batch["tokens"], batch["positions"], batch["documents"], dropout=dropout
    )
    targets = batch["tokens"].roll(-1, dims=1).reshape(-1).long()
    weights = batch["weights"].reshape(-1)
    logits = model.lm_head(states).reshape(-1, model.config.vocab_size)
    nll = functional.cross_entropy(logits.float(), targets, reduction="none")
    valid = (batch["documents"] > 0).reshape(-1).float()
    balanced = balance_loss(router_logits, valid, balance=balance, top_k=model.config.num_experts_per_tok)
    total = (nll * weights).sum() / weights.sum() + balance_weight * balanced
    written, read = weights >= 0.5, (weights > 0) & (weights < 0.5)
    losses = {
        "total": total,
        "written": _masked_mean(nll.detach(), written),
        "read": _masked_mean(nll.detach(), read),
        "balance": balanced.detach(),
    }
    return losses, [logits.detach() for logits in router_logits]


def save_weights(model: OlmoeForCausalLM, folder: Path) -> None:
    """Write a model in bfloat16 as safetensors shards of at most 14 MB."""
    # A copy, since the class writes down the precision of the model it is asked to save.
    copy.deepcopy(model).to("cpu", torch.bfloat16).save_pretrained(folder, max_shard_size="14MB")


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
