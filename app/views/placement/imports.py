"""Maps that a reader brings along: read, checked, and kept in this session alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import streamlit as st

from analysis.placements import Placement, read_placement
from app.sentences import escaped
from routing import RoutingError, RoutingTrace, SelectionError

__all__ = ["imported_maps", "of_layers", "read_map"]

_MOST_MEGABYTES = 5
_MOST_MAPS = 4
_MOST_LETTERS = 32
OWN_NAMES = ("linear", "balanced", "coactivated", "random")


def imported_maps(trace: RoutingTrace, *, n_devices: int, n_nodes: int) -> list[Placement]:
    """Draw the upload, and read what is in it; a file that cannot be read gets a sentence.

    Args:
        trace: whose layers the maps are of.
        n_devices: devices, where a map does not say.
        n_nodes: nodes, where a map does not say.
    """
    with st.popover("Judge a map of yours", icon=":material/upload_file:", width="content"):
        st.markdown(
            "JSON as SGLang takes it (`physical_to_logical_map`: the expert in each slot, a list a layer), or as "
            "downloaded here. It stays in this session."
        )
        files = st.file_uploader(
            "Maps as JSON",
            type="json",
            accept_multiple_files=True,
            key="placement_maps",
            max_upload_size=_MOST_MEGABYTES,
            label_visibility="collapsed",
        )
    found: list[Placement] = []
    for file in files[:_MOST_MAPS]:
        try:
            found.append(
                read_map(
                    file.getvalue(),
                    trace,
                    name=_new_name(file.name, [*OWN_NAMES, *(each.name for each in found)]),
                    n_devices=n_devices,
                    n_nodes=n_nodes,
                )
            )
        except RoutingError as error:
            st.warning(f"**{escaped(file.name)}**: {escaped(str(error))}", icon=":material/rule:")
    if len(files) > _MOST_MAPS:
        st.warning(f"The first {_MOST_MAPS} maps are judged. Take some out to see others.", icon=":material/rule:")
    return found


def read_map(content: bytes, trace: RoutingTrace, *, name: str, n_devices: int, n_nodes: int) -> Placement:
    """A placement from the bytes of a file, with numbers of devices of its own or else these.

    Args:
        content: of the file.
        trace: whose layers it is of.
        name: what to call it.
        n_devices: devices, where it does not say.
        n_nodes: nodes, where it does not say.

    Raises:
        SelectionError: it is no JSON, or no map that fits the trace.
    """
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = "This is no JSON file. Save the map as JSON, in UTF-8."
        raise SelectionError(msg) from error
    if not isinstance(given, Mapping):
        msg = "This JSON holds no object. Give an object with “physical_to_logical_map”."
        raise SelectionError(msg)
    told: dict[str, Any] = {"n_devices": n_devices, "n_nodes": n_nodes} if given.get("n_devices") is None else {}
    return read_placement({**given, **told}, trace, name=name)


def of_layers(placement: Placement, layers: Sequence[str]) -> Placement:
    """The rows of some layers."""
    rows = [placement.layers.index(layer) for layer in layers]
    return replace(placement, layers=tuple(layers), slots_LS=placement.slots_LS[rows])


def _new_name(file: str, taken: Sequence[str]) -> str:
    plain = PurePath(file).stem[:_MOST_LETTERS].strip() or "map"
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain} ({number})"
    return name
