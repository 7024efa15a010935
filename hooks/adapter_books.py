"""The dictionary of distinct generated adapters: which row used which, and each of them once.

Rows are looked up on the writing thread; adapters are made again from the model, on the recording thread.

T row, S adapter site, P parameter.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.assembly import RowBatch
from hooks.models import model_device
from hooks.sites import Site
from hooks.taps.generated import Generated
from hooks.taps.hyper_moe import HyperMoeTap
from hooks.taps.task_adapters import TaskAdapterTap
from routing import ABSENT_ADAPTER, MISSING_ADAPTER, AdapterSite, RecordingError, selected_set_key

__all__ = ["AdapterBook", "SetBook", "Supply", "TaskBook"]

N_ADAPTERS_A_SITE = 2048
N_ADAPTERS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Supply:
    """Adapters on their way to the writer, in the order of their numbers.

    Attributes:
        keys: site and key of each.
        parameters: (adapter, P) float32.
        conditioning: for each name (adapter, feature) float32.
    """

    keys: list[tuple[str, str]]
    parameters: np.ndarray
    conditioning: dict[str, np.ndarray]


class AdapterBook(ABC):
    """Numbers the distinct adapters of a trace.

    Args:
        sites: where adapters are applied, proven.
        parameters: all that adapters are generated from; they must not change while this is used.
    """

    def __init__(self, sites: Sequence[AdapterSite], parameters: Sequence[Tensor]) -> None:
        self.sites = tuple(sites)
        self._parameters = list(parameters)
        self._versions = [_version(each) for each in self._parameters]
        self._lock = threading.Lock()
        self._numbers: list[dict[Any, int]] = [{} for _ in self.sites]
        self._pending: list[tuple[int, Any]] = []
        self._n = 0
        self._full: set[int] = set()

    @abstractmethod
    def rows(self, batch: RowBatch, *, name_of_prompt: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """Number of the adapter (T, S) int32 and its ratio (T, S) float16 of each row; on the writing thread."""

    @abstractmethod
    def _generated(self, site: int, made_from: list[Any]) -> tuple[list[str], Generated]:
        """Keys and adapters of one site."""

    def supplies(self) -> list[Supply]:
        """The adapters that rows have named since the last call, made again; on the recording thread.

        Raises:
            RecordingError: the weights that make them have changed since the recording began.
        """
        with self._lock:
            pending, self._pending = self._pending, []
        if [_version(each) for each in self._parameters] != self._versions:
            msg = (
                "The weights that generate adapters changed while the model was recorded, so that no dictionary of "
                "adapters can stand for its rows. Record a model that is not being trained, or one trace a snapshot."
            )
            raise RecordingError(msg)
        return [
            self._supply(pending[start : start + N_ADAPTERS_AT_ONCE])
            for start in range(0, len(pending), N_ADAPTERS_AT_ONCE)
        ]

    @property
    def note(self) -> str | None:
        """What a reader must know where the dictionary did not take all, or None."""
        if not self._full:
            return None
        labels = ", ".join(self.sites[each].label for each in sorted(self._full))
        return f"Only the first {N_ADAPTERS_A_SITE} distinct adapters of {labels} were kept."

    def _number(self, site: int, key: Any, made_from: Any) -> int:
        known = self._numbers[site].get(key)
        if known is not None:
            return known
        if len(self._numbers[site]) >= N_ADAPTERS_A_SITE:
            self._full.add(site)
            return MISSING_ADAPTER
        with self._lock:
            number, self._n = self._n, self._n + 1
            self._numbers[site][key] = number
            self._pending.append((site, made_from))
        return number

    def _supply(self, pending: list[tuple[int, Any]]) -> Supply:
        by_site: dict[int, list[int]] = defaultdict(list)
        for place, (site, _) in enumerate(pending):
            by_site[site].append(place)
        keys: list[tuple[str, str]] = [("", "")] * len(pending)
        arrays: dict[str, np.ndarray] = {}
        for site, places in by_site.items():
            names, made = self._generated(site, [pending[place][1] for place in places])
            for name, place in zip(names, places, strict=True):
                keys[place] = (self.sites[site].label, name)
            for name, values in {"": made.parameters, **made.conditioning}.items():
                whole = arrays.setdefault(name, np.full((len(pending), values.shape[1]), np.nan, np.float32))
                whole[places] = values
        return Supply(keys=keys, parameters=arrays.pop(""), conditioning=arrays)


class SetBook(AdapterBook):
    """HyperMoE: one adapter for each layer and set of selected experts.

    Args:
        sites: the proven routers along the layer axis, with their numbers among all routers.
    """

    def __init__(self, sites: Sequence[tuple[int, Site]]) -> None:
        self._taps: list[HyperMoeTap] = []
        self._layers: list[int] = []
        self._names: list[str] = []
        self._top_k: list[int] = []
        found: list[AdapterSite] = []
        parameters: dict[int, Tensor] = {}
        for layer, (number, site) in enumerate(sites):
            if not isinstance(tap := site.tap, HyperMoeTap):
                continue
            part, facts = tap.hyper_expert, site.facts
            heads = part.hypernetwork.heads
            found.append(
                AdapterSite(
                    label=facts.label,
                    number=facts.number,
                    stack=facts.stack,
                    module=facts.module,
                    hidden=heads.hidden,
                    width=heads.width,
                    n_parameters=2 * heads.hidden * heads.width + heads.hidden + heads.width,
                    made_from="selected_set",
                    proof=facts.proof,
                )
            )
            self._taps.append(tap)
            self._layers.append(layer)
            self._top_k.append(facts.top_k)
            self._names.append(f"ratio{number}")
            for each in (*part.parameters(), *part.hypernetwork.parameters()):
                parameters[id(each)] = each
        super().__init__(found, list(parameters.values()))

    def rows(self, batch: RowBatch, *, name_of_prompt: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """The set of each row's selected experts names its adapter."""
        experts = batch.arrays["experts"]
        absent = np.iinfo(experts.dtype).max
        index = np.full((len(experts), len(self.sites)), ABSENT_ADAPTER, np.int32)
        ratio = np.full(index.shape, np.nan, np.float16)
        for site, (layer, k) in enumerate(zip(self._layers, self._top_k, strict=True)):
            chosen = experts[:, layer, :k]
            there = chosen[:, 0] != absent
            sets, which = np.unique(np.sort(chosen[there], axis=1), axis=0, return_inverse=True)
            numbers = [self._number(site, each.tobytes(), [int(e) for e in each]) for each in sets]
            index[there, site] = np.array(numbers, dtype=np.int32)[which.reshape(-1)] if numbers else 0
            if (values := batch.carried.get(self._names[site])) is not None:
                ratio[:, site] = values.clip(max=np.finfo(np.float16).max)
        return index, ratio

    def _generated(self, site: int, made_from: list[Any]) -> tuple[list[str], Generated]:
        tap = self._taps[site]
        sets = torch.tensor(made_from, device=model_device(tap.hyper_expert))
        return [selected_set_key(each) for each in made_from], tap.generated(sets)


class TaskBook(AdapterBook):
    """PHA: one adapter for each decoder layer and task, or prompt where a text's own vector makes it.

    Args:
        taps: the adapted feed-forwards of the decoder.
        tasks: names of the prototypes.
        proof: how they were proven.
    """

    def __init__(self, taps: Sequence[TaskAdapterTap], *, tasks: Sequence[str], proof: str) -> None:
        self._taps = list(taps)
        model = taps[0].owner
        self._tasks, self._by_instance = list(tasks), model.config.adapter_source == "instance"
        heads = model.hypernetwork.heads
        super().__init__(
            [
                AdapterSite(
                    label=f"dec{tap.number:02d}",
                    number=tap.number,
                    stack="decoder",
                    module=tap.path,
                    hidden=heads.hidden,
                    width=heads.width,
                    n_parameters=2 * heads.hidden * heads.width + heads.hidden + heads.width,
                    made_from="instance" if self._by_instance else "task",
                    proof=proof,
                )
                for tap in taps
            ],
            [*model.hypernetwork.parameters(), *model.prototypes.parameters()],
        )
        if not self._by_instance:
            for row, task in enumerate(self._tasks):
                for site in range(len(self.sites)):
                    self._number(site, task, (task, model.prototypes.weight.detach()[row].float().cpu().numpy()))

    def rows(self, batch: RowBatch, *, name_of_prompt: Callable[[int], str]) -> tuple[np.ndarray, np.ndarray]:
        """The prototype that a text ran with names its adapters; a text that ran with another vector names its own."""
        vectors, rows = batch.carried["conditioning"], batch.carried["prototype_row"]
        index = np.full((len(vectors), len(self.sites)), ABSENT_ADAPTER, np.int32)
        for place, (vector, row, prompt) in enumerate(zip(vectors, rows, batch.columns["prompt"], strict=True)):
            if not np.isfinite(vector).all():
                continue
            name = self._tasks[int(row)] if row >= 0 and not self._by_instance else name_of_prompt(int(prompt))
            for site in range(len(self.sites)):
                index[place, site] = self._number(site, name, (name, vector))
        return index, batch.carried["ratio"].clip(max=np.finfo(np.float16).max).astype(np.float16)

    def _generated(self, site: int, made_from: list[Any]) -> tuple[list[str], Generated]:
        tap = self._taps[site]
        like = tap.owner.prototypes.weight
        vectors = torch.from_numpy(np.stack([vector for _, vector in made_from])).to(like)
        return [name for name, _ in made_from], tap.generated(vectors)


def _version(parameter: Tensor) -> int:
    """How often a parameter was written to; tensors made in inference mode cannot be."""
    return 0 if parameter.is_inference() else parameter._version
