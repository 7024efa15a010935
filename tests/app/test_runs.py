from __future__ import annotations

import os
from pathlib import Path

from app import cache
from app.recordings.listed import entries
from app.runs import Run, find_runs, places, snapshots
from routing import save_trace
from tests.traces import trace_of


def header(folder: Path, *, seconds: int = 0) -> None:
    folder.mkdir(parents=True)
    (folder / "header.json").write_text("{}")
    os.utime(folder / "header.json", (seconds, seconds))
    os.utime(folder, (seconds, seconds))


def own(runs: tuple[Run, ...], root: Path) -> list[str]:
    return [run.name for run in runs if run.path.startswith(str(root))]


def test_runs_are_found_at_any_depth_newest_first(tmp_path):
    header(tmp_path / "old", seconds=100)
    header(tmp_path / "sweep" / "lr3" / "new", seconds=900)
    (tmp_path / "no run").mkdir()
    assert own(find_runs([tmp_path]), tmp_path) == ["sweep/lr3/new", "old"]


def test_what_lies_inside_a_run_is_no_run(tmp_path):
    header(tmp_path / "run")
    header(tmp_path / "run" / "part")
    assert own(find_runs([tmp_path]), tmp_path) == ["run"]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert own(find_runs([tmp_path / "absent"]), tmp_path) == []


def test_the_environment_says_where_to_look(monkeypatch, tmp_path):
    monkeypatch.setenv("ROUTESCOPE_RUNS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert places() == (tmp_path / "a", tmp_path / "b")
    monkeypatch.delenv("ROUTESCOPE_RUNS")
    monkeypatch.chdir(tmp_path)
    assert places()[0] == tmp_path / "runs"


def test_snapshots_of_one_model_are_a_series_in_order_of_steps(tmp_path):
    for name in ("step-1000", "step-200", "final"):
        header(tmp_path / "model" / name)
    runs = find_runs([tmp_path])
    last = next(run for run in runs if run.name == "model/step-1000")
    assert [run.step for run in snapshots(runs, last)] == [200, 1000]
    alone = next(run for run in runs if run.name == "model/final")
    assert snapshots(runs, alone) == ()


def test_a_run_that_grows_gets_a_new_stamp(tmp_path):
    save_trace(trace_of([[0, 1]]), tmp_path / "run")
    before = find_runs([tmp_path])[0].stamp
    (tmp_path / "run" / "commits.jsonl").write_text("more\n" * 100)
    assert find_runs([tmp_path])[0].stamp != before


def test_shipped_snapshots_come_after_the_users_runs_the_trained_model_first(tmp_path, monkeypatch):
    monkeypatch.setattr("app.runs._SHIPPED", tmp_path / "shipped")
    for step in (0, 300, 22000):
        header(tmp_path / "shipped" / "tiny" / "traces" / f"step-{step:06d}")
    header(tmp_path / "runs" / "tiny")
    runs = find_runs([tmp_path / "runs"])
    assert [run.name for run in runs] == ["tiny", "tiny/step-022000", "tiny/step-000300", "tiny/step-000000"]
    # A run of the user that is called as a sample model belongs to its series.
    assert [run.step for run in snapshots(runs, runs[0])] == [0, 300, 22000]


def test_runs_of_one_name_in_several_folders_keep_apart(tmp_path):
    roots = [tmp_path / place / "runs" for place in ("a", "b", "c")]
    for root in roots:
        header(root / "same")
    found = [run for run in find_runs(roots) if run.path.startswith(str(tmp_path))]
    assert [run.path for run in found] == [str(root / "same") for root in roots]
    assert [run.name for run in found] == ["same", "runs/same", "runs/same (2)"]


def test_a_folder_of_runs_that_is_a_link_or_relative_holds_its_own_runs(tmp_path, monkeypatch):
    save_trace(trace_of([[0, 1]]), tmp_path / "true" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "true")
    monkeypatch.chdir(tmp_path)
    for named in (str(tmp_path / "link"), "true"):
        monkeypatch.setenv("ROUTESCOPE_RUNS", named)
        root = cache.own_runs()
        assert [each.name for each in entries(root, find_runs(places()), ())] == ["run"]


def test_what_is_kept_beside_a_trace_makes_it_no_newer(tmp_path):
    header(tmp_path / "old", seconds=100)
    header(tmp_path / "new", seconds=900)
    before = find_runs([tmp_path])
    (tmp_path / "old" / "derived").mkdir()
    assert find_runs([tmp_path]) == before
    assert own(before, tmp_path) == ["new", "old"]
