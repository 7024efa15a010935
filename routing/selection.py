"""Selection: what the user looks at, and the part of a trace that it names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

import numpy as np
import xarray as xr

from routing.adapters import Adapters
from routing.chunks import ADAPTER_ARRAYS, ROUTER_ARRAYS, TOKEN_COLUMNS
from routing.errors import SelectionError
from routing.facts import stacks_of
from routing.rows import PickedRows, Rows
from routing.storage import MemoryStorage
from routing.trace import RoutingTrace

__all__ = ["Focus", "Selection", "expert_name", "selected"]


@dataclass(frozen=True, kw_only=True)
class Focus:
    """The one thing looked at closely: a prompt, or one position of it."""

    prompt: str
    position: int | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the user looks at. Empty means everything.

    Attributes:
        tasks: names of tasks.
        layers: labels of layers.
        experts: (layer label, expert) pairs.
        prompts: ids of prompts.
        focus: the one thing looked at closely.
    """

    tasks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    experts: tuple[tuple[str, int], ...] = ()
    prompts: tuple[str, ...] = ()
    focus: Focus | None = None

    def to_query(self) -> dict[str, str]:
        """This selection as the query part of a URL; empty parts are left out."""
        parts = {
            "tasks": ",".join(quote(task, safe="") for task in self.tasks),
            "layers": ",".join(quote(layer, safe="") for layer in self.layers),
            "experts": ",".join(f"{quote(layer, safe='')}.E{expert}" for layer, expert in self.experts),
            "prompts": ",".join(quote(prompt, safe="") for prompt in self.prompts),
            "focus": "",
        }
        if self.focus is not None:
            place = "" if self.focus.position is None else f"@{self.focus.position}"
            parts["focus"] = quote(self.focus.prompt, safe="") + place
        return {name: text for name, text in parts.items() if text}

    @classmethod
    def from_query(
        cls, query: Mapping[str, str], trace: RoutingTrace, *, missing: Literal["raise", "drop"] = "raise"
    ) -> Selection:
        """The selection that a URL names, checked against a trace.

        Args:
            query: the query part of a URL; other keys are ignored.
            trace: what is looked at.
            missing: what to do with names that the trace does not hold.

        Raises:
            SelectionError: a part cannot be read, or the trace does not hold it and `missing` is "raise".
        """
        parts = {name: [each for each in query.get(name, "").split(",") if each] for name in cls.__annotations__}
        experts = []
        for text in parts["experts"]:
            match = re.fullmatch(r"(.+)[.·]E(\d{1,6})", unquote(text))
            if match:
                experts.append((match[1], int(match[2])))
            elif missing == "raise":
                msg = f"{text!r} names no expert; one is written like L07.E12. Correct the address."
                raise SelectionError(msg)
        focus = None
        if text := query.get("focus", ""):
            prompt, _, place = text.partition("@")
            focus = Focus(prompt=unquote(prompt), position=int(place) if re.fullmatch(r"\d{1,9}", place) else None)
        asked = cls(
            tasks=tuple(unquote(each) for each in parts["tasks"]),
            layers=tuple(unquote(each) for each in parts["layers"]),
            experts=tuple(experts),
            prompts=tuple(unquote(each) for each in parts["prompts"]),
            focus=focus,
        )
        held = asked.held_by(trace)
        if missing == "raise" and held != asked:
            asked.require(trace)
        return held

    def held_by(self, trace: RoutingTrace) -> Selection:
        """The part of this selection that the trace holds."""
        known = set(trace.prompts["prompt"]) if self.prompts or self.focus else set()
        sizes = {facts.label: facts.n_experts for facts in trace.layer_facts}
        return Selection(
            tasks=tuple(task for task in self.tasks if task in trace.task_types),
            layers=tuple(layer for layer in self.layers if layer in sizes),
            experts=tuple((layer, expert) for layer, expert in self.experts if 0 <= expert < sizes.get(layer, 0)),
            prompts=tuple(prompt for prompt in self.prompts if prompt in known),
            focus=self.focus if self.focus is not None and self.focus.prompt in known else None,
        )

    def require(self, trace: RoutingTrace) -> None:
        """Raise if the trace does not hold all of this selection.

        Raises:
            SelectionError: naming the first kind of thing that is missing.
        """
        held = self.held_by(trace)
        kinds = (
            ("task", self.tasks, held.tasks, list(trace.tasks)),
            ("MoE layer", self.layers, held.layers, list(trace.layers)),
            (
                "expert",
                tuple(expert_name(*each) for each in self.experts),
                tuple(expert_name(*each) for each in held.experts),
                f"up to {trace.n_experts} experts in each of {list(trace.layers)}",
            ),
            ("prompt", self.prompts, held.prompts, f"{trace.n_prompts} prompts"),
            ("prompt", (self.focus,) if self.focus else (), (held.focus,) if held.focus else (), "others"),
        )
        for kind, asked, there, offered in kinds:
            if lacking := [each for each in asked if each not in there]:
                named = [each.prompt if isinstance(each, Focus) else each for each in lacking]
                msg = f"This trace has no {kind} {named}; it holds {offered}. Choose among what it holds."
                raise SelectionError(msg)


def expert_name(layer: str, expert: int, *, names: Mapping[str, Sequence[str]] | None = None) -> str:
    """How an expert is printed: L07·E12, or retriever·sentiment where experts have names.

    Args:
        layer: label of the layer.
        expert: number of the expert.
        names: names of the experts of a layer, as in `trace.expert_names`.
    """
    named = (names or {}).get(layer, ())
    return f"{layer}·{named[expert]}" if expert < len(named) else f"{layer}·E{expert}"


def selected(trace: RoutingTrace, selection: Selection) -> RoutingTrace:
    """The part of a trace that a selection's tasks, prompts and layers name; see `RoutingTrace.select`."""
    selection.require(trace)
    if not (selection.tasks or selection.prompts or selection.layers):
        return trace
    prompts = trace.prompts
    keep = np.ones(len(prompts), dtype=bool)
    if selection.tasks:
        keep &= prompts["task"].isin(selection.tasks).to_numpy()
    if selection.prompts:
        keep &= prompts["prompt"].isin(selection.prompts).to_numpy()
    layers = np.array(
        [number for number, label in enumerate(trace.layers) if not selection.layers or label in selection.layers]
    )
    facts = tuple(trace.layer_facts[number] for number in layers)
    rows = _rows_of(trace, keep, stacks_of(facts))
    counts, n_tokens = trace.counts, trace.n_tokens if rows is None else len(rows)
    if counts is not None:
        names = [name for name in counts["task"].values if name in set(prompts["task"][keep])]
        counts = counts.sel(task=names, layer=[each.label for each in facts])
        n_tokens = max(int(counts.sel(layer=each.label).sum()) // each.top_k for each in facts)
    arrays = _picked_arrays(trace, keep=keep, rows=rows, layers=layers)
    adapters, of_sites = _picked_adapters(trace, {each.label for each in facts}, rows=rows)
    asked = hashlib.sha256(repr((trace.digest, sorted(selection.to_query().items()))).encode())
    storage = MemoryStorage(
        arrays=arrays | of_sites,
        prompt_table=prompts[keep].reset_index(drop=True),
        layer_facts=facts,
        n_ranks=trace.n_ranks,
        n_tokens=n_tokens,
        level=trace.level,
        unit=trace.unit,
        provenance=trace.provenance,
        pieces=trace.vocabulary,
        count_table=counts,
        adapter_table=adapters,
        vector_tables=_picked_vectors(trace, prompts["prompt"][keep].tolist(), [each.label for each in facts]),
        given_digest=asked.hexdigest()[:16],
    )
    return RoutingTrace(storage)


def _picked_arrays(
    trace: RoutingTrace, *, keep: np.ndarray, rows: np.ndarray | None, layers: np.ndarray
) -> dict[str, Rows]:
    """The arrays over the kept rows and layers, with prompts and stacks counted anew."""
    facts = [trace.layer_facts[number] for number in layers]
    top_k, stacks = max(each.top_k for each in facts), stacks_of(tuple(facts))
    widths = {"weights": top_k, "dropped": top_k, "logits": max(each.n_experts for each in facts)}
    recodes: dict[str, np.ndarray] = {
        "prompt": np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32),
        "stack": np.array([stacks.index(each) if each in stacks else 255 for each in trace.stacks], dtype=np.uint8),
    }
    arrays: dict[str, Rows] = {}
    for name in (*ROUTER_ARRAYS, *TOKEN_COLUMNS):
        if (base := trace.storage.rows(name)) is None:
            continue
        if name in ROUTER_ARRAYS:
            arrays[name] = PickedRows(base, rows=rows, layers=layers, width=widths.get(name))
        else:
            arrays[name] = PickedRows(base, rows=rows, recode=recodes.get(name))
    return arrays


def _picked_adapters(
    trace: RoutingTrace, labels: set[str], *, rows: np.ndarray | None
) -> tuple[Adapters | None, dict[str, Rows]]:
    """The adapters of kept sites, numbered anew, and the rows that name them.

    A site that bears a layer's label goes with that layer; other sites always stay.
    """
    held = trace.storage.adapters()
    if held is None:
        return None, {}
    gone = set(trace.layers) - labels
    sites = np.array([number for number, site in enumerate(held.sites) if site.label not in gone], dtype=np.int64)
    kept = [held.sites[number] for number in sites]
    stays = held.keys["site"].isin([site.label for site in kept]).to_numpy()
    # The last two entries answer for the negative marks, which count from the end.
    recode = np.append(np.where(stays, np.cumsum(stays) - 1, -1), [-2, -1]).astype(np.int32)
    arrays: dict[str, Rows] = {}
    for name in ADAPTER_ARRAYS:
        if (base := trace.storage.rows(name)) is not None:
            arrays[name] = PickedRows(base, rows=rows, layers=sites, recode=recode if name == "adapter_index" else None)
    return held.picked(np.flatnonzero(stays), kept), arrays


def _picked_vectors(trace: RoutingTrace, prompts: list[str], layers: list[str]) -> dict[str, xr.DataArray]:
    """The vectors of kept prompts and layers."""
    kept = {"prompt": prompts, "layer": layers}
    picked = {}
    for name, table in trace.vectors.items():
        wanted = {
            dim: np.isin(table[dim].values, kept[dim]) for dim in kept if dim in table.dims and dim in table.coords
        }
        picked[name] = table.isel({dim: np.flatnonzero(here) for dim, here in wanted.items()})
    return picked


def _rows_of(trace: RoutingTrace, keep: np.ndarray, stacks: tuple[str, ...]) -> np.ndarray | None:
    """Token rows of the kept prompts and stacks; None where that is all of them."""
    prompt, stack = trace.storage.rows("prompt"), trace.storage.rows("stack")
    kept_stacks = np.isin(np.array(trace.stacks), np.array(stacks))
    if (keep.all() and kept_stacks.all()) or prompt is None or stack is None:
        return None
    step = 1 << 20
    found = [np.zeros(0, dtype=np.int64)]
    for start in range(0, trace.n_tokens, step):
        stop = min(start + step, trace.n_tokens)
        found.append(start + np.flatnonzero(keep[prompt.read(start, stop)] & kept_stacks[stack.read(start, stop)]))
    return np.concatenate(found)
