"""Whether clusters of experts are those of the tasks that they serve most, or merely those of their layers.

Legend: I expert, S task, Y task type.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from analysis.agreement import Agreement, adjusted_information, agreement
from analysis.nulls import p_value
from routing.errors import SelectionError

__all__ = ["expert_agreement", "main_task_types"]


def main_task_types(signatures: xr.DataArray) -> xr.DataArray:
    """For each expert the task type whose tasks have the largest mean of its signature.

    Args:
        signatures: of experts over tasks, (item, feature), as `signatures(trace, of="expert")` gives them.

    Returns:
        (item) · name of a task type · one of the types; an empty text where nothing of the expert is known.

    Raises:
        SelectionError: the signatures are not those of experts over tasks.
    """
    types, member_YS = _types(signatures)
    main_I = _main(signatures.to_numpy(), member_YS)
    named = np.array([types[each] if each >= 0 else "" for each in main_I], dtype=object)
    coords = {name: coord for name, coord in signatures.coords.items() if coord.dims == ("item",)}
    return xr.DataArray(named, dims="item", coords=coords, name="main_task_type", attrs={"unit": "name"})


def expert_agreement(
    signatures: xr.DataArray,
    labels: xr.DataArray,
    *,
    reference: Literal["task_type", "layer"] = "task_type",
    n_permutations: int = 500,
    seed: int = 0,
) -> Agreement:
    """How far clusters of experts agree with the experts' main task types, or with their layers.

    Clusters and main types come from the same signatures, so that any clusters agree with them: chance deals the types
    to tasks at random and takes each expert's main one again, which asks whether the types that people gave say more of
    the clusters than any other sorting of the same tasks. Layers were not found in the signatures: they are dealt to
    experts. Experts in no cluster, and such without a main type, are left out.

    Args:
        signatures: of experts over tasks, (item, feature).
        labels: (item) · clusters of these experts; −1 for none.
        reference: what they are compared with.
        n_permutations: deals for the null.
        seed: of the deals.

    Returns:
        (no dimension) · Agreement of adjusted indices · at most 1; NaN where fewer than two experts are left, without p
        where one type holds all tasks.

    Raises:
        SelectionError: the signatures are not those of experts over tasks, or `reference` is something else.
    """
    # Slow to import, and not every view compares partitions.
    from sklearn.metrics import adjusted_rand_score

    if reference == "layer":
        return agreement(labels, np.asarray(signatures["layer"], str), n_permutations=n_permutations, seed=seed)
    if reference != "task_type":
        msg = f"Experts have a main task_type and a layer, not {reference!r}. Name one of the two."
        raise SelectionError(msg)
    types, member_YS = _types(signatures)
    values_IS, label_I = signatures.to_numpy(), labels.to_numpy()
    main_I = _main(values_IS, member_YS)
    kept = (label_I >= 0) & (main_I >= 0)
    n_items = int(kept.sum())
    if n_items < 2:
        return Agreement(ami=np.nan, ari=np.nan, p_value=np.nan, null_95=np.nan, n_items=n_items)
    values_IS, label_I, main_I = values_IS[kept], label_I[kept], main_I[kept]
    ami = adjusted_information(label_I, main_I)
    rng = np.random.default_rng(seed)
    n_deals = n_permutations if len(types) > 1 else 0
    dealt = (_main(values_IS, member_YS[:, rng.permutation(member_YS.shape[1])]) for _ in range(n_deals))
    null = np.array([adjusted_information(label_I, each) for each in dealt])
    return Agreement(
        ami=ami,
        ari=float(adjusted_rand_score(label_I, main_I)),
        p_value=float(p_value(int((null >= ami - 1e-9).sum()), n_permutations=n_deals)) if n_deals else np.nan,
        null_95=float(np.quantile(null, 0.95)) if n_deals else np.nan,
        n_items=n_items,
    )


def _types(signatures: xr.DataArray) -> tuple[list[str], np.ndarray]:
    if "task_type" not in signatures.coords or signatures["task_type"].dims != ("feature",):
        msg = (
            "These signatures have no task types along their features, as those of experts have. "
            'Make them with signatures(trace, of="expert").'
        )
        raise SelectionError(msg)
    types, code_S = np.unique(np.asarray(signatures["task_type"], dtype=str), return_inverse=True)
    return types.tolist(), np.eye(len(types))[code_S].T


def _main(values_IS: np.ndarray, member_YS: np.ndarray) -> np.ndarray:
    """(expert,) number of the type with the largest mean over its known tasks; −1 where none is known."""
    known = np.isfinite(values_IS)
    n_IY = known @ member_YS.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_IY = np.where(n_IY > 0, (np.where(known, values_IS, 0.0) @ member_YS.T) / n_IY, -np.inf)
    # Sums in another order differ in their last digits, and equal means must stay tied.
    return np.where((n_IY > 0).any(axis=1), np.round(mean_IY, 9).argmax(axis=1), -1)
