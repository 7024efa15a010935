"""What a placement does to devices and nodes, pass by pass: the measures of `placement_study`.

Legend: P prompt, B batch, G pass, L layer, E expert, D device, N node, R resampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.passes import Passes
from analysis.placements import Placement
from analysis.scan import count_table, keyed_blocks, mapped_chunks
from routing.chunks import Chunk
from routing.trace import RoutingTrace

__all__ = ["ENDS", "MEASURES", "device_loads", "draws_of_batches", "judged"]

_EPSILON = 1e-5
MEASURES = {
    "device_max_over_mean": "ratio",
    "balancedness_sglang": "share",
    "balancedness_vllm": "share",
    "slowdown_bound": "ratio",
    "worst_pass": "ratio",
    "nodes_per_token": "nodes",
    "leaving_share": "share of assignments",
    "sends_per_token": "nodes",
    "saved_time": "share of the linear slowdown bound",
    "saved_sends": "share of the linear sends",
}
_SAVED = {"saved_time": "slowdown_bound", "saved_sends": "sends_per_token"}
ENDS = tuple(f"{name}{end}" for name in MEASURES for end in ("_low", "_high"))
_RATIOS = tuple(name for name in MEASURES if name != "worst_pass" and name not in _SAVED)


def draws_of_batches(n_batches: int, n_bootstrap: int, *, rng: np.random.Generator) -> np.ndarray | None:
    """(R, B) how often each batch is drawn; None where there is nothing to draw."""
    if not n_bootstrap or n_batches < 2:
        return None
    drawn: np.ndarray = rng.multinomial(n_batches, np.full(n_batches, 1 / n_batches), n_bootstrap)
    return drawn


def judged(
    half: RoutingTrace, placements: Sequence[Placement], passes: Passes, *, draws_RB: np.ndarray | None
) -> list[dict[str, float]]:
    """The measures of each placement with their intervals; the first one is what savings are against."""
    batch_G = passes.table["batch"].to_numpy()
    loads, tokens_GL = _pass_loads(half, placements, passes)
    traffic = _traffic(half, placements, passes, tokens_GL=tokens_GL)
    rows, drawn = [], []
    for (max_GL, mean_GL), traffic_BX in zip(loads, traffic, strict=True):
        sums_GX = _pass_sums(max_GL, mean_GL)
        sums_BX = np.zeros((passes.n_batches, sums_GX.shape[1]))
        np.add.at(sums_BX, batch_G, sums_GX)
        sums_BX = np.hstack([sums_BX, traffic_BX])
        found = dict(zip(_RATIOS, _ratios(sums_BX.sum(axis=0)), strict=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            by_pass = sums_GX[:, 0] / sums_GX[:, 1]
        found["worst_pass"] = float(np.nanmax(by_pass)) if np.isfinite(by_pass).any() else float("nan")
        rows.append(found)
        values_RX = np.array([_ratios(each) for each in draws_RB @ sums_BX]) if draws_RB is not None else None
        drawn.append({} if values_RX is None else dict(zip(_RATIOS, values_RX.T, strict=True)))
    for found, values in zip(rows, drawn, strict=True):
        for name, of in _SAVED.items():
            found[name] = 1 - found[of] / rows[0][of] if rows[0][of] else float("nan")
            if values:
                with np.errstate(invalid="ignore", divide="ignore"):
                    values[name] = 1 - values[of] / drawn[0][of]
        found |= dict.fromkeys(ENDS, float("nan"))
        for name, each in values.items():
            if np.isfinite(each).any():
                found[f"{name}_low"], found[f"{name}_high"] = np.nanquantile(each, [0.025, 0.975]).tolist()
    return rows


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


def _pass_loads(
    half: RoutingTrace, placements: Sequence[Placement], passes: Passes
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Of each placement (G, L) largest and mean load of a device, in assignments; and (G, L) routed tokens."""
    shares = [placement.shares(n_experts=half.n_experts) for placement in placements]
    shape = (len(passes.table), half.n_layers)
    found = [(np.zeros(shape), np.zeros(shape)) for _ in placements]
    tokens_GL = np.zeros(shape, np.int64)
    # One count serves all placements: it is the count that takes time.
    for layers, table in keyed_blocks(half, passes.key, n_groups=len(passes.table)):
        tokens_GL[:, layers] = table.tokens_GL
        for number in range(table.tokens_GL.shape[1]):
            counts_GE = table.assignments_GLE[:, number].astype(float)
            for share_LED, (max_GL, mean_GL) in zip(shares, found, strict=True):
                load_GD = counts_GE @ share_LED[layers.start + number]
                max_GL[:, layers.start + number] = load_GD.max(axis=1)
                mean_GL[:, layers.start + number] = load_GD.mean(axis=1)
    return found, tokens_GL


def device_loads(half: RoutingTrace, placements: Mapping[str, Placement]) -> dict[str, np.ndarray]:
    """(L, D) share of each layer's assignments, under each placement."""
    counts_LE = count_table(half).assignments_GLE[0].astype(float)
    found = {}
    for name, placement in placements.items():
        load_LD = np.einsum("le,led->ld", counts_LE, placement.shares(n_experts=half.n_experts))
        total_L = load_LD.sum(axis=1, keepdims=True)
        found[name] = load_LD / np.where(total_L > 0, total_L, np.nan)
    return found


def _traffic(
    half: RoutingTrace, placements: Sequence[Placement], passes: Passes, *, tokens_GL: np.ndarray
) -> list[np.ndarray]:
    """Of each placement (B, 5) tokens times layers, distinct nodes, pairs that leave, other nodes, and pairs."""
    top_k_L = np.array([facts.top_k for facts in half.layer_facts], dtype=np.int64)
    if all(placement.n_nodes == 1 for placement in placements):
        tokens_BL = np.zeros((passes.n_batches, half.n_layers))
        np.add.at(tokens_BL, passes.table["batch"].to_numpy(), tokens_GL)
        tokens_B, none_B = tokens_BL.sum(axis=1), np.zeros(passes.n_batches)
        at_home_BX = np.stack([tokens_B, tokens_B, none_B, none_B, (tokens_BL * top_k_L).sum(axis=1)], axis=1)
        return [at_home_BX] * len(placements)
    # Compiling costs a second, so it is not paid by who only imports this room.
    from analysis.kernels import frozen
    from analysis.structure_kernels import count_nodes

    # The prompts of a batch are dealt to devices in turn.
    place_P = np.zeros(half.n_prompts, dtype=np.int64)
    for batch in range(passes.n_batches):
        mine = np.flatnonzero(passes.batch_P == batch)
        place_P[mine] = np.arange(len(mine))
    homes = [place_P % each.n_devices // (each.n_devices // each.n_nodes) for each in placements]
    nodes = [_nodes_of_experts(each, n_experts=half.n_experts) for each in placements]

    def of_chunk(chunk: Chunk) -> list[np.ndarray]:
        assert chunk.experts is not None
        experts, batch = frozen(chunk.experts), passes.batch_P[chunk.prompt]
        return [
            count_nodes(
                experts,
                batch,
                home_P[chunk.prompt],
                top_k_L,
                nodes_LEV,
                n_replicas_LE,
                passes.n_batches,
                placement.n_nodes,
            )
            for placement, home_P, (nodes_LEV, n_replicas_LE) in zip(placements, homes, nodes, strict=True)
        ]

    totals = [np.zeros((passes.n_batches, half.n_layers, 4), np.int64) for _ in placements]
    for parts in mapped_chunks(half, of_chunk):
        for total_BL4, part in zip(totals, parts, strict=True):
            total_BL4 += part
    return [
        np.hstack([each.sum(axis=1), (each[:, :, 0] * top_k_L).sum(axis=1)[:, None]]).astype(float) for each in totals
    ]


def _nodes_of_experts(placement: Placement, *, n_experts: int) -> tuple[np.ndarray, np.ndarray]:
    """(L, E, N) the distinct nodes that hold a replica, first ones first, and (L, E) how many there are."""
    share_LED = placement.shares(n_experts=n_experts)
    shape = (*share_LED.shape[:2], placement.n_nodes, placement.n_devices // placement.n_nodes)
    holds_LEN = (share_LED.reshape(shape) > 0).any(axis=3)
    nodes_LEV = np.argsort(~holds_LEN, axis=2, kind="stable")
    return nodes_LEV.astype(np.int64), np.maximum(holds_LEN.sum(axis=2), 1).astype(np.int64)
