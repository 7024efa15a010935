"""How much generated adapters add: norm of their output over the norm of what it is added to.

Legend: P prompt, S site, G group (an expert or a task), B bootstrap draw.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from analysis.similarity import require_adapters
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["adapter_ratios"]


def adapter_ratios(
    trace: RoutingTrace, *, by: Literal["expert", "task"] | None = "expert", n_bootstrap: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Mean ratio of what adapters add to what the layer gives without them, with 95 % intervals.

    A mean over rows (tokens, or prompts where the router decides once a prompt). By "expert" a row counts for each
    expert that was selected for it. Intervals come from drawing prompts with replacement.

    Args:
        trace: a trace with adapters.
        by: "expert" for the sites that belong to a router's layer, "task", or None for whole sites.
        n_bootstrap: draws; 0 for none.
        seed: of the draws.

    Returns:
        (site[, by]) · ratio, ratio_low, ratio_high, n_rows, n_prompts · ratio of norms 0 and up; no row where no
        adapter was used; intervals NaN for a single prompt.

    Raises:
        SelectionError: `by` is none of the three.
        TraceError: the trace holds no adapters or no ratios.
    """
    held = require_adapters(trace)
    if by not in ("expert", "task", None):
        msg = f"Ratios are given by expert, by task, or for whole sites, not by {by!r}. Correct `by`."
        raise SelectionError(msg)
    n_groups = {"expert": trace.n_experts, "task": len(trace.tasks), None: 1}[by]
    # The same draws serve every site and group.
    drawn_BP = _draws(trace.n_prompts, n_bootstrap=n_bootstrap, seed=seed)
    parts = []
    for number, site in enumerate(held.sites):
        if by == "expert" and site.label not in trace.layers:
            continue
        sums_PG, rows_PG = _sums(trace, number, site.label, by=by, n_groups=n_groups)
        part = _with_intervals(sums_PG, rows_PG, drawn_BP)
        part.insert(0, "site", site.label)
        if by is not None:
            part.insert(1, by, np.arange(n_groups) if by == "expert" else list(trace.tasks))
        parts.append(part[part["n_rows"] > 0])
    columns = ["site", *([by] if by else []), "ratio", "ratio_low", "ratio_high", "n_rows", "n_prompts"]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    frame = frame.set_index(["site", by] if by else "site")
    rows = f"{trace.unit}s"
    frame.attrs["unit"] = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), "ratio of norms") | {"n_rows": rows}
    return frame


def _sums(
    trace: RoutingTrace, number: int, label: str, *, by: str | None, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """(P, G) sums of the ratio and rows behind them."""
    shape = (trace.n_prompts, n_groups)
    sums, rows = np.zeros(np.prod(shape)), np.zeros(np.prod(shape), dtype=np.int64)
    layer = trace.layers.index(label) if by == "expert" else 0
    fields = ("adapter_ratio", "experts") if by == "expert" else ("adapter_ratio",)
    for chunk in trace.chunks(fields=fields):
        if chunk.adapter_ratio is None:
            break
        ratio = chunk.adapter_ratio[:, number].astype(float)
        if by == "expert":
            assert chunk.experts is not None
            group = chunk.experts[:, layer, : trace.layer_facts[layer].top_k].astype(np.int64)
        else:
            group = chunk.task[:, None].astype(np.int64) if by == "task" else np.zeros((len(ratio), 1), dtype=np.int64)
        known = np.isfinite(ratio)[:, None] & (group < n_groups) & (group >= 0)
        cell = (chunk.prompt[:, None].astype(np.int64) * n_groups + group)[known]
        sums += np.bincount(cell, weights=np.broadcast_to(ratio[:, None], group.shape)[known], minlength=len(sums))
        rows += np.bincount(cell, minlength=len(rows))
    return sums.reshape(shape), rows.reshape(shape)


def _draws(n_prompts: int, *, n_bootstrap: int, seed: int) -> np.ndarray:
    """(B, P) how often each draw of as many prompts holds each prompt."""
    if n_prompts < 2 or not n_bootstrap:
        return np.zeros((0, n_prompts))
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), n_bootstrap).astype(float)


def _with_intervals(sums_PG: np.ndarray, rows_PG: np.ndarray, drawn_BP: np.ndarray) -> pd.DataFrame:
    n_rows_G, n_prompts_G = rows_PG.sum(axis=0), (rows_PG > 0).sum(axis=0)
    bounds = np.full((2, sums_PG.shape[1]), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sums_PG.sum(axis=0) / n_rows_G
        several = np.flatnonzero(n_prompts_G > 1)
        if len(drawn_BP) and len(several):
            # A draw may hold no prompt of a group; it says nothing about that group.
            means = (drawn_BP @ sums_PG[:, several]) / (drawn_BP @ rows_PG[:, several].astype(float))
            bounds[:, several] = np.nanquantile(means, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "ratio": ratio,
            "ratio_low": bounds[0],
            "ratio_high": bounds[1],
            "n_rows": n_rows_G,
            "n_prompts": n_prompts_G,
        }
    )
