"""The command line: ``routescope record | import | info | verify | pack | findings | report | app``."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.commands.findings import findings_command
from app.commands.importing import import_command
from app.commands.interventions import intervene_command, knock_out_command, runner_up_command
from app.commands.options import BatchSize, Device, Limit, Seed
from app.commands.terminal import RecordingBar, bytes_in_words, info_screen, printable
from app.recordings.kept import Request
from app.report.command import report_command
from app.sentences import count
from routing import RoutingError, open_trace, pack_trace, read_tasks, summary, verify_trace

if TYPE_CHECKING:
    from hooks.evaluation import Evaluation
    from routing import TaskSet

__all__ = ["main"]

STOPPED_BY_USER = 130

cli = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Record what the routers of a Mixture-of-Experts model do, and look at it.",
)
out = Console()
err = Console(stderr=True)


class Level(StrEnum):
    """What is kept of each decision."""

    full = "full"
    assignments = "assignments"
    counts = "counts"


class OptionNorm(StrEnum):
    """What the log-likelihood of an option is divided by."""

    bytes = "bytes"
    tokens = "tokens"
    sum = "sum"


def _in_sentences(command: Callable[..., None]) -> Callable[..., None]:
    """Errors of our family are told as what they are: sentences. Everything else stays a traceback."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except RoutingError as error:
            err.print(f"[bold red]error[/] {escape(printable(str(error)))}", soft_wrap=True)
            for note in getattr(error, "__notes__", ()):
                err.print(escape(printable(note)), soft_wrap=True)
            raise typer.Exit(2) from None

    return told


@cli.command()
@_in_sentences
def record(
    model: Annotated[str, typer.Argument(help="A model folder, or a name on the Hugging Face hub.")],
    tasks: Annotated[
        list[str],
        typer.Option(help="A folder with tasks.json, a .jsonl, .csv or .parquet file, or hf:NAME; may be repeated."),
    ],
    trace: Annotated[
        Path | None, typer.Option("--out", show_default="runs/MODEL", help="New folder for the trace.")
    ] = None,
    level: Annotated[Level, typer.Option(help="What is kept: everything, no logits, or counts only.")] = Level.full,
    batch_size: BatchSize = 16,
    limit: Limit = None,
    seed: Seed = 0,
    runners_up: Annotated[int, typer.Option(min=0, help="Unselected experts kept for each decision.")] = 4,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=0, help="Tokens to generate, instead of what the tasks say; 0 only reads.")
    ] = None,
    option_norm: Annotated[
        OptionNorm, typer.Option(help="What an option's log-likelihood is divided by.")
    ] = OptionNorm.bytes,
    truncate: Annotated[  # noqa: FBT002
        bool, typer.Option("--truncate", help="Cut off the beginning of prompts that are too long.")
    ] = False,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    device_map: Annotated[str | None, typer.Option(help="Spread the model over devices, e.g. auto.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of the model on the hub.")] = None,
    trust_remote_code: Annotated[  # noqa: FBT002
        bool, typer.Option("--trust-remote-code", help="Run the model code of the repository itself.")
    ] = False,
    measure_overhead: Annotated[  # noqa: FBT002
        bool, typer.Option("--measure-overhead", help="First measure what recording costs here; kept in the trace.")
    ] = False,
) -> None:
    """Run an evaluation and record its routing. Ctrl-C leaves a trace that can be opened."""
    where = trace if trace is not None else Path("runs") / Path(model.rstrip("/")).name
    task_set = read_tasks(tasks, limit=limit, seed=seed)
    out.print(f"{len(task_set)} prompts of {len(task_set.tasks)} tasks. Loading {escape(printable(model))} …")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Torch takes seconds to import, and only recording needs it.
    from app.recordings.run import recorded

    request = Request(
        model=model,
        tasks=tuple(tasks),
        out=str(where),
        level=level.value,
        batch_size=batch_size,
        limit=limit,
        seed=seed,
        n_runners_up=runners_up,
        max_new_tokens=max_new_tokens,
        option_norm=option_norm.value,
        too_long="truncate" if truncate else "error",
        device=device,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        trust_remote_code=trust_remote_code,
        with_overhead=measure_overhead,
    )
    try:
        with RecordingBar(out, n_prompts=len(task_set)) as bar:
            evaluation = recorded(request, task_set, watch=bar)
    except KeyboardInterrupt:
        _tell_what_is_left(where)
        raise typer.Exit(STOPPED_BY_USER) from None
    _tell_scores(evaluation, task_set, where)


@cli.command()
@_in_sentences
def info(traces: Annotated[list[Path], typer.Argument(help="Folders of traces.")]) -> None:
    """Show what traces hold, each in one screen."""
    for path in traces:
        out.print(info_screen(summary(open_trace(path))))


@cli.command()
@_in_sentences
def verify(traces: Annotated[list[Path], typer.Argument(help="Folders of traces.")]) -> None:
    """Check all that must be true of traces. Exit code 1 if something is not."""
    sound = True
    for path in traces:
        findings = verify_trace(path)
        sound &= not findings
        out.print(
            f"[bold red]unsound[/] {escape(printable(str(path)))}"
            if findings
            else f"[bold green]sound[/] {escape(printable(str(path)))}"
        )
        for finding in findings:
            out.print(f"  {escape(printable(finding))}", soft_wrap=True)
    if not sound:
        raise typer.Exit(1)


@cli.command()
@_in_sentences
def pack(
    source: Annotated[Path, typer.Argument(help="Folder of a finished trace.")],
    target: Annotated[Path, typer.Argument(help="New folder for the compressed trace.")],
) -> None:
    """Write a finished trace anew, compressed: smaller to keep and send, slower to scan."""
    pack_trace(source, target)
    before, after = (summary(open_trace(path)).disk_bytes or 0 for path in (source, target))
    out.print(f"{bytes_in_words(before)} → {bytes_in_words(after)} in {escape(printable(str(target)))}")


cli.command("import")(_in_sentences(import_command))
cli.command("findings")(_in_sentences(findings_command))
cli.command("report")(_in_sentences(report_command))
cli.command("knock-out")(_in_sentences(knock_out_command))
cli.command("runner-up")(_in_sentences(runner_up_command))
cli.command("intervene")(_in_sentences(intervene_command))


@cli.command()
@_in_sentences
def app(
    runs: Annotated[Path | None, typer.Option(show_default="./runs", help="Folder below which the traces lie.")] = None,
    port: Annotated[int, typer.Option(help="Port of the app.")] = 8501,
) -> None:
    """Open the app in the browser."""
    environment = dict(os.environ)
    if runs is not None:
        environment["ROUTESCOPE_RUNS"] = str(runs.resolve())
    door = Path(__file__).with_name("main.py")
    command = [sys.executable, "-m", "streamlit", "run", str(door), "--server.port", str(port)]
    try:
        code = subprocess.call(command, env=environment)
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


def _tell_what_is_left(where: Path) -> None:
    try:
        n_tokens = open_trace(where).n_tokens
    except RoutingError:
        err.print("\nStopped before anything was recorded.")
        return
    err.print(
        f"\nStopped. The {n_tokens:,} tokens recorded so far can be opened: {escape(printable(str(where)))}",
        soft_wrap=True,
    )


def _tell_scores(evaluation: Evaluation, task_set: TaskSet, where: Path) -> None:
    table = Table(box=None, header_style="bold")
    for name in ("task", "type", "metric", "prompts", "score"):
        table.add_column(name, justify="right" if name in ("prompts", "score") else "left")
    for task, row in evaluation.scores().iterrows():
        score = "–" if row["score"] != row["score"] else f"{row['score']:.3f}"
        table.add_row(
            escape(printable(str(task))),
            escape(printable(row["task_type"])),
            row["metric"],
            str(row["n_prompts"]),
            score,
        )
    out.print(table)
    if any(each.options for each in task_set):
        unit = {"bytes": " by byte", "tokens": " by token", "sum": ""}[evaluation.option_norm]
        out.print(f"Of options the likeliest was chosen (log-likelihood{unit}).")
    if evaluation.n_truncated:
        out.print(f"The beginning of {evaluation.n_truncated} prompts was cut off to fit the model's context.")
    found = summary(open_trace(where))
    out.print(
        f"{count(found.n_tokens, found.unit)} × {count(found.n_layers, 'layer')} in {evaluation.seconds:.0f} s, "
        f"{bytes_in_words(found.disk_bytes or 0)}: {escape(printable(str(where)))}",
        soft_wrap=True,
    )


def main() -> None:
    """Run the command line."""
    cli()


if __name__ == "__main__":
    main()
