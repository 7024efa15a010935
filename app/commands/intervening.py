"""Interventions from the command line: `routescope knock-out`, `runner-up`, `intervene`. Torch only when they run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from app.commands.terminal import printable
from app.studies.asked import KnockOutRequest, model_of, prompts_asked
from routing import RoutingTrace, SelectionError, open_trace

if TYPE_CHECKING:
    from analysis.interventions import Bench, KnockOut
    from analysis.interventions import Progress as Done

__all__ = ["knocked_out", "run_intervention", "run_knock_out", "run_runner_up"]

HEADS = {
    "n_prompts": "n",
    "n_random": "sets",
    "nll_before": "nll",
    "nll_change": "change",
    "random_mean": "random",
    "p_value": "p",
    "score_before": "score",
    "score_change": "change",
    "random_score_mean": "random",
    "score_p_value": "p",
    "difference": "apart",
    "interaction": "both",
}
"""Short heads: tables must fit a terminal of 80 columns."""
EXPERT = re.compile(r"\s*(?P<layer>\w+)[·.:]E?(?P<expert>\d+)\s*")


def run_knock_out(request: KnockOutRequest, *, console: Console) -> None:
    """Knock out named sets of experts, and those that serve groups of prompts, and print what it did.

    Raises:
        SelectionError: an expert or a group is not there, or none was named.
    """
    with _bar(console) as told:
        result, found = knocked_out(request, progress=told)
    for group, chosen in found.items():
        console.print(f"[bold]{escape(group)}[/] is served by {', '.join(map(_plain, chosen))}.")
    columns = ["set", "group", "n_prompts", "nll_change", "low", "high", "random_mean", "p_value"]
    title = "Surprise without the experts (nats a token), beside random sets of like layers and load"
    console.print(_printed(result.effects[columns], title))
    scored = result.effects[result.effects["score_change"].notna()]
    if len(scored):
        columns = ["set", "group", "score_before", "score_change", "random_score_mean", "score_p_value"]
        console.print(_printed(scored[columns], "Score without the experts, beside the same random sets"))
    if len(result.dissociation):
        table = result.dissociation.drop(columns=["random_low", "random_high"])
        console.print(_printed(table, "Inside and outside the group that a set serves"))
    if len(result.double):
        table = result.double.drop(columns=["random_mean", "random_low", "random_high"])
        console.print(_printed(table, "Double dissociation"))
    console.print(f"Kept in {escape(printable(str(result.path)))}", soft_wrap=True)


def knocked_out(
    request: KnockOutRequest, *, progress: Callable[[Done], None]
) -> tuple[KnockOut, dict[str, list[tuple[str, int]]]]:
    """Knock out what is asked for.

    Returns:
        what it came to, and the experts of each group that was named.

    Raises:
        SelectionError: an expert or a group is not there, or none was named.
    """
    trace = open_trace(request.trace)
    named = {", ".join(map(_plain, each)): each for each in map(_experts, request.experts)}
    if not named and not request.serving:
        msg = "No experts were named. Name some (--experts 'L05·E11,L06·E2'), or groups of prompts (--serving)."
        raise SelectionError(msg)
    bench = _bench(
        trace,
        request.model,
        list(request.tasks),
        limit=request.limit,
        seed=request.seed,
        batch_size=request.batch_size,
        device=request.device,
        generate=request.generate,
        scores=not request.loss_only,
    )
    from analysis.interventions import knock_out, serving_sets

    found = serving_sets(
        trace,
        request.serving,
        over=request.over,
        n_experts=request.n_experts,
        ranked_by=request.ranked_by,
        seed=request.seed,
    )
    if empty := [group for group, chosen in found.items() if not chosen]:
        msg = f"No expert is used more by {', '.join(empty)} than by other prompts. Name the experts (--experts)."
        raise SelectionError(msg)
    result = knock_out(
        trace,
        bench,
        sets={**named, **found},
        serves={group: group for group in found},
        over=request.over,
        n_random=request.n_random,
        seed=request.seed,
        beside=request.out,
        progress=progress,
    )
    return result, found


def run_runner_up(
    path: Path,
    *,
    console: Console,
    model: str | None,
    tasks: list[str],
    n_texts: int,
    n_choices: int,
    limit: int | None,
    seed: int,
    device: str,
    out: Path | None,
) -> None:
    """Put the runner-up in the place of the last selected expert, in a sample of decisions, and print what it did."""
    trace = open_trace(path)
    bench = _bench(trace, model, tasks, limit=limit, seed=seed, batch_size=16, device=device, generate=False)
    from analysis.interventions import runner_up_regret

    beside: Any = trace if out is None else out
    with _bar(console) as told:
        found = runner_up_regret(
            bench, beside=beside, n_texts=n_texts, n_choices_a_text=n_choices, seed=seed, progress=told
        )
    console.print(_printed(found.layers, "With the runner-up in place of the last selected (nll of the next token)"))
    console.print(f"Kept in {escape(printable(str(found.path)))}", soft_wrap=True)


def run_intervention(
    path: Path,
    *,
    console: Console,
    model: str | None,
    tasks: list[str],
    over: str,
    generate: bool,
    limit: int | None,
    seed: int,
    batch_size: int,
    device: str,
    out: Path | None,
) -> None:
    """Replace what the model's adapters are made from, whichever it has, and print what it did."""
    trace = open_trace(path)
    bench = _bench(trace, model, tasks, limit=limit, seed=seed, batch_size=batch_size, device=device, generate=generate)
    from analysis.interventions import prototype_exchange, selection_embedding_effects

    beside: Any = trace if out is None else out
    if hasattr(bench.model, "prototypes"):
        with _bar(console) as told:
            found = prototype_exchange(bench, beside=beside, seed=seed, progress=told)
        console.print(_printed(found.tasks, "Own prototype and those of other tasks (nll, nats a token)"))
        console.print(
            f"A task's own prototype is better than the mean one by {found.dominance:.4f} nats a token "
            f"(p = {found.p_value:.3g}, {found.n_permutations:,} permutations)."
        )
        if found.left_out:
            console.print(f"Left out, since the model has no prototype of them: {escape(', '.join(found.left_out))}.")
        return
    with _bar(console) as told:
        effects = selection_embedding_effects(bench, beside=beside, over=over, seed=seed, progress=told)
    columns = ["override", "group", "n_prompts", "nll_before", "nll_change", "low", "high", "score_change"]
    console.print(_printed(effects[columns], "With another selection embedding (nll, nats a token)"))


def _bench(
    trace: RoutingTrace,
    model: str | None,
    tasks: list[str],
    *,
    limit: int | None,
    seed: int,
    batch_size: int,
    device: str,
    generate: bool,
    scores: bool = True,
) -> Bench:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils.logging import disable_progress_bar

    from analysis.interventions import Bench

    disable_progress_bar()
    folder = model or model_of(trace) or trace.provenance.model
    if not folder:
        msg = "The trace does not say which model it is of. Name the model's folder (--model)."
        raise SelectionError(msg)
    task_set = prompts_asked(trace, tasks, limit=limit, seed=seed)
    return Bench.of_folder(folder, task_set, device=device, batch_size=batch_size, generates=generate, scores=scores)


def _experts(written: str) -> list[tuple[str, int]]:
    found = []
    for part in written.split(","):
        match = EXPERT.fullmatch(part)
        if match is None:
            msg = f"{part.strip()!r} names no expert. Write experts as L05·E11 or L05.E11, with commas between them."
            raise SelectionError(msg)
        found.append((match["layer"], int(match["expert"])))
    return found


def _plain(expert: tuple[str, int]) -> str:
    return f"{expert[0]}·E{expert[1]}"


def _printed(table: pd.DataFrame, title: str) -> Table:
    shown = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in table.columns:
        is_number = table[name].dtype.kind in "if"
        head = HEADS.get(name, name.replace("_", " "))
        if is_number:
            shown.add_column(head, justify="right", no_wrap=True)
        else:
            shown.add_column(head, overflow="fold", min_width=8)
    for row in table.itertuples(index=False):
        shown.add_row(*(_cell(each) for each in row))
    return shown


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3f}"
    return escape(printable(str(value)))


class _bar:  # noqa: N801 - used like a function
    """A progress bar for the passes of a study."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Callable[[Done], None]:
        self._bar.__enter__()
        task = self._bar.add_task("passes", total=None)
        return lambda done: self._bar.update(
            task, completed=done.n_done, total=done.n_total, description=escape(printable(done.unit[:40]))
        )

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)
