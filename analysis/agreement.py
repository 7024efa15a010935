"""Whether groups found in routing are the groups that people made.

Legend: C cluster, S task, Y task type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.nulls import p_value, q_values
from routing.errors import SelectionError

__all__ = ["Agreement", "ExpertTaskTypes", "adjusted_information", "agreement", "expert_task_types"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two partitions of the same items agree.

    Attributes:
        ami: adjusted mutual information: 0 by chance, 1 the same.
        ari: adjusted Rand index: 0 by chance, 1 the same.
        p_value: how often a permutation of the labels agrees as well.
        null_95: 95th percentile of the adjusted mutual information under permutation.
        n_items: items in both partitions.
    """

    ami: float
    ari: float
    p_value: float
    null_95: float
    n_items: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertTaskTypes:
    """How clusters of experts line up with types of tasks.

    Attributes:
        table: (cluster, task_type) · `mean` of the signatures over the cluster's experts and the type's tasks, `z` of
            that against the cluster's other tasks, `p_value` and `q_value`; (cluster) · `n_experts`.
        explained_share: share of the variance between tasks, within clusters' profiles, that lies between types.
        null_95: its 95th percentile where types are dealt to tasks at random.
        p_value: how often random types explain as much.
    """

    table: xr.Dataset
    explained_share: float
    null_95: float
    p_value: float


def agreement(
    labels: Sequence[object] | np.ndarray | xr.DataArray,
    groups: Sequence[object] | np.ndarray | xr.DataArray,
    *,
    n_permutations: int = 1000,
    seed: int = 0,
) -> Agreement:
    """How far found labels agree with given groups of the same items.

    Items with the label −1 are left out. Both indices are corrected for chance on average; `p_value` says whether
    chance would reach this one.

    Returns:
        (no dimension) · Agreement of adjusted indices · at most 1; NaN where fewer than two items are left.

    Raises:
        SelectionError: there are not as many labels as groups.

    References:
        Hubert & Arabie 1985 (adjusted Rand index); Vinh, Epps & Bailey 2010 (adjusted mutual information).
    """
    # Slow to import, and not every view compares partitions.
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    found, given = np.asarray(labels), np.asarray(groups)
    if found.shape != given.shape or found.ndim != 1:
        msg = f"There are {found.shape} labels and {given.shape} groups. Give one of each an item."
        raise SelectionError(msg)
    if found.dtype.kind in "if":
        found, given = found[found >= 0], given[found >= 0]
    n_items = len(found)
    if n_items < 2:
        return Agreement(ami=np.nan, ari=np.nan, p_value=np.nan, null_95=np.nan, n_items=n_items)
    one, other = (np.unique(each.astype(str), return_inverse=True)[1] for each in (found, given))
    ami = float(adjusted_mutual_info_score(one, other))
    observed = _information(one, other)
    rng = np.random.default_rng(seed)
    null = np.array([_information(one, rng.permutation(other)) for _ in range(n_permutations)])
    # Entropies do not change under permutation, so the adjusted index is a straight line in the information.
    expected = _expected_information(one, other)
    reach = (_entropy(one) + _entropy(other)) / 2 - expected
    null_ami = (null - expected) / reach if abs(reach) > 1e-12 else np.zeros(len(null))
    return Agreement(
        ami=ami,
        ari=float(adjusted_rand_score(one, other)),
        p_value=float(p_value(int((null >= observed - 1e-12).sum()), n_permutations=n_permutations)),
        null_95=float(np.quantile(null_ami, 0.95)) if len(null) else np.nan,
        n_items=n_items,
    )


def expert_task_types(
    signatures: xr.DataArray, labels: xr.DataArray, *, n_permutations: int = 2000, seed: int = 0
) -> ExpertTaskTypes:
    """How clusters of experts line up with the types of the tasks that describe them.

    Clusters were made from the signatures, so dealing experts to clusters at random would be no null. The types were
    not: they are dealt to tasks at random. `z` of a cluster and a type is the difference between the mean of its
    profile over the type's tasks and over all others, in units of the profile's spread; `p_value` compares it with
    the permuted z of the same cell, two-sided, `q_value` over all cells.

    Args:
        signatures: of experts, (item, feature), features being tasks.
        labels: (item) · clusters of these experts.
        n_permutations: how often types are dealt.
        seed: of the permutations.

    Returns:
        (cluster, task_type) · ExpertTaskTypes in the signatures' unit · any; NaN where one type holds all tasks.

    Raises:
        SelectionError: the signatures are not those of experts over tasks.
    """
    if "task_type" not in signatures.coords or signatures["task_type"].dims != ("feature",):
        msg = (
            "These signatures have no task types along their features, as those of experts have. "
            'Make them with signatures(trace, of="expert").'
        )
        raise SelectionError(msg)
    type_S = np.asarray(signatures["task_type"].to_numpy(), dtype=str)
    types, code_S = np.unique(type_S, return_inverse=True)
    numbers = np.unique(labels.to_numpy()[labels.to_numpy() >= 0])
    of_cluster = [signatures.to_numpy()[labels.to_numpy() == number] for number in numbers]
    size_C = np.array([len(each) for each in of_cluster])
    profile_CS = np.stack([_mean_known(each) for each in of_cluster]) if of_cluster else np.zeros((0, len(type_S)))
    member_YS = np.eye(len(types))[code_S].T
    observed = _contrasts(profile_CS, member_YS)
    explained = _explained(profile_CS, member_YS, size_C=size_C)
    rng = np.random.default_rng(seed)
    reached = np.zeros(observed.shape, dtype=np.int64)
    null = np.zeros(n_permutations)
    for number in range(n_permutations):
        dealt_YS = member_YS[:, rng.permutation(len(type_S))]
        reached += np.abs(_contrasts(profile_CS, dealt_YS)) >= np.abs(observed) - 1e-9
        null[number] = _explained(profile_CS, dealt_YS, size_C=size_C)
    p_CY = np.where(np.isfinite(observed), p_value(reached, n_permutations=n_permutations), np.nan)
    mean_CY = profile_CS @ member_YS.T / member_YS.sum(axis=1)
    unit = str(signatures.attrs.get("unit", ""))
    dims = ("cluster", "task_type")
    table = xr.Dataset(
        {
            "mean": (dims, mean_CY, {"unit": unit}),
            "z": (dims, observed, {"unit": "standard errors"}),
            "p_value": (dims, p_CY, {"unit": "probability"}),
            "q_value": (dims, q_values(p_CY), {"unit": "false-discovery rate"}),
            "n_experts": ("cluster", size_C, {"unit": "experts"}),
        },
        coords={"cluster": numbers, "task_type": types},
    )
    known = np.isfinite(explained) and n_permutations > 0
    return ExpertTaskTypes(
        table=table,
        explained_share=explained,
        null_95=float(np.quantile(null, 0.95)) if known else np.nan,
        p_value=float(p_value(int((null >= explained - 1e-12).sum()), n_permutations=n_permutations))
        if known
        else np.nan,
    )


def adjusted_information(one: np.ndarray, other: np.ndarray) -> float:
    """Adjusted mutual information of two arrays of codes from 0, without the checks that cost the library its time."""
    one, other = (np.unique(each, return_inverse=True)[1] for each in (one, other))
    if one.max() == other.max() == 0:
        return 1.0
    expected = _expected_information(one, other)
    reach = (_entropy(one) + _entropy(other)) / 2 - expected
    return (_information(one, other) - expected) / reach if abs(reach) > 1e-12 else 0.0


def _mean_known(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _contrasts(profile_CS: np.ndarray, member_YS: np.ndarray) -> np.ndarray:
    n_tasks = member_YS.shape[1]
    n_Y = member_YS.sum(axis=1)
    sums = profile_CS @ member_YS.T
    rest = profile_CS.sum(axis=1, keepdims=True) - sums
    spread = profile_CS.std(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (sums / n_Y - rest / (n_tasks - n_Y)) / (spread * np.sqrt(1 / n_Y + 1 / (n_tasks - n_Y)))
    return np.where((spread > 1e-12) & (n_Y < n_tasks), z, np.nan)


def _explained(profile_CS: np.ndarray, member_YS: np.ndarray, *, size_C: np.ndarray) -> float:
    n_Y = member_YS.sum(axis=1)
    centered = profile_CS - profile_CS.mean(axis=1, keepdims=True)
    between = ((centered @ member_YS.T) ** 2 / n_Y).sum(axis=1)
    total = (centered**2).sum(axis=1)
    weight = float((size_C * total).sum())
    return float((size_C * between).sum() / weight) if weight > 1e-12 and len(n_Y) > 1 else float("nan")


def _contingency(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    n_other = int(other.max()) + 1
    return np.bincount(one * n_other + other, minlength=(int(one.max()) + 1) * n_other).reshape(-1, n_other)


def _information(one: np.ndarray, other: np.ndarray) -> float:
    joint = _contingency(one, other) / len(one)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / independent[there])).sum())


def _entropy(labels: np.ndarray) -> float:
    share = np.bincount(labels) / len(labels)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def _expected_information(one: np.ndarray, other: np.ndarray) -> float:
    from sklearn.metrics.cluster import expected_mutual_information

    return float(expected_mutual_information(_contingency(one, other).astype(np.int64), len(one)))
