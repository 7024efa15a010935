"""Interventions from the command line: what they print, keep and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import cli
from tests.tiny_systems import save_tiny_system


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    kinds = {"choice": "classification", "span": "extractive", "text": "knowledge"}
    about = [
        {"name": name, "task_type": kind, "metric": "none", "file": f"{name}.jsonl", "max_new_tokens": 0}
        for name, kind in kinds.items()
    ]
    for name in kinds:
        rows = [{"text": f"{name} {n}:", "output": f"v{n}"} for n in range(3)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks.json").write_text(json.dumps({"format": "routescope-tasks/1", "tasks": about}))
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments], env={"COLUMNS": "160"})


def recorded(system: str, tasks: Path, tmp_path: Path) -> Path:
    model = save_tiny_system(tmp_path / "model", system)
    result = run("record", model, "--tasks", tasks, "--out", tmp_path / "trace")
    assert result.exit_code == 0, result.output
    return tmp_path / "trace"


def test_knock_out_of_named_experts_and_of_those_that_serve(tasks: Path, tmp_path: Path) -> None:
    trace = recorded("task_moe", tasks, tmp_path)
    asked = ["--experts", "enc00.E1,dec01·2", "--serving", "extractive", "--n-experts", 1, "--random", 2]
    result = run("knock-out", trace, *asked)
    assert result.exit_code == 0, result.output
    for said in ("extractive is served by", "enc00·E1, dec01·E2", "classification", "Kept in"):
        assert said in result.output
    (folder,) = (trace / "interventions").iterdir()
    assert {"effects.parquet", "dissociation.parquet", "result.json"} <= {each.name for each in folder.iterdir()}
    assert run("verify", trace).exit_code == 0


@pytest.mark.parametrize("system, said", [("hypermoe", "shifted"), ("pha", "own prototype is better")])
def test_what_adapters_are_made_from_is_exchanged(system: str, said: str, tasks: Path, tmp_path: Path) -> None:
    trace = recorded(system, tasks, tmp_path)
    result = run("intervene", trace, "--out", tmp_path / "kept")
    assert result.exit_code == 0, result.output
    assert said in result.output
    assert not (trace / "interventions").exists()
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_refusals_are_sentences(tasks: Path, tmp_path: Path) -> None:
    trace = recorded("task_moe", tasks, tmp_path)
    for arguments, said in (
        (["knock-out", trace], "No experts were named"),
        (["knock-out", trace, "--experts", "nonsense"], "names no expert"),
        (["knock-out", trace, "--experts", "enc07.E1"], "no expert 1 in 'enc07'"),
        (["knock-out", trace, "--serving", "poetry"], "no task_type poetry"),
        (["intervene", trace], "makes no adapters from a selection embedding"),
        (["intervene", trace, "--model", "nowhere/at/all"], "no model folder"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.output.split())
