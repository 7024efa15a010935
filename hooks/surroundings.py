"""What a recorder finds around itself: other processes, and a compiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

__all__ = ["is_compiled", "own_folder"]


def own_folder(out: Path) -> Path:
    """The folder that this process writes: a part of the trace, where several processes record one."""
    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        return out / f"part-{torch.distributed.get_rank():05d}"
    return out


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it runs through torch.compile."""
    # getattr on an OptimizedModule falls through to what it wraps, so its own dictionary is asked.
    return "_orig_mod" in model._modules or any(
        module.__dict__.get("_compiled_call_impl") is not None for module in model.modules()
    )
