"""Batches that several runs on one host share, so that each is made once.

Runs that differ in their model alone see the same batches. Making them takes about as many processor cores as a GPU
can keep up with, so runs side by side would wait for one another's augmentation of the same rows.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from .batches import Batch, BatchSource

# A batch takes well under a second; a claim older than this is that of a run that was killed.
_PATIENCE_SECONDS = 5.0


class SharedBatches(Dataset):
    """The batches of a source, each made by the run that wants it first and read by the others.

    Args:
        source: makes the batches.
        folder: where they are kept; its name must tell all that they depend on.
    """

    def __init__(self, source: BatchSource, folder: Path) -> None:
        self._source, self._folder = source, folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def tokens_a_batch(self) -> int:
        """How many tokens a batch holds, padding counted."""
        return self._source.tokens_a_batch

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        path = self._folder / f"{step:06d}.npz"
        claim = path.with_suffix(".claim")
        if not path.is_file() and not _is_new(claim):
            while not path.is_file() and time.time() - claim.stat().st_mtime < _PATIENCE_SECONDS:
                time.sleep(0.01)
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return {name: torch.from_numpy(kept[name]) for name in kept.files}
        batch = self._source[step]
        partial = path.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(file, **{name: values.numpy() for name, values in batch.items()})
        os.replace(partial, path)
        return batch


def _is_new(claim: Path) -> bool:
    """Return whether this run is the first to want the batch of a claim, and so the one to make it."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
