"""How much routing tells of the task, and whether tasks that are routed alike are of one type."""

from __future__ import annotations

import numpy as np

from analysis.agreement import agreement
from analysis.clustering import clusters
from analysis.findings.finding import Family, Finding, p_text, some
from analysis.information import task_information
from analysis.signatures import signatures
from routing.trace import RoutingTrace

__all__ = ["informative", "taxonomy"]


def informative(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question a layer: do its experts say more of the task than permuted prompts do?"""
    if trace.level == "counts" or len(trace.tasks) < 2:
        return None
    table = task_information(trace, seed=seed)
    # Certain is cheap with many prompts; worth saying is what exceeds what chance alone would show.
    sure = table[(table["p_value"] <= 0.05) & (table["excess_nats"] > table["null_95"])]
    if sure.empty:
        return Family(kind="information", p_values=table["p_value"].to_numpy(), candidates=())
    layer = str(sure["excess_nats"].idxmax())
    row = sure.loc[layer]
    finding = Finding(
        kind="information",
        sentence=(
            f"Experts say most about the task in {layer}: {row['information_nats']:.2f} nats, "
            f"{row['share']:.0%} of what there is to know, where permuted prompts stay below {row['null_95']:.2f}; "
            f"beyond chance in {len(sure)} of {some(len(table), 'layer')}."
        ),
        effect=float(row["share"]),
        unit="share of the entropy of tasks",
        strength=float(np.clip(row["share"], 0.0, 1.0)),
        p_value=float(row["p_value"]),
        uncertainty=f"p {p_text(float(row['p_value']))} against permuted prompts",
        view="tasks",
        selection_query={},
        options={"part": "layers"},
    )
    at = trace.layers.index(layer)
    return Family(kind="information", p_values=table["p_value"].to_numpy(), candidates=((at, finding),))


def taxonomy(trace: RoutingTrace, *, seed: int) -> Family | None:
    """One question: do tasks, clustered by their routes, fall into the types that people gave them?"""
    types = list(trace.task_types.values())
    n_types = len(set(types))
    if trace.level == "counts" or not 1 < n_types < len(types):
        return None
    table = signatures(trace, of="task", values="lift")
    found = clusters(table, n_clusters=n_types, n_permutations=0, n_bootstrap=0, seed=seed)
    agreed = agreement(found.labels, types, seed=seed)
    if not np.isfinite(agreed.p_value):
        return None
    finding = Finding(
        kind="taxonomy",
        sentence=(
            f"Tasks routed alike are alike: {len(types)} tasks, clustered by the experts they use, fall into their "
            f"{n_types} types better than chance (AMI {agreed.ami:.2f}, of random groupings 95 % stay below "
            f"{agreed.null_95:.2f})."
        ),
        effect=agreed.ami,
        unit="adjusted mutual information",
        # What single experts do is said before what follows from all of them.
        strength=0.5 * max(0.0, (agreed.ami - max(0.0, agreed.null_95)) / max(1e-9, 1 - max(0.0, agreed.null_95))),
        p_value=agreed.p_value,
        uncertainty=f"p {p_text(agreed.p_value)} against permuted types",
        view="tasks",
        selection_query={},
        options={"part": "clusters", "clusters_of": "task", "clusters_by": "tree"},
    )
    return Family(kind="taxonomy", p_values=np.array([agreed.p_value]), candidates=((0, finding),))
