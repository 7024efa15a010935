"""What placements are worth: fitted on one half of the prompts, judged on the other.

Legend: P prompt, B batch, G pass, L layer, E expert, D device, N node, R resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from analysis.passes import BatchOrder, passes_of
from analysis.placement_measures import ENDS, MEASURES, device_loads, draws_of_batches, judged
from analysis.placements import (
    Placement,
    balanced_placement,
    coactivated_placement,
    linear_placement,
    random_placement,
)
from analysis.rates import draws_of_prompts
from analysis.scan import count_table, mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["PlacementStudy", "placement_what_if", "prompt_halves"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacementStudy:
    """Placements of one trace, judged.

    Attributes:
        table: (placement, part) · each measure with _low and _high; part is "fitted" or "judged".
        placements: by name; of random ones the first.
        device_load: (placement, layer, device) · share of the layer's assignments on the judged half.
    """

    table: pd.DataFrame
    placements: Mapping[str, Placement]
    device_load: xr.DataArray


def prompt_halves(trace: RoutingTrace, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of the prompts, each with half of every task.

    Returns:
        (half) and (half) · rows of `trace.prompts` · 0 and up, ascending.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(trace.n_prompts)
    order = order[np.argsort(trace.task_of_prompt[order], kind="stable")]
    return np.sort(order[0::2]), np.sort(order[1::2])


def placement_what_if(
    trace: RoutingTrace,
    *,
    n_devices: int,
    n_nodes: int = 1,
    n_redundant: int = 0,
    slack: float = 0.05,
    imported: Sequence[Placement] = (),
    batch_size: int = 16,
    order: BatchOrder = "recorded",
    n_random: int = 10,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> PlacementStudy:
    """How evenly devices would be loaded, and what would cross nodes, under several placements.

    Load-aware placements are fitted on one half of the prompts (half of each task) and judged on the other; the fitted
    half is shown to tell how much of a gain was luck. A device's load is the assignments of its experts, a replica's
    the expert's over its replicas. Over passes and layers:

    - `device_max_over_mean`: mean of max load / mean load; `worst_pass`: the largest of its means over layers.
    - `balancedness_sglang`: mean over passes of the mean over layers of (mean + 1e-5) / (max + 1e-5).
    - `balancedness_vllm`: mean over passes of Σ_layers mean / Σ_layers max. Not the same number.
    - `slowdown_bound`: Σ max / Σ mean over passes and layers: at least so many times as long as with even devices.
    - `nodes_per_token`: distinct nodes of a token's experts in a layer. `leaving_share`: share of assignments on
      another node than the token's own; `sends_per_token`: distinct nodes other than its own. Prompts of a batch are
      dealt to devices in turn; a replica on the token's node is preferred.
    - `saved_time`, `saved_sends`: 1 − slowdown_bound, or sends_per_token, over that of "linear"; the same batches are
      drawn for both.

    "random" is the mean of `n_random` placements by lot. Intervals of judged measures come from drawing batches again.

    Args:
        trace: the trace.
        n_devices: devices that share each layer's experts.
        n_nodes: nodes; devices of a node stand together.
        n_redundant: slots beyond one an expert, for "balanced" and "coactivated".
        slack: how far above the mean "coactivated" may load a node, if that brings experts together.
        imported: further placements to judge.
        batch_size: prompts a batch.
        order: how prompts are put into batches.
        n_random: placements by lot.
        n_bootstrap: draws of batches for the intervals; 0 for none.
        seed: of the halves, lots and draws.

    Returns:
        (placement, part) · PlacementStudy of the measures · as they say; NaN where nothing was routed. attrs say of
        how many batches the judged half is made ("n_batches").

    Raises:
        SelectionError: there are fewer than two prompts, or devices, nodes and experts do not fit.
        TraceError: the trace holds counts only.

    References:
        DeepSeek-AI 2025, "Expert Parallelism Load Balancer"; the two definitions of balancedness are those of SGLang's
        and vLLM's logs.
    """
    require_tokens(trace, for_what="a placement")
    if trace.n_prompts < 2:
        msg = (
            f"A placement is fitted on one half of the prompts and judged on the other; this trace has "
            f"{trace.n_prompts}. Record more prompts."
        )
        raise SelectionError(msg)
    n_bootstrap = draws_of_prompts(trace, n_bootstrap)
    rows = prompt_halves(trace, seed=seed)
    ids = trace.prompts["prompt"].to_numpy()
    halves = {
        part: trace.select(Selection(prompts=tuple(ids[half])))
        for part, half in zip(("fitted", "judged"), rows, strict=True)
    }
    placements = _placements(
        halves["fitted"], n_devices=n_devices, n_nodes=n_nodes, n_redundant=n_redundant, slack=slack
    )
    placements |= {each.name: each for each in imported}
    rng = np.random.default_rng(seed)
    lots = [random_placement(trace, n_devices=n_devices, n_nodes=n_nodes, rng=rng) for _ in range(n_random)]
    table, loads, n_batches = {}, {}, 0
    for part, half in halves.items():
        passes = passes_of(half, batch_size=batch_size, order=order, seed=seed)
        draws_RB = None
        if part == "judged":
            n_batches = passes.n_batches
            # Of their own, so that intervals do not hang on how many lots were drawn before.
            draws_RB = draws_of_batches(n_batches, n_bootstrap, rng=np.random.default_rng([seed, 1]))
            loads = device_loads(half, placements | ({"random": lots[0]} if lots else {}))
        rows_of_part = judged(half, [*placements.values(), *lots], passes, draws_RB=draws_RB)
        for name, found in zip(placements, rows_of_part, strict=False):
            table[name, part] = found
        if lots:
            drawn = pd.DataFrame(rows_of_part[len(placements) :])
            table["random", part] = drawn.mean().to_dict() | dict.fromkeys(ENDS, float("nan"))
    frame = pd.DataFrame(list(table.values()), index=pd.MultiIndex.from_tuples(table, names=["placement", "part"]))
    frame = frame[[f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]]
    frame.attrs["n_batches"] = n_batches
    frame.attrs["unit"] = {f"{name}{end}": unit for name, unit in MEASURES.items() for end in ("", "_low", "_high")}
    most = max(placement.n_devices for placement in placements.values())
    padded = [np.pad(each, ((0, 0), (0, most - each.shape[1])), constant_values=np.nan) for each in loads.values()]
    device_load = xr.DataArray(
        np.stack(padded),
        dims=("placement", "layer", "device"),
        coords={"placement": list(loads), "layer": list(trace.layers), "device": np.arange(most)},
        name="device_load",
        attrs={"unit": "share of assignments"},
    )
    kept = placements | ({"random": lots[0]} if lots else {})
    return PlacementStudy(table=frame, placements=kept, device_load=device_load)


def _placements(
    fitted: RoutingTrace, *, n_devices: int, n_nodes: int, n_redundant: int, slack: float
) -> dict[str, Placement]:
    load_LE = count_table(fitted).assignments_GLE[0].astype(float)
    found = [
        linear_placement(fitted, n_devices=n_devices, n_nodes=n_nodes),
        balanced_placement(fitted, load_LE, n_devices=n_devices, n_nodes=n_nodes, n_redundant=n_redundant),
    ]
    if n_nodes > 1 and all(facts.n_experts % n_nodes == 0 for facts in fitted.layer_facts):
        found.append(
            coactivated_placement(
                fitted,
                load_LE,
                together_LEE=_together(fitted),
                n_devices=n_devices,
                n_nodes=n_nodes,
                n_redundant=n_redundant,
                slack=slack,
            )
        )
    return {each.name: replace(each, layers=fitted.layers) for each in found}


def _together(trace: RoutingTrace) -> np.ndarray:
    """(L, E, E) tokens that choose both experts."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_pairs

    top_k_L = np.array([facts.top_k for facts in trace.layer_facts], dtype=np.int64)
    total = np.zeros((trace.n_layers, trace.n_experts, trace.n_experts), np.int64)

    def of_chunk(chunk: Chunk) -> np.ndarray:
        blocks = frozen(np.zeros(chunk.n_tokens, np.int32))
        pairs: np.ndarray = count_pairs(frozen(chunk.experts), blocks, top_k_L, 0, 1, trace.n_experts)[0]  # type: ignore[arg-type]
        return pairs[0]

    for pairs in mapped_chunks(trace, of_chunk):
        total += pairs
    return total + total.transpose(0, 2, 1)
