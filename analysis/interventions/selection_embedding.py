"""Is HyperMoE's conditioning used? The loss with another selection embedding in every layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import get_args

import pandas as pd

from analysis.interventions.bench import Bench
from analysis.interventions.effects import effects
from analysis.interventions.ledger import Progress, StudyFolder
from moe_models.hypermoe import HyperExpert, overridden_selection
from moe_models.hypermoe.hyper_expert import Override
from routing import RecordingError, RoutingTrace

__all__ = ["OVERRIDES", "selection_embedding_effects"]

OVERRIDES: tuple[Override, ...] = get_args(Override)


def selection_embedding_effects(
    bench: Bench,
    *,
    beside: RoutingTrace | str | Path,
    over: str = "task",
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> pd.DataFrame:
    """Change of the loss when every layer's selection embedding is replaced.

    "shifted" is the embedding of another set of experts, "mean" that of the mean expert, "zero" none; "skip" leaves
    the generated adapters out. If "shifted" changes nothing, the conditioning is not used, however much the adapters
    help.

    Args:
        bench: a HyperMoE model and prompts.
        beside: the trace that the results are kept beside, or a folder.
        over: what prompts are grouped by: "task" or "task_type".
        seed: of the bootstrap.
        progress: called after each of the five passes.

    Returns:
        one row an override and group ("all" first): n_prompts, nll_before, nll_change in nats a token, low and high
        (95 % bootstrap over prompts, paired), score_before, score_change.

    Raises:
        RecordingError: the model generates no adapters from a selection embedding.

    References:
        Zhao et al., ACL 2024, "HyperMoE".
    """
    if not any(isinstance(module, HyperExpert) for module in bench.model.modules()):
        msg = (
            f"This {type(bench.model).__name__} makes no adapters from a selection embedding, so there is none to "
            "replace. Give a HyperMoE model that is not one of the controls c0 to c2."
        )
        raise RecordingError(msg)
    folder = StudyFolder(beside, "selection-embedding", params=bench.identity(), progress=progress)

    def measured(override: Override | None) -> pd.DataFrame:
        with nullcontext() if override is None else overridden_selection(bench.model, override):
            return bench.measured()

    tables = folder.units(
        {name or "as trained": lambda name=name: measured(name) for name in (None, *OVERRIDES)}  # type: ignore[misc]
    )
    before = tables["as trained"]
    rows = [effects(before, tables[name], over=over, seed=seed).assign(override=name) for name in OVERRIDES]
    found = pd.concat(rows, ignore_index=True)
    found = found[["override", *found.columns.drop("override")]]
    folder.keep({"effects": found}, about={"over": over, "seed": seed})
    return found
