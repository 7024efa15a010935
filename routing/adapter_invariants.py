"""What is true of the adapters and vectors of every trace.

Letters: T token, S site, K selected rank.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from routing.adapters import MISSING_ADAPTER, Adapters, selected_set_key
from routing.chunks import ADAPTER_ARRAYS, Chunk
from routing.trace import RoutingTrace

__all__ = ["of_adapter_rows", "of_adapter_table"]

N_ADAPTERS_A_CHECK = 256


def of_adapter_table(trace: RoutingTrace) -> Iterator[str]:
    """What is wrong with the dictionary of adapters and with the vectors, one sentence a finding.

    Checked: labels of sites and pairs of site and key are unique; every adapter's site is known; parameters and what
    they were made from are numbers; vectors are finite or NaN.
    """
    for name, table in trace.vectors.items():
        if table.dtype.kind == "f" and np.isinf(table.values).any():
            yield f"The vectors {name!r} hold infinite numbers."
    held = trace.adapters
    if held is None:
        return
    labels = [site.label for site in held.sites]
    if len(set(labels)) != len(labels):
        yield f"Labels of adapter sites are not unique: {labels}."
    if unknown := sorted(set(held.keys["site"]) - set(labels)):
        yield f"Adapters are of the sites {unknown}, which are not among {labels}."
        return
    if (twice := held.keys.duplicated().to_numpy()).any():
        row = held.keys.iloc[int(np.argmax(twice))]
        yield f"The adapter {row['key']!r} of {row['site']} is there twice."
    size = {site.label: held.parameters.shape[1] if held.projected else site.n_parameters for site in held.sites}
    sizes = held.keys["site"].map(size).to_numpy(dtype=np.int64)
    for start in range(0, len(held), N_ADAPTERS_A_CHECK):
        part = held.parameter_rows.read(start, min(start + N_ADAPTERS_A_CHECK, len(held)))
        there = np.arange(part.shape[1]) < sizes[start : start + len(part), None]
        if (bad := (there & ~np.isfinite(part)).any(axis=1)).any():
            yield f"Adapter {start + int(np.argmax(bad))}: a parameter is not finite."
    for name, rows in held.conditioning_rows.items():
        if np.isinf(rows.read(0, len(held))).any():
            yield f"What adapters were made from ({name}) holds infinite numbers."


def of_adapter_rows(trace: RoutingTrace, *, n_tokens: int) -> Iterator[str]:
    """What is wrong with the rows that name adapters, one sentence a finding.

    Checked: indices are in range and of their site; ratios are finite and not negative where there is an adapter, and
    absent where there is none; an adapter made from the selected experts has just those of its row as key.
    """
    held = trace.adapters
    if held is None or trace.storage.rows("adapter_index") is None or trace.n_tokens == 0:
        return
    number_of = {site.label: number for number, site in enumerate(held.sites)}
    if not held.keys["site"].isin(list(number_of)).all():
        return  # said of the dictionary already
    top_k = max(trace.top_k, 1)
    sets_AK = _sets_of(held)
    sets_AK = np.pad(sets_AK, ((0, 0), (0, max(0, top_k - sets_AK.shape[1]))), constant_values=-1)
    site_of = held.keys["site"].map(number_of).to_numpy(np.int64)
    for chunk in trace.chunks(fields=("experts", *ADAPTER_ARRAYS), n_tokens=n_tokens):
        index_TS = chunk.adapter_index
        assert index_TS is not None
        if (index_TS >= len(held)).any() or (index_TS < MISSING_ADAPTER).any():
            yield f"Tokens {chunk.start} to {chunk.stop} name adapters outside the table of {len(held)}."
            return
        for number, site in enumerate(held.sites):
            used_T, place = index_TS[:, number], f"{site.label}, token {chunk.start}"
            there_T = used_T >= 0
            if there_T.any() and (bad := there_T & (site_of[used_T] != number)).any():
                yield f"{place} + {int(np.argmax(bad))}: the adapter is one of another site."
            if chunk.adapter_ratio is not None:
                ratio_T = chunk.adapter_ratio[:, number]
                if (bad := there_T & ~((ratio_T >= 0) | np.isnan(ratio_T)) | np.isinf(ratio_T)).any():
                    yield f"{place} + {int(np.argmax(bad))}: the adapter's ratio is negative or infinite."
                if (bad := (used_T == -1) & ~np.isnan(ratio_T)).any():
                    yield f"{place} + {int(np.argmax(bad))}: a ratio, but no adapter."
            if site.made_from == "selected_set" and site.label in trace.layers and len(held):
                yield from _of_sets(trace, chunk, number, label=site.label, sets_AK=sets_AK)


def _of_sets(trace: RoutingTrace, chunk: Chunk, number: int, *, label: str, sets_AK: np.ndarray) -> Iterator[str]:
    layer = trace.layers.index(label)
    assert chunk.experts is not None
    assert chunk.adapter_index is not None
    top_k = trace.layer_facts[layer].top_k
    chosen_TK = np.sort(chunk.experts[:, layer, :top_k], axis=1)
    used_T = chunk.adapter_index[:, number]
    # A set of another size has a number where this layer's has none, or none where it has one.
    expected_TK = sets_AK[np.maximum(used_T, 0)]
    differs_T = (expected_TK[:, :top_k] != chosen_TK).any(axis=1) | (expected_TK[:, top_k:] >= 0).any(axis=1)
    if (bad := (used_T >= 0) & differs_T).any():
        row = int(np.argmax(bad))
        made_of = selected_set_key(expected_TK[row][expected_TK[row] >= 0])
        yield (
            f"{label}, token {chunk.start + row}: an adapter made from the experts {made_of or '(none)'} "
            f"was used where {selected_set_key(chosen_TK[row])} were selected."
        )


def _sets_of(held: Adapters) -> np.ndarray:
    """(A, K) experts that each adapter's key names, ascending; −1 beyond, and for keys that name none."""
    sets = [[int(each) for each in key.split() if each.isdecimal()] for key in held.keys["key"]]
    found = np.full((len(sets), max((len(each) for each in sets), default=0)), -1, dtype=np.int64)
    for number, each in enumerate(sets):
        found[number, : len(each)] = sorted(each)
    return found
