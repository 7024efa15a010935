"""What a trace holds, in one screen: for the command line, the app and lists of traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.chunks import TOKEN_ARRAYS
from routing.facts import LayerFacts, Provenance
from routing.storage import Level, Unit
from routing.trace import RoutingTrace

__all__ = ["TaskSummary", "TraceSummary", "summary"]


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """One task of a trace.

    Attributes:
        name, task_type, metric: as in the prompt table.
        n_prompts: prompts of the task.
        n_scored: prompts whose answer was scored.
        mean_score: mean over those; None if there are none.
    """

    name: str
    task_type: str
    metric: str | None
    n_prompts: int
    n_scored: int
    mean_score: float | None


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """What a trace holds.

    Attributes:
        path: its folder, or None.
        digest: stable name of the content.
        unit, level: what a row is; how much was recorded.
        n_tokens, n_prompts, n_layers, n_experts, top_k, n_runners_up: sizes; the largest over layers.
        arrays: names of what was recorded for each token.
        disk_bytes: size of the folder; None in memory.
        layers: facts of the routers, with how each was proven.
        tasks: the tasks, in order of first appearance.
        provenance: how the trace came to be, self-check and overhead included.
        packed: whether the folder is compressed.
        adapters: the dictionary of adapters in a line; None where the model makes none.
        vectors: names of the tables read off the model or the examples.
    """

    path: Path | None
    digest: str
    unit: Unit
    level: Level
    n_tokens: int
    n_prompts: int
    n_layers: int
    n_experts: int
    top_k: int
    n_runners_up: int
    arrays: tuple[str, ...]
    disk_bytes: int | None
    layers: tuple[LayerFacts, ...]
    tasks: tuple[TaskSummary, ...]
    provenance: Provenance
    packed: bool
    adapters: str | None = None
    vectors: tuple[str, ...] = ()

    @property
    def proofs(self) -> dict[str, int]:
        """How many layers were proven in which way."""
        counted: dict[str, int] = {}
        for facts in self.layers:
            counted[facts.proof] = counted.get(facts.proof, 0) + 1
        return counted


def summary(trace: RoutingTrace) -> TraceSummary:
    """What a trace holds. Reads the header and the prompt table; no token."""
    tasks = []
    for name, rows in trace.prompts.groupby("task", sort=False):
        scores = rows["score"].dropna()
        metrics: list[Any] = rows["metric"].dropna().unique().tolist()
        tasks.append(
            TaskSummary(
                name=str(name),
                task_type=str(rows["task_type"].iloc[0]),
                metric=metrics[0] if metrics else None,
                n_prompts=len(rows),
                n_scored=len(scores),
                mean_score=float(scores.mean()) if len(scores) else None,
            )
        )
    adapters = trace.adapters
    about_adapters = None
    if adapters is not None:
        sources = ", ".join(dict.fromkeys(site.made_from.replace("_", " ") for site in adapters.sites))
        kept = f" ({adapters.parameter_rows.shape[1]:,} random projections kept)" if adapters.projected else ""
        about_adapters = (
            f"{len(adapters):,} adapters at {len(adapters.sites)} sites, made from the {sources}, "
            f"{adapters.n_parameters_full:,} parameters each{kept}"
        )
    return TraceSummary(
        path=trace.path,
        digest=trace.digest,
        unit=trace.unit,
        level=trace.level,
        n_tokens=trace.n_tokens,
        n_prompts=trace.n_prompts,
        n_layers=trace.n_layers,
        n_experts=trace.n_experts,
        top_k=trace.top_k,
        n_runners_up=max(0, trace.n_ranks - trace.top_k),
        arrays=tuple(name for name in TOKEN_ARRAYS if trace.storage.rows(name) is not None),
        disk_bytes=None if trace.path is None else _bytes_below(trace.path),
        layers=trace.layer_facts,
        tasks=tuple(tasks),
        provenance=trace.provenance,
        packed=bool(getattr(trace.storage, "packed", False)),
        adapters=about_adapters,
        vectors=tuple(getattr(trace.storage, "vector_names", None) or trace.vectors),
    )


def _bytes_below(folder: Path) -> int:
    # The last chunk of a running trace has its full length long before its content, so blocks count, too.
    sizes = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(min(each.st_size, each.st_blocks * 512) for each in sizes)
