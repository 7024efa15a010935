"""How uneven devices must be because of a single expert, wherever experts live."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.load import expert_load, load_balance
from analysis.placements import Placement
from routing.trace import RoutingTrace

__all__ = ["expert_bound"]


def expert_bound(trace: RoutingTrace, placement: Placement, *, seed: int = 0) -> pd.DataFrame:
    """What the busiest expert of each layer alone makes of the busiest device, with the replicas of a placement.

    The device of a replica does at least that replica's work: where s is the expert's share of its layer's assignments,
    r its replicas and D the number of devices,

        max L / mean L ≥ D s / r,

    whatever else the device holds. Above 1, moving experts cannot even the layer out; ⌈D s⌉ replicas could.

    Args:
        trace: the trace, narrowed to the layers of the placement.
        placement: whose replicas and devices are counted.
        seed: of the draws of prompts.

    Returns:
        (layer) · expert, share with _low and _high, n_replicas, bound with _low and _high, n_needed (replicas that
        bring it to 1 or below) · share of assignments, ratio to the mean device; ends are NaN where the expert is not
        the layer's busiest, or the trace does not tell prompts apart.
    """
    load_LE = expert_load(trace).sel(layer=list(placement.layers)).transpose("layer", "expert").to_numpy()
    balance = load_balance(trace, seed=seed)
    rows = []
    for layer, load_E, slots in zip(placement.layers, load_LE, placement.slots_LS, strict=True):
        replicas_E = np.maximum(np.bincount(slots[slots >= 0], minlength=len(load_E))[: len(load_E)], 1)
        each_E = np.nan_to_num(load_E) / replicas_E
        expert = int(each_E.argmax())
        known = balance.loc[layer]
        ends = [float(known[f"max_over_mean_{end}"] * known["fair_share"]) for end in ("low", "high")]
        low, high = ends if expert == known["hottest"] else (np.nan, np.nan)
        times = placement.n_devices / replicas_E[expert]
        share = float(load_E[expert])
        rows.append(
            {
                "expert": expert,
                "share": share,
                "share_low": low,
                "share_high": high,
                "n_replicas": int(replicas_E[expert]),
                "bound": share * times,
                "bound_low": low * times,
                "bound_high": high * times,
                "n_needed": int(np.ceil(np.nan_to_num(share) * placement.n_devices)),
            }
        )
    found = pd.DataFrame(rows, index=pd.Index(placement.layers, name="layer"))
    found.attrs["unit"] = {
        "expert": "expert",
        **{f"share{end}": "share of assignments" for end in ("", "_low", "_high")},
        "n_replicas": "replicas",
        **{f"bound{end}": "ratio" for end in ("", "_low", "_high")},
        "n_needed": "replicas",
    }
    return found
