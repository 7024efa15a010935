"""How a recording came to be: versions, device, precision, time."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata

import torch
import transformers
from torch import nn

from routing import AdapterSite, LayerFacts, Provenance

__all__ = ["now", "provenance_of", "self_check"]


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance_of(
    model: nn.Module, *, name: str | None, revision: str | None, seed: int | None, tasks: str, note: str | None
) -> Provenance:
    """What is known of a recording when it begins.

    Args:
        model: the transformers model.
        name: name or folder of the model as it was asked for; the model's own word if None.
        revision: revision of the model, or None.
        seed: the run's seed, or None.
        tasks: where the tasks come from.
        note: what a reader must know.
    """
    config = getattr(model, "config", None)
    devices = dict.fromkeys(_device_name(parameter.device) for parameter in model.parameters())
    return Provenance(
        model=name or getattr(config, "_name_or_path", "") or type(model).__name__,
        revision=revision or getattr(config, "_commit_hash", None),
        model_class=type(model).__name__,
        transformers=transformers.__version__,
        torch=torch.__version__,
        routescope=_own_version(),
        python=platform.python_version(),
        device=", ".join(devices),
        dtype=_main_dtype(model),
        seed=seed,
        started=now(),
        tasks=tasks,
        note=note,
    )


def self_check(layer_facts: Sequence[LayerFacts], adapter_sites: Sequence[AdapterSite] = ()) -> dict[str, str]:
    """What was proven on the first batch, and for how many layers.

    Returns:
        counts (every token has top-k experts that exist), replay (ids and weights explain the experts' output), rule
        (the logits explain the choice), adapters where there are some (the stored ones explain what was added) ·
        "passed", or in how many layers.
    """
    proofs = [facts.proof for facts in layer_facts]

    def of_all(n: int) -> str:
        return "passed" if n == len(layer_facts) else f"passed in {n} of {len(layer_facts)} layers"

    check = {
        "counts": of_all(sum(proof != "none" for proof in proofs)),
        "replay": of_all(sum(proof in ("replay", "weights") for proof in proofs)),
        "rule": of_all(sum(facts.score_function != "unknown" for facts in layer_facts)),
    }
    if adapter_sites:
        n = sum(site.proof == "replay" for site in adapter_sites)
        whole = n == len(adapter_sites)
        check["adapters"] = "passed" if whole else f"passed in {n} of {len(adapter_sites)} places"
    return check


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _main_dtype(model: nn.Module) -> str:
    """The precision of most parameters: routers are often kept in float32 beside a half-precision model."""
    sizes: Counter[str] = Counter()
    for parameter in model.parameters():
        sizes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else ""


def _own_version() -> str:
    try:
        return metadata.version("routescope")
    except metadata.PackageNotFoundError:
        return "not installed"
