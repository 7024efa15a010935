"""Maps of physical slots to logical experts, as files hold them.

Legend: L layer, S slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from routing.errors import SelectionError
from routing.facts import LayerFacts

__all__ = ["ENGINE_KEY", "engine_map", "read_count", "read_slots"]

ENGINE_KEY = "physical_to_logical_map"


def read_slots(given: Mapping[str, Any], layer_facts: Sequence[LayerFacts]) -> np.ndarray:
    """The expert in each slot of each layer, from a map of ours or of a serving engine.

    Args:
        given: "physical_to_logical", rows by layer label or in the order of the layers, or "physical_to_logical_map", a
            row an MoE layer or a row a layer of the model.
        layer_facts: of the layers that are read.

    Returns:
        (layer, slot) · expert · −1 for an empty slot.

    Raises:
        SelectionError: the rows are no lists of whole numbers, of different length, too few, or lack an expert.
    """
    rows = _rows(given.get("physical_to_logical", given.get(ENGINE_KEY)), layer_facts)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or not lengths[0]:
        msg = f"Layers of a placement have equally many slots; these have {lengths}. Fill the shorter ones up."
        raise SelectionError(msg)
    slots_LS = np.array(rows, dtype=np.int64)
    for slots_S, facts in zip(slots_LS, layer_facts, strict=True):
        held = set(slots_S.tolist()) - {-1}
        if held != set(range(facts.n_experts)):
            wrong = sorted(held ^ set(range(facts.n_experts)))
            msg = (
                f"The placement of {facts.label} lacks or adds the experts {wrong[:8]}; it has {facts.n_experts}. "
                "Give every expert at least one slot."
            )
            raise SelectionError(msg)
    return slots_LS


def read_count(value: object, *, name: str) -> int | None:
    """A number of devices or nodes; None where it is not told.

    Raises:
        SelectionError: it is no whole number above 0.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"A placement says {name} as a whole number above 0, not {value!r:.60}. Correct it, or leave it out."
        raise SelectionError(msg)
    return value


def engine_map(slots_LS: np.ndarray, layer_facts: Sequence[LayerFacts]) -> dict[str, Any]:
    """The map as SGLang takes it at the start: a row for each layer of the model, and nothing else in the file.

    Layers without experts, up to the last one that has some, get each expert in turn: the engine reads their rows, and
    uses none.

    Args:
        slots_LS: expert in each slot.
        layer_facts: of these layers.

    Raises:
        SelectionError: the layers differ in their experts, two have one number, or a slot is empty: an engine has one
            table.
    """
    numbers = [facts.number for facts in layer_facts]
    n_experts = {facts.n_experts for facts in layer_facts}
    if len(set(numbers)) < len(numbers) or len(n_experts) != 1 or (slots_LS < 0).any():
        msg = (
            "A serving engine has one table: layers of one stack, with equally many experts and no empty slot; this "
            "placement has others. Take the map with the names of the layers."
        )
        raise SelectionError(msg)
    in_turn = (np.arange(slots_LS.shape[1]) % n_experts.pop()).tolist()
    rows = [list(in_turn) for _ in range(max(numbers) + 1)]
    for number, slots_S in zip(numbers, slots_LS, strict=True):
        rows[number] = slots_S.tolist()
    return {ENGINE_KEY: rows}


def _rows(found: object, layer_facts: Sequence[LayerFacts]) -> list[list[int]]:
    n_layers = len(layer_facts)
    if isinstance(found, Mapping):
        if lacking := [facts.label for facts in layer_facts if facts.label not in found]:
            msg = (
                f"The placement has no layer {lacking[:8]}; it holds {list(found)[:8]}. Give every layer of the trace."
            )
            raise SelectionError(msg)
        found = [found[facts.label] for facts in layer_facts]
    if not isinstance(found, (list, tuple)):
        found = []
    numbers = [facts.number for facts in layer_facts]
    if len(found) > n_layers and len(set(numbers)) == n_layers and max(numbers) < len(found):
        # Engines count all layers of the model, those without experts too.
        found = [found[number] for number in numbers]
    if len(found) != n_layers:
        msg = (
            f"A placement maps physical slots to logical experts for {n_layers} layers; this one holds {len(found)}. "
            f'Give {{"{ENGINE_KEY}": [[…], …]}}, a list a layer.'
        )
        raise SelectionError(msg)
    for row, facts in zip(found, layer_facts, strict=True):
        if not isinstance(row, (list, tuple)) or not all(type(slot) is int and -2 < slot < 2**31 for slot in row):
            msg = (
                f"The slots of {facts.label} are no list of expert numbers. Give whole numbers from 0, and −1 for an "
                "empty slot."
            )
            raise SelectionError(msg)
    return [list(row) for row in found]
