"""What placements and capacities would do, as tables that can travel from a process of their own."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from analysis.capacity import Priority, capacity_drops
from analysis.expert_bound import expert_bound
from analysis.placement_study import PlacementStudy, placement_what_if
from analysis.placements import Placement
from routing import RoutingTrace

__all__ = [
    "FACTORS",
    "capacity_of_tables",
    "capacity_tables",
    "placement_tables",
    "study_of_tables",
    "tables_of_study",
    "with_imported",
]

Tables = dict[str, pd.DataFrame]

FACTORS = (1.0, 1.25, 1.5, 2.0, 4.0)
_PARTS = {
    "layers": ("factor", "layer"),
    "tasks": ("factor", "layer", "task"),
    "positions": ("factor", "layer", "position"),
}


def placement_tables(trace: RoutingTrace, *, n_devices: int, n_nodes: int, n_redundant: int, batch_size: int) -> Tables:
    """`placement_what_if` as tables, for `study_of_tables`; and "bounds", `expert_bound` of the balanced map."""
    study = placement_what_if(
        trace, n_devices=n_devices, n_nodes=n_nodes, n_redundant=n_redundant, batch_size=batch_size
    )
    return tables_of_study(study) | {"bounds": expert_bound(trace, study.placements["balanced"]).reset_index()}


def tables_of_study(study: PlacementStudy) -> Tables:
    """A study as flat tables: measures, device loads, slots."""
    slots = [
        pd.DataFrame({"expert": placement.slots_LS.ravel()}).assign(
            placement=name,
            layer=[layer for layer in placement.layers for _ in range(placement.n_slots)],
            n_devices=placement.n_devices,
            n_nodes=placement.n_nodes,
        )
        for name, placement in study.placements.items()
    ]
    measures = study.table.reset_index().assign(n_batches=study.table.attrs["n_batches"])
    loads = study.device_load.to_dataframe(name="load").reset_index()
    return {"measures": measures, "loads": loads, "slots": pd.concat(slots, ignore_index=True)}


def study_of_tables(tables: Tables) -> PlacementStudy:
    """The study that `tables_of_study` laid out."""
    measures = tables["measures"].set_index(["placement", "part"])
    table = measures.drop(columns="n_batches")
    table.attrs["n_batches"] = int(measures["n_batches"].iloc[0])
    placements = {}
    for name, part in tables["slots"].groupby("placement", sort=False):
        layers = tuple(dict.fromkeys(part["layer"].astype(str)))
        placements[str(name)] = Placement(
            name=str(name),
            layers=layers,
            slots_LS=part["expert"].to_numpy().reshape(len(layers), -1),
            n_devices=int(part["n_devices"].iloc[0]),
            n_nodes=int(part["n_nodes"].iloc[0]),
        )
    load = _labelled(tables["loads"], ("placement", "layer", "device"))["load"]
    return PlacementStudy(table=table, placements=placements, device_load=load)


def with_imported(study: PlacementStudy, imported: PlacementStudy, names: Sequence[str]) -> PlacementStudy:
    """A study with the placements of these names, taken from another one of the same trace and options."""
    rows = imported.table[imported.table.index.get_level_values("placement").isin(names)]
    table = pd.concat([study.table, rows])
    table.attrs = dict(study.table.attrs)
    loads = xr.concat([study.device_load, imported.device_load.sel(placement=list(names))], "placement", join="outer")
    placements = {**study.placements, **{name: imported.placements[name] for name in names}}
    return PlacementStudy(table=table, placements=placements, device_load=loads)


def capacity_tables(trace: RoutingTrace, *, batch_size: int, priority: Priority) -> Tables:
    """`capacity_drops` as tables, for `capacity_of_tables`."""
    found = capacity_drops(trace, factors=FACTORS, batch_size=batch_size, priority=priority)
    tables = {
        name: found[[each for each in found.data_vars if found[each].dims == dims]].to_dataframe().reset_index()
        for name, dims in _PARTS.items()
    }
    return tables


def capacity_of_tables(tables: Tables) -> xr.Dataset:
    """The answer that `capacity_tables` laid out, without its ranks."""
    return xr.merge([_labelled(tables[name], dims) for name, dims in _PARTS.items()], join="exact")


def _labelled(table: pd.DataFrame, dims: Sequence[str]) -> xr.Dataset:
    """A flat table as labelled arrays, labels in the order in which they come."""
    indexed = table.set_index(list(dims)).to_xarray()
    return indexed.reindex({dim: list(dict.fromkeys(table[dim])) for dim in dims})
