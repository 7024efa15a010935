"""What went into a cell of the view, for whoever asks to have one explained."""

from __future__ import annotations

import numpy as np
import xarray as xr

from app.sentences import chance, escaped, percent
from routing import expert_name

__all__ = ["of_cell"]


def of_cell(special: xr.Dataset, *, picked: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """What the largest lift was made of: of the picked expert, or else of all that are shown.

    Args:
        special: of `specialization`.
        picked: layer and number of the experts that are selected.

    Returns:
        symbol or name → value, as Markdown; empty where no lift is known.
    """
    shown = special
    if picked and picked[0][0] in special["layer"].values:
        shown = special.sel(layer=[picked[0][0]], expert=[picked[0][1]])
    lift = shown["lift"].to_numpy()
    if not np.isfinite(lift).any():
        return {}
    group, layer, expert = np.unravel_index(np.nanargmax(lift), lift.shape)
    cell = shown.isel(group=int(group), layer=int(layer), expert=int(expert))
    name = expert_name(str(cell["layer"].item()), int(cell["expert"].item()), names=special.attrs.get("expert_names"))
    told = {
        "Cell": f"{escaped(str(cell['group'].item()))} × {escaped(name)}",
        "Rate of its prompts, rate_de": percent(float(cell["rate"])),
        "Lift, log2 (s' / s)": f"{float(cell['lift']):+.2f}",
    }
    if "overall" in cell:
        told["Rate of all prompts, overall_e"] = percent(float(cell["overall"]))
    n_permutations = int(special.attrs.get("n_permutations", 0))
    if n_permutations and np.isfinite(float(cell["q_value"])):
        told["Permutations of the prompts"] = f"{n_permutations:,}"
        told["z, and q over all cells"] = f"{float(cell['z']):+.1f}, {chance(float(cell['q_value']))}"
    return told
