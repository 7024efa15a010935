"""Losses of dev prompts one by one: what paired comparisons of runs are made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AS_TRAINED = "as trained"
KINDS = ("written", "read")


@dataclass(frozen=True, kw_only=True)
class DevLosses:
    """Losses of one model on dev rows, as trained and with something changed.

    Attributes:
        tasks: (row,) the task of each row.
        nats: by what was changed, (kind, row) nats a token; kinds are `KINDS`, the answer and the prompt.
    """

    tasks: np.ndarray
    nats: Mapping[str, np.ndarray]

    def means(self, change: str = AS_TRAINED, *, kind: str = "written") -> dict[str, float]:
        """Return each task's mean loss, nats a token."""
        values = self.nats[change][KINDS.index(kind)]
        return {task: float(values[self.tasks == task].mean()) for task in dict.fromkeys(self.tasks.tolist())}

    def overall(self, change: str = AS_TRAINED, *, kind: str = "written") -> float:
        """Return the mean over tasks of their mean losses, nats a token: every task weighs the same."""
        return float(np.mean(list(self.means(change, kind=kind).values())))

    def change_interval(
        self, change: str, *, kind: str = "written", n_resamples: int = 2000, seed: int = 0
    ) -> tuple[float, float, float]:
        """Return what a change does to the overall loss, and its 95 % interval over prompts.

        Prompts are resampled within each task; the loss as trained and the changed one are taken of the same prompts.
        """
        place = KINDS.index(kind)
        differences = self.nats[change][place] - self.nats[AS_TRAINED][place]
        drawing = np.random.default_rng(seed)
        means = np.zeros(n_resamples)
        names = dict.fromkeys(self.tasks.tolist())
        for task in names:
            its = differences[self.tasks == task]
            means += its[drawing.integers(len(its), size=(n_resamples, len(its)))].mean(axis=1) / len(names)
        low, high = np.quantile(means, [0.025, 0.975])
        return self.overall(change, kind=kind) - self.overall(kind=kind), float(low), float(high)


def save_dev_losses(losses: DevLosses, path: Path) -> None:
    """Write losses as a compressed npz of plain arrays."""
    arrays = {name: values.astype(np.float32) for name, values in losses.nats.items()}
    np.savez_compressed(path, tasks=losses.tasks.astype(np.str_), **arrays)


def read_dev_losses(path: Path) -> DevLosses:
    """Return the losses that `save_dev_losses` wrote."""
    with np.load(path, allow_pickle=False) as kept:
        nats = {name: kept[name].astype(float) for name in kept.files if name != "tasks"}
        return DevLosses(tasks=kept["tasks"], nats=nats)
