"""Recordings that were asked for in the app, without a model: what was looked at, and what each left behind."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from app.recordings.kept import HOME, Request, write_json
from app.recordings.outlook import Outlook, TaskOutlook
from routing import RoutingTrace


def outlook_of(**changes) -> Outlook:
    """16 experts, 2 selected, in 8 layers; two tasks, "even" of 100 and "odd" of 10 prompts of 50 tokens."""
    task = TaskOutlook(
        name="even",
        task_type="x",
        n_prompts=100,
        n_read=50.0,
        n_option=0.0,
        n_target=None,
        n_options=0,
        max_new_tokens=0,
        longest=60,
        n_too_long=0,
        n_characters=20_000,
    )
    known = Outlook(
        model_class="TinyMoe",
        layers=tuple((f"L{layer:02d}", "decoder", 16, 2) for layer in range(8)),
        by_prompt=False,
        with_capacity=False,
        two_stacks=False,
        writes=True,
        n_parameters=1_000_000,
        dtype_bytes=2,
        n_vocabulary=1000,
        n_adapter_sites=0,
        adapters_a_site=0,
        adapter_bytes=0,
        vector_bytes=0,
        context=512,
        devices=("cuda:0", "cpu"),
        process_bytes=400_000_000,
        tasks=(task, replace(task, name="odd", n_prompts=10)),
    )
    return replace(known, **changes)


def left_behind(root: Path, name: str, request: Request | None = None, **progress) -> Path:
    """Folder of a recording that was asked for, here or by another server: its request, and its last word if any."""
    folder = root / HOME / name
    folder.mkdir(parents=True)
    request = request or Request(model="m", tasks=("t",), out=str(root / name))
    write_json(folder / "request.json", asdict(request))
    if progress:
        write_json(folder / "progress.json", progress)
    return folder


def cut_off(trace: RoutingTrace) -> RoutingTrace:
    """The same trace as a recording that was stopped leaves it."""
    return RoutingTrace(replace(trace.storage, provenance=replace(trace.provenance, complete=False)))
