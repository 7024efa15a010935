"""RoutingTrace: the record of what the routers did in a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from routing.adapters import Adapters
from routing.chunks import PHASES, TOKEN_COLUMNS, Chunk, iterate_chunks
from routing.facts import LayerFacts, Provenance, stacks_of
from routing.rows import labelled
from routing.storage import Level, Storage, Unit, id_dtype

if TYPE_CHECKING:
    from routing.selection import Selection

__all__ = ["RoutingTrace"]


@dataclass(frozen=True, eq=False, repr=False)
class RoutingTrace:
    """What the routers of a model did, token by token. Frozen, lazy, possibly larger than memory.

    Arrays read only what is indexed; a scan over all tokens goes through `chunks`. In a layer, ranks below
    that layer's own `top_k` are selected, ordered by weight; the ranks after them are runners-up, ordered by
    selection score. What was not routed is absent: `absent` in ids, NaN elsewhere.
    """

    storage: Storage

    @classmethod
    def from_arrays(cls, experts: np.ndarray, **parts: Any) -> RoutingTrace:
        """A trace in memory; the parts are those of `routing.memory.trace_from_arrays`.

        Raises:
            TraceError: the parts do not fit, or break an invariant.
        """
        from routing.memory import trace_from_arrays

        return trace_from_arrays(experts, **parts)

    @property
    def path(self) -> Path | None:
        """Folder of the trace; None in memory."""
        return self.storage.path

    @cached_property
    def digest(self) -> str:
        """Stable name of the content."""
        return self.storage.digest

    @property
    def unit(self) -> Unit:
        """What one row of the token axis is: "token", or "prompt" where a router decides once a prompt."""
        return self.storage.unit

    @property
    def level(self) -> Level:
        """How much was recorded: "full", "assignments" (no logits) or "counts"."""
        return self.storage.level

    @property
    def provenance(self) -> Provenance:
        """How the trace came to be."""
        return self.storage.provenance

    @property
    def layer_facts(self) -> tuple[LayerFacts, ...]:
        """Facts of the routers, in the order of the layer axis."""
        return self.storage.layer_facts

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Labels of the layer axis."""
        return tuple(facts.label for facts in self.layer_facts)

    @cached_property
    def stacks(self) -> tuple[str, ...]:
        """Names of the stacks, along which a token's stack code counts."""
        return stacks_of(self.layer_facts)

    @property
    def n_tokens(self) -> int:
        """Rows of the token axis."""
        return self.storage.n_tokens

    @property
    def n_layers(self) -> int:
        """Routers."""
        return len(self.layer_facts)

    @property
    def n_ranks(self) -> int:
        """Stored ranks: selected ones and runners-up."""
        return self.storage.n_ranks

    @cached_property
    def n_experts(self) -> int:
        """Most experts in any layer."""
        return max((facts.n_experts for facts in self.layer_facts), default=0)

    @cached_property
    def top_k(self) -> int:
        """Most experts that any layer selects for a token."""
        return max((facts.top_k for facts in self.layer_facts), default=0)

    @cached_property
    def absent(self) -> int:
        """The id that says there is no expert at this rank: the type's largest value."""
        rows = self.storage.rows("experts")
        return int(np.iinfo(id_dtype(self.n_experts) if rows is None else rows.dtype).max)

    @cached_property
    def expert_exists(self) -> xr.DataArray:
        """Which experts each layer has.

        Returns:
            (layer, expert) · whether the layer has the expert · True or False.
        """
        n_experts = np.array([facts.n_experts for facts in self.layer_facts])
        exists = np.arange(self.n_experts) < n_experts[:, None]
        coords = {"layer": list(self.layers), "expert": np.arange(self.n_experts)}
        return xr.DataArray(exists, dims=("layer", "expert"), coords=coords)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order of first appearance."""
        return tuple(self.task_types)

    @cached_property
    def task_types(self) -> dict[str, str]:
        """Type of each task."""
        first = self.storage.prompt_tasks().drop_duplicates("task")
        return dict(zip(first["task"].tolist(), first["task_type"].tolist(), strict=True))

    @cached_property
    def task_of_prompt(self) -> np.ndarray:
        """(prompt,) int16, index into `tasks`."""
        number = {task: code for code, task in enumerate(self.tasks)}
        return self.storage.prompt_tasks()["task"].map(number).to_numpy(dtype=np.int16)

    @property
    def n_prompts(self) -> int:
        """Rows of the prompt table."""
        return len(self.storage.prompt_tasks())

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """One row a prompt: prompt (its id), task, task_type, text, target, prediction, score, metric, …."""
        return self.storage.prompts()

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row a token: prompt (row of `prompts`), position, token_id, phase, stack, nll."""
        columns: dict[str, Any] = {}
        for name in TOKEN_COLUMNS:
            rows = self.storage.rows(name)
            columns[name] = np.zeros(0) if rows is None else np.array(rows.read(0, rows.shape[0]))
        columns["phase"] = pd.Categorical.from_codes(columns["phase"].astype(np.int8), categories=list(PHASES))
        columns["stack"] = pd.Categorical.from_codes(columns["stack"].astype(np.int8), categories=list(self.stacks))
        return pd.DataFrame(columns)

    @cached_property
    def vocabulary(self) -> pd.Series:
        """Piece of text of each token id that occurs; empty where the tokenizer was not known."""
        return self.storage.vocabulary()

    @cached_property
    def counts(self) -> xr.DataArray | None:
        """Assignments of each task to each expert, at level "counts" only.

        Returns:
            (task, layer, expert) · assignments · 0 and up.
        """
        return self.storage.counts()

    @cached_property
    def experts(self) -> xr.DataArray | None:
        """Which expert stands at each rank.

        Returns:
            (token, layer, rank) · expert id · 0 to n_experts - 1, or `absent`.
        """
        return self._array("experts", "rank")

    @cached_property
    def scores(self) -> xr.DataArray | None:
        """Selection score of each stored rank.

        Returns:
            (token, layer, rank) · selection score · any, or NaN where absent.
        """
        return self._array("scores", "rank")

    @cached_property
    def weights(self) -> xr.DataArray | None:
        """Weight that multiplied each selected expert's output.

        Returns:
            (token, layer, rank) · applied weight · any, or NaN where absent.
        """
        return self._array("weights", "rank")

    @cached_property
    def dropped(self) -> xr.DataArray | None:
        """Whether capacity dropped the assignment; None where no router has a capacity.

        Returns:
            (token, layer, rank) · whether dropped · True or False.
        """
        return self._array("dropped", "rank")

    @cached_property
    def logits(self) -> xr.DataArray | None:
        """Output of the routers before any activation; None below level "full".

        Returns:
            (token, layer, expert) · logit · any, or NaN where absent.
        """
        return self._array("logits", "expert")

    @cached_property
    def adapters(self) -> Adapters | None:
        """The distinct adapters that were generated and applied; None where the model makes none."""
        held = self.storage.adapters()
        return None if held is None else replace(held, index=self.storage.rows("adapter_index"))

    @cached_property
    def adapter_index(self) -> xr.DataArray | None:
        """Which adapter each row used.

        Returns:
            (token, site) · row of `adapters.table` · 0 and up, -1 where none, -2 where the trace does not hold it.
        """
        return self._of_adapters("adapter_index")

    @cached_property
    def adapter_ratio(self) -> xr.DataArray | None:
        """How much the adapter added: norm of its output over the norm of the output that it was added to.

        Returns:
            (token, site) · ratio of norms · 0 and up, or NaN where there is none.
        """
        return self._of_adapters("adapter_ratio")

    @cached_property
    def vectors(self) -> dict[str, xr.DataArray]:
        """Small tables read off the model or the examples beside the routing: "prototype", "expert_embedding", …."""
        return self.storage.vectors()

    @cached_property
    def dense_routing(self) -> bool:
        """Whether every layer always selects all its experts, so that only their weights say anything."""
        facts = self.layer_facts
        return all(each.top_k == each.n_experts for each in facts) and any(each.n_experts > 1 for each in facts)

    @cached_property
    def expert_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the experts, for the layers whose experts are more than a number."""
        return {each.label: tuple(each.expert_names) for each in self.layer_facts if each.expert_names}

    def chunks(self, *, fields: Sequence[str] = ("experts",), n_tokens: int = 65536) -> Iterator[Chunk]:
        """Every token once, in order, as runs of plain arrays; every scan goes through here.

        Raises:
            TraceError: the trace holds counts only, or a field is unknown.
        """
        return iterate_chunks(self, fields=fields, n_tokens=n_tokens)

    def select(self, selection: Selection) -> RoutingTrace:
        """The part of this trace that a selection names: its tasks, prompts and layers.

        Experts of a selection are what a view points at; they never drop assignments.

        Raises:
            SelectionError: the selection names what the trace does not hold.
        """
        from routing.selection import selected

        return selected(self, selection)

    def __repr__(self) -> str:
        rows = self.unit if self.n_tokens == 1 else f"{self.unit}s"
        names = ", ".join(self.tasks[:6]) + (", …" if len(self.tasks) > 6 else "")
        return (
            f"RoutingTrace({self.n_tokens:,} {rows} × {self.n_layers} layers × top-{self.top_k} "
            f"of {self.n_experts} experts; tasks: {names})"
        )

    def _array(self, name: str, last: str) -> xr.DataArray | None:
        rows = self.storage.rows(name)
        if rows is None:
            return None
        coords: Mapping[str, Any] = {"layer": list(self.layers), last: np.arange(rows.shape[2])}
        return labelled(rows, ("token", "layer", last), dict(coords))

    def _of_adapters(self, name: str) -> xr.DataArray | None:
        rows, held = self.storage.rows(name), self.storage.adapters()
        if rows is None or held is None:
            return None
        return labelled(rows, ("token", "site"), {"site": [site.label for site in held.sites]})
