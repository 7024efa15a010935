"""Recordings at their edges: files of yesterday, processes that just began, rows that could not be read at once."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from app.recordings import estimate as estimates
from app.recordings.asked_plan import Looking
from app.recordings.dropped import dropped_folder, keep, sweep
from app.recordings.kept import Recordings, Request, is_stopped, write_json
from app.recordings.live import LiveCounts
from app.recordings.models import place_of, shown_path
from app.recordings.record_sentences import why_no_name
from app.recordings.worker import main as work
from app.runs import REPOSITORY
from routing import open_trace, save_trace
from tests.app.asked_recordings import left_behind, outlook_of
from tests.traces import planted_trace


class File(SimpleNamespace):
    """A file as the browser hands it over."""

    def getvalue(self) -> bytes:
        return self.content


def test_a_file_of_yesterday_that_is_dropped_again_outlives_the_sweeping(tmp_path):
    file = File(name="a.jsonl", content=b"1")
    (path,) = keep([file], tmp_path)
    os.utime(path.parent, (0, 0))
    assert keep([file], tmp_path) == (path,)
    sweep(tmp_path)
    assert path.exists()


def test_sweeping_passes_over_what_is_no_folder(tmp_path):
    stray = dropped_folder(tmp_path) / "stray"
    stray.parent.mkdir(parents=True)
    stray.touch()
    os.utime(stray, (0, 0))
    sweep(tmp_path)
    assert stray.exists()


class Halting:
    """Experts of a trace whose second stretch cannot be read the first time."""

    def __init__(self, experts) -> None:
        self._experts, self.n_reads = experts, 0

    def __getitem__(self, rows):
        self.n_reads += 1
        if self.n_reads == 2:
            msg = "the disk is busy"
            raise OSError(msg)
        return self._experts[rows]


def test_rows_of_a_look_that_failed_are_not_counted_twice(tmp_path, monkeypatch):
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=2)
    names = ("n_tokens", "n_layers", "n_experts", "layer_facts", "absent", "layers", "unit", "counts")
    seen = SimpleNamespace(**{name: getattr(trace, name) for name in names}, experts=Halting(trace.experts))
    monkeypatch.setattr("app.recordings.live.open_trace", lambda _: seen)
    monkeypatch.setattr("app.recordings.live._ROWS_AT_ONCE", 4)
    monkeypatch.setattr("app.recordings.live._SECONDS_BETWEEN_LOOKS", 0.0)
    watching = LiveCounts(tmp_path / "one", tmp_path)
    watching.refresh()
    watching.refresh()
    told = json.loads((tmp_path / "live.json").read_text())
    assert np.sum(told["counts"]) == trace.n_tokens * sum(each.top_k for each in trace.layer_facts)


def asked(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "request.json", asdict(Request(model="m", tasks=("t",), out=str(folder / "out"))))
    return folder


def test_one_that_is_stopped_while_it_begins_has_no_process_to_end_yet(tmp_path):
    recordings = Recordings(tmp_path)
    folder = asked(recordings.folder("one"))
    (folder / "pid").touch()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recordings.stop("one")
        assert recordings.standing("one").stage == "stopping"
    assert is_stopped(folder)


def test_a_process_that_finds_itself_stopped_records_nothing(tmp_path):
    folder = asked(tmp_path / "one")
    (folder / "stop").touch()
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    work(folder, lock)
    assert json.loads((folder / "progress.json").read_text())["stage"] == "stopped"


def test_one_is_said_to_wait_only_where_another_is_at_work(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("app.recordings.worker.Ledger.stage", lambda _, name, message="": told.append(name))
    folder = asked(tmp_path / "one")
    work(folder, os.open(folder / "lock", os.O_CREAT | os.O_RDWR))
    assert "waiting" not in told


def test_memory_that_holds_files_read_before_is_free(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n")
    for name, text in (
        ("memory.max", "8000000000"),
        ("memory.current", "7000000000"),
        ("memory.stat", "anon 1000000000\ninactive_file 5000000000\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(estimates, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(estimates, "_CGROUP", tmp_path)
    assert estimates.free_memory() == 6_000_000_000


def test_a_name_fits_into_the_name_of_a_folder():
    assert why_no_name("a" * 80, []) == ""
    assert "cannot name a folder" in why_no_name("a" * 81, [])
    # Each of these would take nine letters.
    assert "cannot name a folder" in why_no_name("a" + "名" * 79, [])


def test_a_path_is_found_again_from_whatever_folder_the_app_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (REPOSITORY / "sample_tasks", tmp_path / "mine"):
        assert place_of(shown_path(path)) == path


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_text_that_is_kept_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch, is_whole):
    from app.views.try_it.keeping import kept_as

    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2, n_layers=2)
    if not is_whole:

        def half(trace, folder):
            save_trace(trace, folder)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("app.views.try_it.keeping.save_trace", half)
    problem = kept_as(trace, tmp_path / "mine")
    assert (tmp_path / "mine").exists() == is_whole
    assert [each.name for each in tmp_path.iterdir()] == (["mine"] if is_whole else [])
    assert ("No space left" in problem) != is_whole
    if is_whole:
        assert open_trace(tmp_path / "mine").n_tokens == trace.n_tokens


def test_what_others_record_meanwhile_leaves_the_name_that_is_being_typed(open_app, tmp_path, monkeypatch):
    runs, models = tmp_path / "runs", tmp_path / "models"
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "config.json").write_text("{}")
    monkeypatch.setattr("app.recordings.form.ask", lambda *_, **__: ("key", Looking(outlook=outlook_of())))
    test = open_app("recordings", runs=runs, models=models)
    test = test.text_input(key="record_name_tiny_0").set_value("mine").run()
    left_behind(runs, "tiny", stage="failed")
    test = test.run()
    assert test.text_input(key="record_name_tiny_0").value == "mine"
