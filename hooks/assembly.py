"""From parcels to one batch of token rows: padding dropped, stacks and devices joined, bad numbers found.

T token, L layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hooks.ledger import HostStackPass, RowLedger, TokenRows
from hooks.packing import Lane
from hooks.passes import Pass
from hooks.prompt_ledger import PromptLedger
from routing import LayerFacts, RecordingError

__all__ = ["RowBatch", "assembled"]


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """Token rows of one delivery.

    Attributes:
        columns: prompt, position, token_id, phase, stack, nll: one value a row.
        arrays: experts, and scores, weights, dropped, logits where they are kept: (T, L, …).
        carried: what else came with the rows, by name: float32, NaN where it did not come.
    """

    columns: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    carried: dict[str, np.ndarray]


def assembled(
    passes: Sequence[Pass],
    *,
    notes: Mapping[tuple[int, str, str], np.ndarray],
    lanes: Mapping[Lane, dict[str, np.ndarray]],
    ledger: RowLedger | PromptLedger,
    layer_facts: Sequence[LayerFacts],
    stacks: Sequence[str],
    name_of_prompt: Callable[[int], str],
) -> RowBatch | None:
    """The token rows of some passes, stack after stack; None if there is not one.

    Args:
        passes: the passes, in order.
        notes: their ids, masks, positions and nll by (pass, stack, name).
        lanes: arrays of every lane.
        ledger: follows the texts.
        layer_facts: one a layer.
        stacks: names of the stacks in the order of their codes.
        name_of_prompt: id of a prompt, for messages.

    Raises:
        RecordingError: a router gave a number that is not finite, or a batch does not fit its labels.
    """
    rows: dict[str, list[TokenRows]] = {stack: [] for stack in stacks}
    kept: dict[str, list[np.ndarray]] = {stack: [] for stack in stacks}
    whole = dict.fromkeys(stacks, True)
    begin = dict.fromkeys(stacks, 0)
    for number, one in enumerate(passes):
        for stack, seen in one.stacks.items():
            host = HostStackPass(
                stack=stack,
                n_batch=seen.n_batch,
                n_columns=seen.n_columns,
                past=seen.past,
                cache=seen.cache,
                **{name: notes.get((number, stack, name)) for name in ("ids", "mask", "positions")},
                nll=_floats(notes.get((number, stack, "nll"))),
            )
            found = ledger.rows(host, labels=one.labels, generation=one.generation)
            rows[stack].append(found)
            n_here = seen.n_batch * seen.n_columns
            kept[stack].append(begin[stack] + (np.arange(n_here) if found.kept is None else found.kept))
            whole[stack] &= found.kept is None
            begin[stack] += n_here
    picked = {stack: None if whole[stack] else np.concatenate(kept[stack]) for stack in stacks if kept[stack]}
    columns = _columns(rows, stacks)
    if not len(columns["prompt"]):
        return None
    arrays = _joined(lanes, picked, rows, n_layers=len(layer_facts))
    finite_TL = arrays.pop("finite")
    if not finite_TL.all():
        row, layer = (int(each) for each in np.argwhere(~finite_TL)[0])
        facts = layer_facts[layer]
        msg = (
            f"The router of {facts.label} ({facts.router_class} at {facts.module}) gave a number that is not finite "
            f"for token {int(columns['position'][row])} of prompt {name_of_prompt(int(columns['prompt'][row]))!r}. "
            "Look for NaN in the checkpoint's weights or overflow in float16 (logits='float32' keeps larger "
            "logits); what was committed before can be opened."
        )
        raise RecordingError(msg)
    return RowBatch(columns=columns, arrays=arrays, carried=_carried(passes, notes, rows, stacks=stacks))


def _floats(bits: np.ndarray | None) -> np.ndarray | None:
    return None if bits is None else np.ascontiguousarray(bits).view(np.float32)


def _carried(
    passes: Sequence[Pass],
    notes: Mapping[tuple[int, str, str], np.ndarray],
    rows: Mapping[str, Sequence[TokenRows]],
    *,
    stacks: Sequence[str],
) -> dict[str, np.ndarray]:
    tails = {
        name: notes[number, stack, name].shape[1:]
        for number, one in enumerate(passes)
        for stack, seen in one.stacks.items()
        for name in seen.carried
    }
    found: dict[str, np.ndarray] = {}
    for name, tail in tails.items():
        parts = []
        for stack in stacks:
            ran = [number for number, one in enumerate(passes) if stack in one.stacks]
            for number, kept in zip(ran, rows[stack], strict=True):
                value = _floats(notes.get((number, stack, name)))
                if value is None:
                    value = np.full((len(kept.prompt), *tail), np.nan, np.float32)
                elif kept.kept is not None:
                    value = value[kept.kept]
                parts.append(value)
        found[name] = np.concatenate(parts)
    return found


def _columns(rows: Mapping[str, Sequence[TokenRows]], stacks: Sequence[str]) -> dict[str, np.ndarray]:
    flat = [(code, each) for code, stack in enumerate(stacks) for each in rows[stack]]
    columns: dict[str, np.ndarray] = {}
    for name, dtype in (
        ("prompt", np.int32),
        ("position", np.int32),
        ("token_id", np.int32),
        ("phase", np.uint8),
        ("nll", np.float32),
    ):
        parts = [getattr(each, name) for _, each in flat]
        columns[name] = np.concatenate(parts) if parts else np.zeros(0, dtype)
    codes = [np.full(len(each.prompt), code, np.uint8) for code, each in flat]
    columns["stack"] = np.concatenate(codes) if codes else np.zeros(0, np.uint8)
    return columns


def _joined(
    lanes: Mapping[Lane, dict[str, np.ndarray]],
    picked: Mapping[str, np.ndarray | None],
    rows: Mapping[str, Sequence[TokenRows]],
    *,
    n_layers: int,
) -> dict[str, np.ndarray]:
    """Arrays over all rows and layers; a view of the parcel where one lane holds everything."""
    taken: list[tuple[Lane, dict[str, np.ndarray]]] = []
    for lane, arrays in lanes.items():
        if lane.stack in picked:
            index = picked[lane.stack]
            taken.append(
                (lane, arrays if index is None else {name: array.take(index, axis=0) for name, array in arrays.items()})
            )
    if len(taken) == 1 and len(taken[0][0].layers) == n_layers:
        return taken[0][1]
    begins: dict[str, tuple[int, int]] = {}
    n_rows = 0
    for stack, parts in rows.items():
        size = sum(len(part.prompt) for part in parts)
        begins[stack] = (n_rows, n_rows + size)
        n_rows += size
    joined: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for arrays in lanes.values() for name in arrays):
        like = [arrays[name] for arrays in lanes.values()]
        tail = like[0].shape[2:] and (max(each.shape[2] for each in like),)
        whole = np.full((n_rows, n_layers, *tail), _blank(name, like[0].dtype), like[0].dtype)
        for lane, arrays in taken:
            first, last = begins[lane.stack]
            source = arrays[name]
            target = whole[first:last]
            for place, layer in enumerate(lane.layers):
                target[:, layer, ...][(slice(None), *(slice(0, size) for size in source.shape[2:]))] = source[:, place]
        joined[name] = whole
    return joined


def _blank(name: str, dtype: np.dtype[Any]) -> Any:
    if name == "experts":
        return np.iinfo(dtype).max
    if name in ("finite", "dropped"):
        return name == "finite"
    # bfloat16 travels as its bits.
    return 0x7FC0 if dtype == np.uint16 else np.nan
