"""`routescope findings`: what stands out in a trace, for a terminal or for another program."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.markup import escape

from analysis.findings import Finding, findings
from analysis.findings.control import LEVEL
from app.commands.terminal import printable
from app.runs import find_runs, places
from routing import open_trace

__all__ = ["findings_command", "link_of", "told_as_json"]

_OUT = Console()


def findings_command(
    trace: Annotated[Path, typer.Argument(help="Folder of a trace.")],
    before: Annotated[
        Path | None, typer.Option(help="An earlier run of the same prompts, to say what changed since.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of permutations and draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of sentences.")] = False,  # noqa: FBT002
) -> None:
    """Say what stands out in a trace: ranked sentences, each beyond chance; silence where nothing holds up."""
    opened = open_trace(trace)
    run, other = _run_of(trace), None if before is None else _run_of(before)
    found = findings(opened, before=None if before is None else open_trace(before), seed=seed)
    if as_json:
        # Plain print: no line of a document may be folded to the width of a terminal.
        told = told_as_json(found, trace=str(trace), digest=opened.digest, seed=seed, run=run, other=other)
        print(json.dumps(told, indent=2))  # noqa: T201
        return
    if not found:
        _OUT.print(
            "Nothing holds up: load is even, no expert prefers a task, and nothing else that was asked beats chance.",
            soft_wrap=True,
        )
        return
    for number, finding in enumerate(found, start=1):
        _OUT.print(f"[bold]{number:>2}[/] {escape(printable(finding.sentence))}", soft_wrap=True, highlight=False)
        doubt = f"{finding.uncertainty}; q {_q(finding)}; in the app: {link_of(finding, run=run, other=other)}"
        _OUT.print(f"   [dim]{escape(printable(doubt))}[/]", soft_wrap=True, highlight=False)
    _OUT.print(
        f"Of all that was asked, {len(found)} {'thing holds' if len(found) == 1 else 'things hold'} up at a "
        f"false-discovery rate of {LEVEL:.0%} over the whole list.",
        soft_wrap=True,
    )


def told_as_json(
    found: Sequence[Finding],
    *,
    trace: str,
    digest: str,
    seed: int,
    run: str | None = None,
    other: str | None = None,
) -> dict[str, Any]:
    """The list as JSON says it: no NaN, and the address that shows each finding."""
    rows = []
    for finding in found:
        row = {name: None if isinstance(value, float) and not math.isfinite(value) else value
               for name, value in asdict(finding).items()}  # fmt: skip
        rows.append(row | {"link": link_of(finding, run=run, other=other)})
    return {
        "format": "routescope-findings/1",
        "trace": trace,
        "digest": digest,
        "seed": seed,
        "false_discovery_rate": LEVEL,
        "findings": rows,
    }


def link_of(finding: Finding, *, run: str | None = None, other: str | None = None) -> str:
    """Address of the view that shows a finding, below that of the app.

    Args:
        finding: what is to be shown.
        run: what the app calls the run; the one that it shows by itself, where it is None.
        other: what it calls the earlier run, for what changed since then.
    """
    runs = {} if run is None else {"run": run}
    if other is not None and finding.view == "compare":
        runs["other"] = other
    query = urlencode(runs | finding.selection_query | finding.options, safe=",.@%")
    return f"/{finding.view}?{query}" if query else f"/{finding.view}"


def _q(finding: Finding) -> str:
    return "< 0.0001" if finding.q_value < 1e-4 else f"= {finding.q_value:.2g}"


def _run_of(trace: Path) -> str | None:
    """What the app calls the run, None where it would not find it."""
    known = find_runs(tuple(str(place) for place in places()))
    return next((run.name for run in known if Path(run.path).resolve() == trace.resolve()), None)
