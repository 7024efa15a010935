"""`routescope import`: files of the papers' authors become runs that the app opens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from app.commands.terminal import printable
from routing import save_trace

__all__ = ["import_command"]

_OUT = Console()


def import_command(
    source: Annotated[
        Path, typer.Argument(help="A folder or file of weights, or route.npy, of the authors' released code.")
    ],
    out: Annotated[Path | None, typer.Option(show_default="runs/SOURCE", help="New folder for the run.")] = None,
    split: Annotated[
        Path | None, typer.Option(help="Task-level MoE: the split file of the training run; needed for route.npy.")
    ] = None,
    ontology: Annotated[Path | None, typer.Option(help="Task-level MoE: ontology.json, with --split.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Task-level MoE: τ of routes computed from weights; 1 unless told.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="HyperMoE on GPT-2: experts a token.")] = None,
) -> None:
    """Read a checkpoint of the authors of HyperMoE, PHA or Task-level MoE, without data, as a run for the app."""
    # Torch takes seconds to import, and only files of weights need it.
    from hooks.authors_import import imported

    found = imported(source, split=split, ontology=ontology, temperature=temperature, top_k=top_k)
    target = out or Path("runs") / (source.stem if source.is_file() else source.resolve().name)
    save_trace(found.trace, target)
    _OUT.print(f"[bold]{escape(printable(found.what))}[/] → {escape(printable(str(target)))}", soft_wrap=True)
    for sentence in found.sentences:
        _OUT.print(escape(printable(sentence)), soft_wrap=True)
