"""``routescope knock-out | runner-up | intervene``: the model of a trace run again with a part of it changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from app.commands.options import (
    BatchSize,
    Device,
    Folder,
    Generate,
    Limit,
    ModelOfTrace,
    Over,
    Seed,
    TasksOfTrace,
    Trace,
)

__all__ = ["intervene_command", "knock_out_command", "runner_up_command"]

_OUT = Console()


class Ranking(StrEnum):
    """How the experts that serve a group are found."""

    z = "z"
    r = "r"


def knock_out_command(
    trace: Trace,
    experts: Annotated[
        list[str] | None, typer.Option(help="A set of experts, as 'L05·E11,L06·E2' or 'L05.E11'; may be repeated.")
    ] = None,
    serving: Annotated[
        list[str] | None, typer.Option(help="A group of prompts whose own experts are knocked out; may be repeated.")
    ] = None,
    n_experts: Annotated[int, typer.Option(min=1, help="Experts a group that --serving names.")] = 3,
    ranked_by: Annotated[
        Ranking, typer.Option(help="How their experts are found: z over prompts, or r over tasks.")
    ] = Ranking.z,
    over: Annotated[Over, typer.Option(help="What prompts are grouped by.")] = Over.task_type,
    n_random: Annotated[
        int,
        typer.Option("--random", min=0, help="Random sets for each set; asked again with more, a study is enlarged."),
    ] = 20,
    model: ModelOfTrace = None,
    tasks: TasksOfTrace = None,
    generate: Generate = False,  # noqa: FBT002
    loss_only: Annotated[bool, typer.Option("--loss-only", help="Score nothing; faster with many options.")] = False,  # noqa: FBT002
    limit: Limit = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    folder: Folder = None,
) -> None:
    """Run the model without some experts, beside random ones. Started again, it goes on where it was stopped."""
    from app.commands.intervening import run_knock_out
    from app.studies.asked import KnockOutRequest

    request = KnockOutRequest(
        trace=str(trace), model=model, tasks=tuple(tasks or ()), experts=tuple(experts or ()),
        serving=tuple(serving or ()), n_experts=n_experts, ranked_by=ranked_by.value, over=over.value,
        n_random=n_random, generate=generate, loss_only=loss_only, limit=limit, seed=seed, batch_size=batch_size,
        device=device, out=None if folder is None else str(folder),
    )  # fmt: skip
    run_knock_out(request, console=_OUT)


def runner_up_command(
    trace: Trace,
    texts: Annotated[int, typer.Option(min=1, help="Prompts that are drawn.")] = 64,
    choices: Annotated[int, typer.Option(min=1, help="Decisions of each.")] = 8,
    model: ModelOfTrace = None,
    tasks: TasksOfTrace = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    folder: Folder = None,
) -> None:
    """Change single decisions: the runner-up in place of the last selected expert, and what that does to the text."""
    from app.commands.intervening import run_runner_up

    run_runner_up(
        trace, console=_OUT, model=model, tasks=tasks or [], n_texts=texts, n_choices=choices, limit=limit, seed=seed,
        device=device, out=folder,
    )  # fmt: skip


def intervene_command(
    trace: Trace,
    over: Annotated[Over, typer.Option(help="What prompts are grouped by.")] = Over.task,
    model: ModelOfTrace = None,
    tasks: TasksOfTrace = None,
    generate: Generate = False,  # noqa: FBT002
    limit: Limit = None,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    folder: Folder = None,
) -> None:
    """Replace what adapters are made from: HyperMoE's selection embedding, or the prototypes of PHA's tasks."""
    from app.commands.intervening import run_intervention

    run_intervention(
        trace, console=_OUT, model=model, tasks=tasks or [], over=over.value, generate=generate, limit=limit,
        seed=seed, batch_size=batch_size, device=device, out=folder,
    )  # fmt: skip
