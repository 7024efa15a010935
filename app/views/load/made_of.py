"""What went into the numbers of the view, for whoever asks to have one explained."""

from __future__ import annotations

import numpy as np
import pandas as pd

from app.sentences import escaped, percent
from routing import expert_name

__all__ = ["of_worst_layer"]


def of_worst_layer(balance: pd.DataFrame) -> dict[str, str]:
    """What the load of the busiest expert, and its ratio to the mean, were made of.

    Args:
        balance: of `load_balance`, index layer.

    Returns:
        symbol or name → value, as Markdown; empty where nothing was routed.
    """
    known = balance[np.isfinite(balance["max_over_mean"])]
    if known.empty:
        return {}
    layer = str(known["max_over_mean"].idxmax())
    row = known.loc[layer]
    name = expert_name(layer, int(row["hottest"]), names=balance.attrs.get("expert_names"))
    ratio, low, high = (float(row[column]) for column in ("max_over_mean", "max_over_mean_low", "max_over_mean_high"))
    interval = f", 95\N{NO-BREAK SPACE}% {low:.2f} to {high:.2f}" if np.isfinite(low) else ""
    return {
        "Least even layer": escaped(layer),
        "Tokens that it routed, T": f"{int(row['n_tokens']):,}",
        "Assignments of its tokens, T k": f"{row['n_assignments']:,.0f}",
        "Its experts, E": f"{int(row['n_experts'])}",
        "Fair share of each, 1 / E": percent(float(row["fair_share"])),
        f"Busiest, {escaped(name)}, over the mean, max c_e / μ": f"{ratio:.2f}{interval}",
    }
