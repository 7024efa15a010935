"""Tasks from files, folders and data sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from routing.errors import TaskError
from routing.task_rows import PlacedRow, hub_rows, rows_of_file
from routing.tasks import Metric, Prompt, Task, TaskSet, prompt_text

__all__ = ["read_tasks"]

TASKS_FORMAT = "routescope-tasks/1"
ALIASES = {
    "id": ("id", "prompt_id"),
    "text": ("text", "prompt"),
    "input": ("input", "question"),
    "target": ("target",),
    "output": ("output", "answer", "label"),
    "answers": ("answers",),
    "options": ("options", "choices"),
    "task": ("task",),
    "task_type": ("task_type",),
    "metric": ("metric",),
    "instruction": ("instruction",),
    "source": ("source",),
}


def read_tasks(
    source: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> TaskSet:
    """The tasks and prompts in a folder, a file, a data set, or several of them.

    A row gives `text`, used verbatim, or `input`, to which `prompt_text` adds the instruction where
    there is one. What is right is `target`, verbatim, or `output` (`answer`, `label`), before which a space is put;
    `answers` and `options` follow the same rule. Other columns go to the prompt table.

    Args:
        source: a folder (with tasks.json, or with task files), a .jsonl, .jsonl.gz, .csv or .parquet file,
            "hf:NAME[:CONFIG][:SPLIT]", or several of these.
        columns: for names above, the file's own column names.
        limit: most prompts of each task, drawn at random.
        seed: of the drawing.

    Raises:
        TaskError: a source is missing, empty or malformed; the message says where.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        msg = "No task file was named. Name a folder, a file or a data set."
        raise TaskError(msg)
    if limit is not None and limit < 1:
        msg = f"The limit is {limit}, but a task needs at least one prompt. Give a limit of 1 or more."
        raise TaskError(msg)
    tasks: dict[str, Task] = {}
    prompts: list[Prompt] = []
    for each in sources:
        for task, found in _read(str(each), columns or {}):
            known = tasks.setdefault(task.name, task)
            if known != task:
                msg = f"{each} describes the task {task.name!r} otherwise than an earlier source. Rename one of them."
                raise TaskError(msg)
            prompts += found
    tasks_read = TaskSet(tasks=tuple(tasks.values()), prompts=tuple(prompts))
    return tasks_read if limit is None else tasks_read.sample(limit, seed=seed)


def _read(source: str, columns: Mapping[str, str]) -> Iterable[tuple[Task, list[Prompt]]]:
    if source.startswith("hf:"):
        return _grouped(hub_rows(source), Task(name=source.split(":")[1].split("/")[-1]), columns)
    path = Path(source)
    if not path.is_dir():
        rows = rows_of_file(path)
        return _grouped(rows, Task(name=path.name.split(".")[0]), columns)
    if (path / "tasks.json").is_file():
        return _listed_tasks(path, columns)
    files = sorted(each for each in path.iterdir() if each.name.endswith((".jsonl", ".jsonl.gz", ".csv", ".parquet")))
    if not files:
        msg = f"{path} holds neither a tasks.json nor a task file. Name the folder that holds the tasks."
        raise TaskError(msg)
    return [pair for each in files for pair in _read(str(each), columns)]


def _listed_tasks(folder: Path, columns: Mapping[str, str]) -> Iterable[tuple[Task, list[Prompt]]]:
    """The tasks that a tasks.json lists, each with the prompts of its file."""
    listing = folder / "tasks.json"
    try:
        content = json.loads(listing.read_text("utf-8"))
        written = content["format"]
        entries = [dict(entry) for entry in content["tasks"]]
        names = [str(entry["name"]) for entry in entries]
    except (ValueError, KeyError, TypeError, OSError) as error:
        msg = f"{listing} is no list of tasks: {error!r}. Write the format, and the tasks with their names."
        raise TaskError(msg) from error
    if written != TASKS_FORMAT:
        msg = f"{listing} has the format {written!r}, but this RouteScope reads {TASKS_FORMAT!r}. Update one of them."
        raise TaskError(msg)
    for name, entry in zip(names, entries, strict=True):
        known = {key: entry[key] for key in Task.__annotations__ if key in entry}
        task = Task(**known)
        found = []
        for number, (where, row) in enumerate(rows_of_file(folder / str(entry.get("file", f"{name}.jsonl")))):
            found.append(_prompt(row, where=where, task=task, columns=columns, default_id=f"{name}-{number:04d}"))
        yield task, found


def _grouped(rows: list[PlacedRow], default: Task, columns: Mapping[str, str]) -> Iterable[tuple[Task, list[Prompt]]]:
    """The tasks that the rows of one file name, each with its prompts."""
    tasks: dict[str, Task] = {}
    prompts: dict[str, list[Prompt]] = {}
    for number, (where, row) in enumerate(rows):
        name = _text(row, "task", columns, where=where) or default.name
        if name not in tasks:
            task_type = _text(row, "task_type", columns, where=where) or default.task_type
            instruction = _text(row, "instruction", columns, where=where) or ""
            tasks[name] = Task(name=name, task_type=task_type, instruction=instruction)
            prompts[name] = []
        prompt = _prompt(row, where=where, task=tasks[name], columns=columns, default_id=f"{name}-{number:05d}")
        metric = _text(row, "metric", columns, where=where)
        if not prompts[name]:
            guess: Metric = "accuracy" if prompt.options else "exact_match" if prompt.target else "none"
            tasks[name] = replace(tasks[name], metric=cast(Metric, metric or guess))
        prompts[name].append(prompt)
    return [(task, prompts[name]) for name, task in tasks.items()]


def _prompt(row: Mapping[str, Any], *, where: str, task: Task, columns: Mapping[str, str], default_id: str) -> Prompt:
    text = _text(row, "text", columns, where=where)
    if text is None:
        given = _text(row, "input", columns, where=where)
        if given is None:
            wanted = [columns.get(name, name) for name in ("text", "input")]
            msg = (
                f"{where} has the columns {sorted(row)}, but none of {wanted} with a text in it. "
                "Rename the column of the texts to one of them, or in Python name it: `read_tasks(…, columns=…)`."
            )
            raise TaskError(msg)
        instruction = _text(row, "instruction", columns, where=where) or task.instruction
        text = prompt_text(instruction, given) if instruction else given
    target = _text(row, "target", columns, where=where)
    # Only a verbatim target brings its own leading space.
    lead = "" if target is not None else " "
    if target is None and (output := _text(row, "output", columns, where=where)) is not None:
        target = lead + output
    answers = tuple(lead + each for each in _texts(row, "answers", columns, where=where))
    options = tuple(lead + each for each in _texts(row, "options", columns, where=where))
    if target is None and answers:
        target = answers[0]
    if options and target is not None and target not in options:
        msg = f"{where} has the target {target!r}, which is none of its options {list(options)}. Correct the row."
        raise TaskError(msg)
    if len(set(options)) != len(options):
        msg = f"{where} names an option twice: {list(options)}. Correct the row."
        raise TaskError(msg)
    used = {columns.get(name, each) for name, aliases in ALIASES.items() for each in aliases}
    extra = {name: value for name, value in row.items() if name not in used and value is not None}
    return Prompt(
        id=_text(row, "id", columns, where=where) or default_id,
        text=text,
        task=task.name,
        task_type=task.task_type,
        target=target,
        answers=answers or ((target,) if target is not None else ()),
        options=options,
        source=_text(row, "source", columns, where=where) or "",
        extra=extra,
    )


def _value(row: Mapping[str, Any], name: str, columns: Mapping[str, str], where: str) -> Any:
    if name in columns:
        if columns[name] not in row:
            msg = f"{where} has no column {columns[name]!r} for {name}; it has {sorted(row)}. Correct `columns`."
            raise TaskError(msg)
        return row[columns[name]]
    return next((row[each] for each in ALIASES[name] if row.get(each) is not None), None)


def _text(row: Mapping[str, Any], name: str, columns: Mapping[str, str], *, where: str) -> str | None:
    value = _value(row, name, columns, where)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int | float):
        msg = f"{where} has a {type(value).__name__} as {name}, but a text was expected. Correct the row."
        raise TaskError(msg)
    return _encodable(str(value), where)


def _texts(row: Mapping[str, Any], name: str, columns: Mapping[str, str], *, where: str) -> list[str]:
    """Several texts: a list, JSON that says one, or texts between upright strokes."""
    value = _value(row, name, columns, where)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except ValueError as error:
            msg = f"{where} has {name} that start like a JSON list but are none: {error}. Correct the row."
            raise TaskError(msg) from error
        value = [each.strip() if isinstance(each, str) else each for each in value]
    if not isinstance(value, list | tuple) or not all(isinstance(each, str | int | float) for each in value):
        msg = f"{where} has {name} that are no list of texts: {value!r}. Write a list."
        raise TaskError(msg)
    return [_encodable(str(each), where) for each in value if each != ""]


def _encodable(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"{where} holds half a surrogate pair at {error.start}, which no text can. Write the whole character."
        raise TaskError(msg) from error
    return text
