"""Adapters of all layers beside each other: does the shared hypernetwork make the same for each?"""

from __future__ import annotations

import numpy as np

from analysis.adapter_sharing import adapter_sharing
from analysis.similarity import adapter_similarity
from app import cache
from app.panel import mode, panel
from app.views.adapters import sentences as told
from figures.blocks import block_heatmap
from figures.square import similarity_scale
from routing import RoutingTrace

__all__ = ["sharing_panel"]

_MOST_ALIKE = 240


def sharing_panel(trace: RoutingTrace) -> None:
    """Draw the likeness of adapters within and across layers, where there are several layers."""
    assert trace.adapters is not None
    if sum(site.made_from == "selected_set" for site in trace.adapters.sites) < 2:
        return
    alike = cache.answer(trace, adapter_similarity, most_items=_MOST_ALIKE)
    found = cache.answer(trace, adapter_sharing)
    # In the order of the layers, whatever order the adapters were made in.
    places = {str(site): place for place, site in enumerate(found["site"].values)}
    order = np.argsort([places[str(site)] for site in alike["site"].values], kind="stable")
    alike = alike.isel(adapter=order, other=order)
    values = alike.to_numpy().copy()
    np.fill_diagonal(values, np.nan)
    panel(
        "How alike adapters are within and across layers",
        block_heatmap(
            values,
            names=[str(name) for name in alike["adapter"].values],
            blocks=[str(name) for name in alike["site"].values],
            scale=similarity_scale([values]),
            value_text="cosine %{z:.3f}",
            mode=mode(),
        ),
        key="unselected_layers",
        reading=told.of_sharing(found),
        table=lambda: found["cosine"].to_dataframe().reset_index(),
        definitions=("adapter_sharing", "adapter_similarity"),
    )
