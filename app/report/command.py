"""`routescope report`: a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from app.commands.terminal import bytes_in_words, printable
from routing import RecordingError, open_trace

__all__ = ["report_command"]

_OUT = Console()


def report_command(
    trace: Annotated[Path, typer.Argument(help="Folder of a trace.")],
    report: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path("report.html"),
    before: Annotated[
        Path | None, typer.Option(help="An earlier run of the same prompts, to say what changed since.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of permutations and draws.")] = 0,
) -> None:
    """Write a run as one HTML file that opens anywhere, without a network: figures, numbers, sentences, definitions."""
    # Figures take a second to import, and only a report needs them.
    from app.report.run import run_report

    opened = open_trace(trace)
    text = run_report(
        opened, name=trace.resolve().name, before=None if before is None else open_trace(before), seed=seed
    )
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        # A lone half of a surrogate pair in a prompt has no UTF-8; it is shown as a question mark.
        written = report.write_bytes(text.encode("utf-8", "replace"))
    except OSError as error:
        msg = f"The report could not be written to {report}: {error}. Choose a folder that can be written with --out."
        raise RecordingError(msg) from error
    _OUT.print(f"{escape(printable(str(report)))}: {bytes_in_words(written)}, opens without a network.", soft_wrap=True)
