"""Traces made from arrays in memory: for tests, importers and small studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from routing.adapters import ABSENT_ADAPTER, Adapters
from routing.chunks import PHASES
from routing.errors import TraceError
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.rows import MemoryRows
from routing.storage import COLUMN_TYPES, Level, MemoryStorage, Unit, id_dtype, with_prompt_columns
from routing.trace import RoutingTrace

__all__ = ["trace_from_arrays", "trace_from_counts"]


def trace_from_arrays(
    experts: np.ndarray,
    *,
    layer_facts: Sequence[LayerFacts],
    scores: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    dropped: np.ndarray | None = None,
    logits: np.ndarray | None = None,
    tokens: pd.DataFrame | None = None,
    prompts: pd.DataFrame | None = None,
    vocabulary: Mapping[int, str] | None = None,
    provenance: Provenance | None = None,
    unit: Unit = "token",
    adapters: Adapters | None = None,
    adapter_index: np.ndarray | None = None,
    adapter_ratio: np.ndarray | None = None,
    vectors: Mapping[str, xr.DataArray] | None = None,
    checked: bool = True,
) -> RoutingTrace:
    """A trace in memory.

    Args:
        experts: (token, layer, rank) ids; negative or the type's largest value where absent.
        layer_facts: one a layer.
        scores: (token, layer, rank), NaN where absent.
        weights: (token, layer, rank < top_k), NaN where absent.
        dropped: (token, layer, rank < top_k), or None.
        logits: (token, layer, expert), or None.
        tokens: any of prompt, position, token_id, phase, stack, nll; what is missing is filled in.
        prompts: any of the prompt columns; `prompt` (the id) is required.
        vocabulary: piece of each token id.
        provenance: how the trace came to be.
        unit: what a row is.
        adapters: the distinct adapters, as `routing.adapters_of` makes them.
        adapter_index: (token, site), row of the adapters' table; negative where none; all so if left out.
        adapter_ratio: (token, site), NaN where none; all so if left out.
        vectors: labelled tables by name.
        checked: whether the invariants are checked.

    Raises:
        TraceError: the parts do not fit, or break an invariant.
    """
    facts = tuple(layer_facts)
    experts = np.asarray(experts)
    if experts.ndim != 3 or experts.shape[1] != len(facts):
        msg = (
            f"The experts have shape {experts.shape}, but {len(facts)} layers want (token, layer, rank). "
            "Reshape the array, or give one LayerFacts a layer."
        )
        raise TraceError(msg)
    n_tokens = len(experts)
    arrays = {"experts": _compact_ids(experts, n_experts=max(each.n_experts for each in facts))}
    half = np.dtype(np.float16)
    for name, values, dtype in (
        ("scores", scores, half),
        ("weights", weights, half),
        ("dropped", dropped, np.dtype(bool)),
        ("logits", logits, np.dtype(np.float32)),
    ):
        if values is None:
            continue
        values = np.asarray(values)
        if values.ndim != 3 or values.shape[:2] != experts.shape[:2]:
            msg = (
                f"The {name} have shape {values.shape}, but the experts have {experts.shape}. "
                "Give both the same tokens and layers."
            )
            raise TraceError(msg)
        keep = name == "logits" and values.dtype in (np.float16, np.float32)
        arrays[name] = values if keep else values.astype(dtype)
    if prompts is None:
        prompts = pd.DataFrame({"prompt": ["prompt-0"]})
    arrays |= _adapter_arrays(adapters, adapter_index, adapter_ratio, n_tokens=n_tokens)
    arrays |= _token_columns(tokens, n_tokens=n_tokens, stacks=stacks_of(facts))
    pieces = None
    if vocabulary is not None:
        index = pd.Index(list(vocabulary), name="token_id", dtype="int64")
        pieces = pd.Series(list(vocabulary.values()), index=index, name="piece", dtype="str")
    level: Level = "assignments" if logits is None else "full"
    storage = MemoryStorage(
        arrays={name: MemoryRows(array) for name, array in arrays.items()},
        prompt_table=with_prompt_columns(prompts),
        layer_facts=facts,
        n_ranks=experts.shape[2],
        n_tokens=n_tokens,
        level=level,
        unit=unit,
        provenance=provenance or Provenance(n_tokens=n_tokens, complete=True),
        pieces=pieces,
        adapter_table=adapters,
        vector_tables=dict(vectors or {}),
    )
    trace = RoutingTrace(storage)
    if checked:
        from routing.invariants import check_invariants

        check_invariants(trace)
    return trace


def trace_from_counts(
    counts: np.ndarray,
    *,
    layer_facts: Sequence[LayerFacts],
    tasks: Sequence[str],
    n_tokens: int,
    prompts: pd.DataFrame | None = None,
    provenance: Provenance | None = None,
) -> RoutingTrace:
    """A trace of level "counts" in memory.

    Args:
        counts: (task, layer, expert), assignments.
        layer_facts: one a layer.
        tasks: names along the first axis.
        n_tokens: tokens that were counted.
        prompts: the prompt table; one row a task if left out.
        provenance: how the trace came to be.
    """
    facts = tuple(layer_facts)
    if prompts is None:
        prompts = pd.DataFrame({"prompt": [f"{task}-0" for task in tasks], "task": list(tasks)})
    coords = {
        "task": list(tasks),
        "layer": [each.label for each in facts],
        "expert": np.arange(counts.shape[2]),
    }
    table = xr.DataArray(counts.astype(np.int64), dims=("task", "layer", "expert"), coords=coords)
    storage = MemoryStorage(
        arrays={},
        prompt_table=with_prompt_columns(prompts),
        layer_facts=facts,
        n_ranks=max(each.top_k for each in facts),
        n_tokens=n_tokens,
        level="counts",
        provenance=provenance or Provenance(n_tokens=n_tokens, complete=True),
        count_table=table,
    )
    return RoutingTrace(storage)


def _adapter_arrays(
    adapters: Adapters | None, index: np.ndarray | None, ratio: np.ndarray | None, *, n_tokens: int
) -> dict[str, np.ndarray]:
    """The arrays over sites in their types; none where there are no adapters."""
    if adapters is None:
        if index is not None or ratio is not None:
            msg = "There are rows of an adapter index or ratio, but no adapters. Give the adapters, too."
            raise TraceError(msg)
        return {}
    shape = (n_tokens, len(adapters.sites))
    filled: dict[str, np.ndarray] = {
        "adapter_index": np.full(shape, ABSENT_ADAPTER, np.int32) if index is None else np.asarray(index, np.int32),
        "adapter_ratio": np.full(shape, np.nan, np.float16) if ratio is None else np.asarray(ratio, np.float16),
    }
    for name, values in filled.items():
        if values.shape != shape:
            msg = f"The {name} has shape {values.shape}, but rows and sites want {shape}. Give both the same rows."
            raise TraceError(msg)
    return filled


def _compact_ids(experts: np.ndarray, *, n_experts: int) -> np.ndarray:
    """The ids in the smallest type, absence as that type's largest value."""
    dtype = id_dtype(n_experts)
    absent = experts < 0
    if experts.dtype.kind == "u":
        absent = experts == np.iinfo(experts.dtype).max
    if (wrong := experts[~absent & (experts >= n_experts)]).size:
        msg = (
            f"The experts hold the id {int(wrong[0])}, but the largest layer has {n_experts} experts. "
            "Correct the ids or n_experts of the layer facts."
        )
        raise TraceError(msg)
    return np.where(absent, np.iinfo(dtype).max, experts).astype(dtype)


def _token_columns(tokens: pd.DataFrame | None, *, n_tokens: int, stacks: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The token columns as codes and numbers, with what is missing filled in."""
    table = pd.DataFrame(index=pd.RangeIndex(n_tokens)) if tokens is None else tokens.reset_index(drop=True)
    if len(table) != n_tokens:
        msg = f"The token table has {len(table)} rows, but the experts have {n_tokens}. Give one row a token."
        raise TraceError(msg)
    filled: dict[str, np.ndarray] = {}
    filled["prompt"] = table["prompt"].to_numpy() if "prompt" in table else np.zeros(n_tokens)
    if "position" in table:
        filled["position"] = table["position"].to_numpy()
    else:
        filled["position"] = pd.Series(filled["prompt"]).groupby(filled["prompt"]).cumcount().to_numpy()
    filled["token_id"] = table["token_id"].to_numpy() if "token_id" in table else np.full(n_tokens, -1)
    filled["phase"] = _codes(table, "phase", PHASES)
    filled["stack"] = _codes(table, "stack", stacks)
    filled["nll"] = table["nll"].to_numpy(dtype=np.float32) if "nll" in table else np.full(n_tokens, np.nan)
    return {name: np.ascontiguousarray(filled[name], dtype=dtype) for name, dtype in COLUMN_TYPES.items()}


def _codes(table: pd.DataFrame, name: str, names: tuple[str, ...]) -> np.ndarray:
    if name not in table:
        return np.zeros(len(table), dtype=np.uint8)
    if table[name].dtype.kind in "iu":
        return table[name].to_numpy()
    number = {each: code for code, each in enumerate(names)}
    codes = table[name].astype(object).map(number)
    if codes.isna().any():
        unknown = sorted({str(each) for each in table[name][codes.isna()]})
        msg = f"The token table's {name} holds {unknown}; known are {list(names)}. Correct the column."
        raise TraceError(msg)
    return codes.to_numpy(dtype=np.uint8)
