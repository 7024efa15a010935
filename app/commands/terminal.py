"""What a terminal shows of a trace, and of one that is being recorded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from routing import TraceSummary

if TYPE_CHECKING:
    from hooks.evaluation import Progress as Done

__all__ = ["RecordingBar", "bytes_in_words", "info_screen", "printable"]

N_TASKS_SHOWN = 20


class RecordingBar:
    """A recording on a terminal: a line that says what it costs, a bar, tokens a second, the time left."""

    def __init__(self, console: Console, *, n_prompts: int) -> None:
        self._console, self._n_prompts = console, n_prompts
        self._shown = ExitStack()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("prompts"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as the last line says."""
        self._shown.close()

    def stage(self, name: str) -> None:
        """Show what begins: "measuring" or "recording"; loading was announced."""
        self._shown.close()
        if name == "measuring":
            self._shown.enter_context(self._console.status("Measuring what recording costs …"))
        elif name == "recording":
            self._shown.enter_context(self._bar)
            self._line = self._bar.add_task("recording", total=self._n_prompts, speed="")

    def measured(self, overhead: dict[str, Any]) -> None:
        """Say what recording costs."""
        interval = f"{overhead['low']:.3f} to {overhead['high']:.3f}"
        self._console.print(f"Recording takes {overhead['ratio']:.3f} × the time without ({interval}).")

    def progress(self, done: Done) -> None:
        """Move the bar."""
        speed = f"{done.n_tokens / max(done.seconds, 1e-9):,.0f} tokens/s"
        self._bar.update(self._line, completed=done.n_prompts, speed=speed)


def printable(text: str) -> str:
    """The text with control characters spelled out: what a task is called must not move the cursor."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


def bytes_in_words(n_bytes: int) -> str:
    """A size in the largest unit that leaves a number above one."""
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def info_screen(found: TraceSummary) -> RenderableType:
    """What a trace holds, in one screen."""
    provenance = found.provenance
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    facts.add_column()

    def line(name: str, value: str | None) -> None:
        if value:
            facts.add_row(name, escape(printable(value)))

    runners = f", {found.n_runners_up} runners-up" if found.n_runners_up else ""
    line("trace", f"{found.path} · {found.digest}{' · packed' if found.packed else ''}")
    line("model", " · ".join(filter(None, (provenance.model, provenance.revision, provenance.model_class))))
    line("routing", f"{found.n_layers} layers, top-{found.top_k} of {found.n_experts} experts{runners}")
    line("layers", _ranges([facts.label for facts in found.layers]))
    line("routers", "; ".join(dict.fromkeys(_router(facts) for facts in found.layers)))
    line("adapters", found.adapters)
    line("vectors", ", ".join(found.vectors))
    line("level", f"{found.level}: {', '.join(found.arrays) or 'counts'}")
    line(
        "size",
        f"{found.n_tokens:,} {found.unit}s of {found.n_prompts:,} prompts, {bytes_in_words(found.disk_bytes or 0)}",
    )
    line("proven", ", ".join(f"{proof} in {n} layers" for proof, n in found.proofs.items()))
    line("ran on", " · ".join(filter(None, (provenance.device, provenance.dtype))))
    line(
        "with", f"transformers {provenance.transformers}, torch {provenance.torch}, routescope {provenance.routescope}"
    )
    line(
        "when",
        f"{provenance.started} to {provenance.finished or '…'}" + ("" if provenance.complete else " · not finished"),
    )
    line("tasks from", f"{provenance.tasks}" if provenance.tasks else None)
    if cost := provenance.overhead:
        line("overhead", f"{cost['ratio']:.3f} × ({cost['low']:.3f} to {cost['high']:.3f}), measured here")
    if provenance.n_dropped_records:
        line("lost", f"{provenance.n_dropped_records:,} records")
    line("note", provenance.note)
    tasks = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("task", "type", "metric", "prompts", "score"):
        tasks.add_column(name, justify="right" if name in ("prompts", "score") else "left")
    for each in found.tasks[:N_TASKS_SHOWN]:
        tasks.add_row(
            escape(printable(each.name)),
            escape(printable(each.task_type)),
            escape(printable(each.metric or "")),
            f"{each.n_prompts:,}",
            "" if each.mean_score is None else f"{each.mean_score:.3f}",
        )
    if (more := len(found.tasks) - N_TASKS_SHOWN) > 0:
        tasks.add_row(f"… and {more} more")
    return Group(facts, "", tasks)


def _ranges(labels: list[str]) -> str:
    return ", ".join(labels) if len(labels) <= 8 else f"{labels[0]}, {labels[1]}, … {labels[-1]}"


def _router(facts: object) -> str:
    return f"{getattr(facts, 'router_class', '')} ({getattr(facts, 'score_function', '')})"
