"""Options that several commands of the command line take, in the same words."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSize",
    "Device",
    "Folder",
    "Generate",
    "Limit",
    "ModelOfTrace",
    "Over",
    "Seed",
    "TasksOfTrace",
    "Trace",
]


class Over(StrEnum):
    """What prompts are grouped by."""

    task = "task"
    task_type = "task_type"


BatchSize = Annotated[int, typer.Option(min=1, help="Prompts a batch.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Folder = Annotated[Path | None, typer.Option("--out", show_default="the trace's", help="Folder for the results.")]
Generate = Annotated[bool, typer.Option("--generate", help="Score generated answers too; slow.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Most prompts a task, drawn by the seed.")]
ModelOfTrace = Annotated[str | None, typer.Option(show_default="what the trace says", help="The model's folder.")]
Seed = Annotated[int, typer.Option(help="Seed of whatever is drawn.")]
TasksOfTrace = Annotated[list[str] | None, typer.Option(show_default="what the trace says", help="As for record.")]
Trace = Annotated[Path, typer.Argument(help="Folder of a trace of the model.")]
