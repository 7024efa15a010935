"""What placements are worth: fitted on one half of the prompts, judged on the other.

Legend: P prompt, B batch, G pass, L layer, E expert, D device, N node, R resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from analysis.passes import BatchOrder, Passes, passes_of
from analysis.placements import (
    Placement,
    balanced_placement,
    coactivated_placement,
    linear_placement,
    random_placement,
)
from analysis.rates import draws_of_prompts
from analysis.scan import count_table, keyed_blocks, mapped_chunks, require_tokens
from routing.chunks import Chunk
from routing.errors import SelectionError
from routing.selection import Selection
from routing.trace import RoutingTrace

__all__ = ["PlacementStudy", "placement_what_if", "prompt_halves"]

_EPSILON = 1e-5
_MEASURES = {
    "device_max_over_mean": "ratio",
    "balancedness_sglang": "share",
    "balancedness_vllm": "share",
    "slowdown_bound": "ratio",
    "worst_pass": "ratio",
    "nodes_per_token": "nodes",
    "leaving_share": "share of assignments",
    "sends_per_token": "nodes",
}


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
        (placement, part) · PlacementStudy of the measures · as they say; NaN where nothing was routed.

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
    table, loads = {}, {}
    for part, half in halves.items():
        passes = passes_of(half, batch_size=batch_size, order=order, seed=seed)
        draws_RB = None
        if part == "judged" and n_bootstrap and passes.n_batches > 1:
            draws_RB = rng.multinomial(passes.n_batches, np.full(passes.n_batches, 1 / passes.n_batches), n_bootstrap)
        for name, placement in placements.items():
            table[name, part] = _judged(half, placement, passes, draws_RB=draws_RB)
            if part == "judged":
                loads[name] = _device_load(half, placement)
        if lots:
            drawn = pd.DataFrame([_judged(half, each, passes, draws_RB=None) for each in lots])
            table["random", part] = drawn.mean().to_dict()
            if part == "judged":
                loads["random"] = _device_load(half, lots[0])
    frame = pd.DataFrame(list(table.values()), index=pd.MultiIndex.from_tuples(table, names=["placement", "part"]))
    frame = frame[[f"{name}{end}" for name in _MEASURES for end in ("", "_low", "_high")]]
    frame.attrs["unit"] = {f"{name}{end}": unit for name, unit in _MEASURES.items() for end in ("", "_low", "_high")}
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


def _judged(
    half: RoutingTrace, placement: Placement, passes: Passes, *, draws_RB: np.ndarray | None
) -> dict[str, float]:
    max_GL, mean_GL = _pass_loads(half, placement, passes)
    sums_GX = _pass_sums(max_GL, mean_GL)
    batch_G = passes.table["batch"].to_numpy()
    sums_BX = np.zeros((passes.n_batches, sums_GX.shape[1]))
    np.add.at(sums_BX, batch_G, sums_GX)
    sums_BX = np.hstack([sums_BX, _traffic(half, placement, passes)])
    found = dict(zip(_RATIOS, _ratios(sums_BX.sum(axis=0)), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_pass = sums_GX[:, 0] / sums_GX[:, 1]
    found["worst_pass"] = float(np.nanmax(by_pass)) if np.isfinite(by_pass).any() else float("nan")
    for name in _MEASURES:
        found[f"{name}_low"] = found[f"{name}_high"] = float("nan")
    if draws_RB is not None:
        drawn = np.array([_ratios(each) for each in draws_RB @ sums_BX])
        for name, values in zip(_RATIOS, drawn.T, strict=True):
            if np.isfinite(values).any():
                found[f"{name}_low"], found[f"{name}_high"] = np.nanquantile(values, [0.025, 0.975]).tolist()
    return found


_RATIOS = tuple(name for name in _MEASURES if name != "worst_pass")


def _pass_sums(max_GL: np.ndarray, mean_GL: np.ndarray) -> np.ndarray:
    """Of each pass, sums over layers from which the measures are made: every measure is a ratio of two sums."""
    some_GL = mean_GL > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        factor_G = np.where(some_GL, max_GL / mean_GL, 0.0).sum(axis=1)
        even_G = np.where(some_GL, (mean_GL + _EPSILON) / (max_GL + _EPSILON), 0.0).sum(axis=1)
        n_G = some_GL.sum(axis=1).astype(float)
        max_G, mean_G = np.where(some_GL, max_GL, 0).sum(axis=1), np.where(some_GL, mean_GL, 0).sum(axis=1)
        by_layer_G = np.where(n_G > 0, even_G / n_G, 0.0)
        by_sum_G = np.where(n_G > 0, mean_G / max_G, 0.0)
    return np.stack([factor_G, n_G, by_layer_G, by_sum_G, (n_G > 0).astype(float), max_G, mean_G], axis=1)


def _ratios(sums: np.ndarray) -> list[float]:
    """The measures, in the order of `_RATIOS`, from the sums of `_pass_sums` and `_traffic`."""
    factor, n, by_layer, by_sum, n_passes, largest, mean, tokens, nodes, leaving, sends, pairs = sums.tolist()
    parts = (
        (factor, n),
        (by_layer, n_passes),
        (by_sum, n_passes),
        (largest, mean),
        (nodes, tokens),
        (leaving, pairs),
        (sends, tokens),
    )
    return [above / below if below else float("nan") for above, below in parts]


def _pass_loads(half: RoutingTrace, placement: Placement, passes: Passes) -> tuple[np.ndarray, np.ndarray]:
    """(G, L) largest and mean load of a device, in assignments."""
    share_LED = placement.shares(n_experts=half.n_experts)
    max_GL, mean_GL = np.zeros((2, len(passes.table), half.n_layers))
    for layers, table in keyed_blocks(half, passes.key, n_groups=len(passes.table)):
        for number in range(table.tokens_GL.shape[1]):
            load_GD = table.assignments_GLE[:, number].astype(float) @ share_LED[layers.start + number]
            max_GL[:, layers.start + number] = load_GD.max(axis=1)
            mean_GL[:, layers.start + number] = load_GD.mean(axis=1)
    return max_GL, mean_GL


def _device_load(half: RoutingTrace, placement: Placement) -> np.ndarray:
    """(L, D) share of each layer's assignments."""
    counts_LE = count_table(half).assignments_GLE[0].astype(float)
    load_LD = np.einsum("le,led->ld", counts_LE, placement.shares(n_experts=half.n_experts))
    total_L = load_LD.sum(axis=1, keepdims=True)
    found: np.ndarray = load_LD / np.where(total_L > 0, total_L, np.nan)
    return found


def _traffic(half: RoutingTrace, placement: Placement, passes: Passes) -> np.ndarray:
    """(B, 5) tokens times layers, distinct nodes, pairs that leave, other nodes, and pairs, of each batch."""
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_nodes

    nodes_LEV, n_replicas_LE = _nodes_of_experts(placement, n_experts=half.n_experts)
    top_k_L = np.array([facts.top_k for facts in half.layer_facts], dtype=np.int64)
    # The prompts of a batch are dealt to devices in turn.
    place_P = np.zeros(half.n_prompts, dtype=np.int64)
    for batch in range(passes.n_batches):
        mine = np.flatnonzero(passes.batch_P == batch)
        place_P[mine] = np.arange(len(mine))
    home_P = place_P % placement.n_devices // (placement.n_devices // placement.n_nodes)

    def of_chunk(chunk: Chunk) -> np.ndarray:
        assert chunk.experts is not None
        found: np.ndarray = count_nodes(
            frozen(chunk.experts),
            passes.batch_P[chunk.prompt],
            home_P[chunk.prompt],
            top_k_L,
            nodes_LEV,
            n_replicas_LE,
            passes.n_batches,
            placement.n_nodes,
        )
        return found

    total_BL4 = np.zeros((passes.n_batches, half.n_layers, 4), np.int64)
    for part in mapped_chunks(half, of_chunk):
        total_BL4 += part
    pairs_B = (total_BL4[:, :, 0] * top_k_L).sum(axis=1)
    return np.hstack([total_BL4.sum(axis=1), pairs_B[:, None]]).astype(float)


def _nodes_of_experts(placement: Placement, *, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(L, E, N) the distinct nodes that hold a replica, first ones first, and (L, E) how many there are."""
    share_LED = placement.shares(n_experts=n_experts)
    shape = (*share_LED.shape[:2], placement.n_nodes, placement.n_devices // placement.n_nodes)
    holds_LEN = (share_LED.reshape(shape) > 0).any(axis=3)
    nodes_LEV = np.argsort(~holds_LEN, axis=2, kind="stable")
    return nodes_LEV.astype(np.int64), np.maximum(holds_LEN.sum(axis=2), 1).astype(np.int64)
