"""Placements: which device holds which experts.

Legend: L layer, E expert, S slot, D device, N node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.packing import even_packs, packs_together, replicated
from analysis.placement_maps import read_count, read_slots
from routing.errors import SelectionError
from routing.trace import RoutingTrace

__all__ = ["Placement", "balanced_placement", "coactivated_placement", "linear_placement", "read_placement"]

FORMAT = "routescope-placement/1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Which experts lie on which device.

    Attributes:
        name: what it is called in tables.
        layers: labels of the layers.
        slots_LS: expert in each slot; the slots of a device stand together; −1 where one is empty.
        n_devices: devices.
        n_nodes: nodes; devices of a node stand together.
    """

    name: str
    layers: tuple[str, ...]
    slots_LS: np.ndarray
    n_devices: int
    n_nodes: int

    @property
    def n_slots(self) -> int:
        """Slots of all devices in a layer."""
        return int(self.slots_LS.shape[1])

    def shares(self, *, n_experts: int) -> np.ndarray:
        """(L, E, D) share of an expert's work that a device does: its replicas there, of all."""
        found = np.zeros((len(self.layers), n_experts, self.n_devices))
        device_S = np.arange(self.n_slots) // (self.n_slots // self.n_devices)
        for layer, slots in enumerate(self.slots_LS):
            held = slots >= 0
            np.add.at(found[layer], (slots[held], device_S[held]), 1.0)
        total = found.sum(axis=2, keepdims=True)
        share_LED: np.ndarray = found / np.where(total > 0, total, 1)
        return share_LED

    def to_json(self) -> dict[str, Any]:
        """This placement as a dictionary that `json` can write and `read_placement` reads."""
        return {
            "format": FORMAT,
            "name": self.name,
            "n_devices": self.n_devices,
            "n_nodes": self.n_nodes,
            "physical_to_logical": {
                layer: slots.tolist() for layer, slots in zip(self.layers, self.slots_LS, strict=True)
            },
        }


def linear_placement(trace: RoutingTrace, *, n_devices: int, n_nodes: int = 1) -> Placement:
    """Experts on devices in the order of their numbers: what an engine does unless told otherwise.

    Returns:
        (layer, slot) · Placement of experts · expert numbers, −1 for an empty slot.

    Raises:
        SelectionError: devices do not divide into nodes.
    """
    n_slots = _n_slots(trace, n_devices=n_devices, n_nodes=n_nodes, n_redundant=0)
    slots_LS = np.full((trace.n_layers, n_slots), -1, dtype=np.int64)
    for layer, facts in enumerate(trace.layer_facts):
        # Spread where the devices do not divide the experts: device d holds experts from ⌈d E / D⌉ on.
        device_E = np.arange(facts.n_experts) * n_devices // facts.n_experts
        slots_LS[layer] = _filled(device_E, np.arange(facts.n_experts), n_devices=n_devices, n_slots=n_slots)
    return Placement(name="linear", layers=trace.layers, slots_LS=slots_LS, n_devices=n_devices, n_nodes=n_nodes)


def balanced_placement(
    trace: RoutingTrace,
    load_LE: np.ndarray,
    *,
    n_devices: int,
    n_nodes: int = 1,
    n_redundant: int = 0,
) -> Placement:
    """Replicas of busy experts, packed so that devices have even loads, as DeepSeek's load balancer does.

    Redundant slots go one by one to the expert with most load a replica; then the heaviest replica goes to the lightest
    device with room. Where a router first selects groups of experts and nodes divide the groups, groups are packed onto
    nodes first, and replicas are made within a node, so that a token's groups keep to few nodes.

    Args:
        trace: whose layers these are.
        load_LE: load of each expert, in any unit.
        n_devices: devices.
        n_nodes: nodes; devices of a node stand together.
        n_redundant: slots beyond one an expert; more are added until devices have equally many.

    Returns:
        (layer, slot) · Placement of experts · expert numbers.

    Raises:
        SelectionError: devices do not divide into nodes.

    References:
        DeepSeek-AI 2024, "DeepSeek-V3"; 2025, "Expert Parallelism Load Balancer" (the idea; written anew).
    """
    n_slots = _n_slots(trace, n_devices=n_devices, n_nodes=n_nodes, n_redundant=n_redundant)
    rows = []
    for layer, facts in enumerate(trace.layer_facts):
        load_E = _known(load_LE[layer, : facts.n_experts])
        n_groups = facts.n_groups or 1
        if n_nodes > 1 and n_groups % n_nodes == 0 and facts.n_experts % n_groups == 0 and n_groups > 1:
            group_E = np.arange(facts.n_experts) // (facts.n_experts // n_groups)
            node_G = even_packs(np.bincount(group_E, weights=load_E), n_packs=n_nodes)
            node_E = node_G[group_E]
        else:
            node_E = np.zeros(facts.n_experts, dtype=np.int64)
        rows.append(_packed(load_E, node_E, n_devices=n_devices, n_slots=n_slots))
    slots_LS = np.array(rows).reshape(trace.n_layers, n_slots)
    return Placement(name="balanced", layers=trace.layers, slots_LS=slots_LS, n_devices=n_devices, n_nodes=n_nodes)


def coactivated_placement(
    trace: RoutingTrace,
    load_LE: np.ndarray,
    *,
    together_LEE: np.ndarray,
    n_devices: int,
    n_nodes: int,
    n_redundant: int = 0,
    slack: float = 0.05,
) -> Placement:
    """Experts that tokens choose together on one node, as far as the nodes' loads stay even.

    Nodes get even packs; then two experts of different nodes change places as long as that brings more pairs together
    than it parts and no node's load passes (1 + slack) times the mean, or what even packing itself left. Within a node,
    as in `balanced_placement`.

    Args:
        trace: whose layers these are.
        load_LE: load of each expert, in any unit.
        together_LEE: tokens that choose both experts.
        n_devices: devices.
        n_nodes: nodes; devices of a node stand together.
        n_redundant: slots beyond one an expert.
        slack: how far a node's load may be above the mean.

    Returns:
        (layer, slot) · Placement of experts · expert numbers.

    Raises:
        SelectionError: devices do not divide into nodes, or nodes do not divide the experts of a layer.
    """
    n_slots = _n_slots(trace, n_devices=n_devices, n_nodes=n_nodes, n_redundant=n_redundant)
    rows = []
    for layer, facts in enumerate(trace.layer_facts):
        if facts.n_experts % n_nodes:
            msg = (
                f"The {facts.n_experts} experts of {facts.label} do not divide into {n_nodes} nodes. "
                "Choose a number of nodes that divides them."
            )
            raise SelectionError(msg)
        load_E = _known(load_LE[layer, : facts.n_experts])
        together_EE = together_LEE[layer, : facts.n_experts, : facts.n_experts].astype(float)
        node_E = packs_together(together_EE, load_E=load_E, n_packs=n_nodes, slack=slack)
        rows.append(_packed(load_E, node_E, n_devices=n_devices, n_slots=n_slots))
    slots_LS = np.array(rows).reshape(trace.n_layers, n_slots)
    return Placement(name="coactivated", layers=trace.layers, slots_LS=slots_LS, n_devices=n_devices, n_nodes=n_nodes)


def read_placement(
    source: Mapping[str, Any] | Path | str,
    trace: RoutingTrace,
    *,
    n_devices: int | None = None,
    n_nodes: int | None = None,
    name: str | None = None,
) -> Placement:
    """A placement from a map of physical slots to logical experts.

    What `Placement.to_json` gave is read, and {"physical_to_logical_map": [[…], …]}, a list an MoE layer or a list a
    layer of the model, as serving engines write it; these do not say how many devices there are.

    Args:
        source: the map, or a JSON file that holds it.
        trace: whose layers these are.
        n_devices: devices, where the map does not say.
        n_nodes: nodes, where the map does not say; 1 unless given.
        name: what to call it; the map's own name or "imported" unless given.

    Returns:
        (layer, slot) · Placement of experts · expert numbers, −1 for an empty slot.

    Raises:
        SelectionError: the map does not fit the trace, or does not say how many devices there are.
    """
    given = source if isinstance(source, Mapping) else _read_json(Path(source))
    slots_LS = read_slots(given, trace.layer_facts)
    n_slots = int(slots_LS.shape[1])
    devices = n_devices or read_count(given.get("n_devices"), name="n_devices")
    nodes = n_nodes or read_count(given.get("n_nodes"), name="n_nodes") or 1
    if devices is None or n_slots % devices or devices % nodes:
        msg = (
            f"{n_slots} slots a layer cannot be laid on {devices or 'an unknown number of'} devices of {nodes} nodes. "
            "Say n_devices and n_nodes so that nodes divide devices and devices divide the slots."
        )
        raise SelectionError(msg)
    title = name or str(given.get("name") or "imported")
    return Placement(name=title, layers=trace.layers, slots_LS=slots_LS, n_devices=devices, n_nodes=nodes)


def random_placement(trace: RoutingTrace, *, n_devices: int, n_nodes: int, rng: np.random.Generator) -> Placement:
    """Experts on devices by lot: what a placement must beat."""
    n_slots = _n_slots(trace, n_devices=n_devices, n_nodes=n_nodes, n_redundant=0)
    rows = []
    for facts in trace.layer_facts:
        device_E = rng.permutation(np.arange(facts.n_experts) * n_devices // facts.n_experts)
        rows.append(_filled(device_E, np.arange(facts.n_experts), n_devices=n_devices, n_slots=n_slots))
    slots_LS = np.array(rows).reshape(trace.n_layers, n_slots)
    return Placement(name="random", layers=trace.layers, slots_LS=slots_LS, n_devices=n_devices, n_nodes=n_nodes)


def _n_slots(trace: RoutingTrace, *, n_devices: int, n_nodes: int, n_redundant: int) -> int:
    if n_devices < 1 or n_nodes < 1 or n_devices % n_nodes or n_redundant < 0:
        msg = (
            f"{n_devices} devices on {n_nodes} nodes with {n_redundant} redundant slots cannot be laid out. "
            "Give positive numbers, nodes dividing devices."
        )
        raise SelectionError(msg)
    return -(-(trace.n_experts + n_redundant) // n_devices) * n_devices


def _packed(load_E: np.ndarray, node_E: np.ndarray, *, n_devices: int, n_slots: int) -> np.ndarray:
    """Slots of one layer: replicas within each node, spread evenly over its devices."""
    n_nodes = int(node_E.max(initial=0)) + 1
    slots = []
    for node in range(n_nodes):
        mine = np.flatnonzero(node_E == node)
        expert_S = mine[replicated(load_E[mine], n_slots=n_slots // n_nodes)]
        n_replicas = np.bincount(expert_S, minlength=len(load_E))
        device_S = even_packs(load_E[expert_S] / n_replicas[expert_S], n_packs=n_devices // n_nodes)
        slots.append(expert_S[np.argsort(device_S, kind="stable")])
    return np.concatenate(slots)


def _filled(device_E: np.ndarray, expert_E: np.ndarray, *, n_devices: int, n_slots: int) -> np.ndarray:
    a_device = n_slots // n_devices
    slots = np.full(n_slots, -1, dtype=np.int64)
    for device in range(n_devices):
        mine = expert_E[device_E == device]
        slots[device * a_device : device * a_device + len(mine)] = mine
    return slots


def _known(load_E: np.ndarray) -> np.ndarray:
    return np.nan_to_num(load_E.astype(float))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        msg = f"The placement {path} cannot be read: {error}. Give a JSON file."
        raise SelectionError(msg) from error
    if not isinstance(found, dict):
        msg = f"The placement {path} holds a {type(found).__name__}, not an object. Give a JSON object."
        raise SelectionError(msg)
    return found
