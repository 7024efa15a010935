"""A placement as files that others read."""

from __future__ import annotations

import json

import streamlit as st

from analysis.placement_maps import engine_map
from analysis.placements import Placement
from routing import RoutingTrace, SelectionError

__all__ = ["download_map", "map_files"]


def map_files(placement: Placement, trace: RoutingTrace) -> dict[str, bytes | None]:
    """The map by kind: "SGLang" as the engine takes it, None where it cannot, and "layers" with the layers' names.

    Args:
        placement: of these layers.
        trace: the trace, narrowed to them.
    """
    try:
        engine = json.dumps(engine_map(placement.slots_LS, trace.layer_facts)).encode()
    except SelectionError:
        engine = None
    return {"SGLang": engine, "layers": json.dumps(placement.to_json()).encode()}


def download_map(placement: Placement, trace: RoutingTrace, *, whole: bool) -> None:
    """Draw the buttons that give the map as a file.

    Args:
        placement: the map.
        trace: the trace, narrowed to its layers.
        whole: whether these are all layers of the run; an engine needs them all.
    """
    files = map_files(placement, trace)
    n_experts = max(facts.n_experts for facts in trace.layer_facts)
    name = f"{placement.name}-{placement.n_devices}-devices"
    engine = files["SGLang"] if whole else None
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.download_button(
            "Map for SGLang",
            data=engine or b"",
            file_name=f"{name}.json",
            mime="application/json",
            icon=":material/download:",
            key="placement_engine",
            on_click="ignore",
            disabled=engine is None,
            help="physical_to_logical_map, a row for each layer of the model; vLLM's balancer calls its map so, "
            "too. " + _why_not(whole=whole, engine=files["SGLang"]),
        )
        st.download_button(
            "Map with layer names",
            data=files["layers"] or b"",
            file_name=f"{name}-layers.json",
            mime="application/json",
            icon=":material/download:",
            key="placement_layers",
            on_click="ignore",
            help="The same slots under the names of the layers, with devices and nodes; this page reads it again.",
        )
    if engine is not None:
        st.code(
            f"--init-expert-location {name}.json --ep-num-redundant-experts {placement.n_slots - n_experts} "
            f"--ep-size {placement.n_devices}",
            language="bash",
        )


def _why_not(*, whole: bool, engine: bytes | None) -> str:
    if engine is None:
        return "Not for this map: an engine has one table, of layers with equally many experts and no empty slot."
    return "" if whole else "Clear the filter of layers first: an engine needs them all."
