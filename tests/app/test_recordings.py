from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from app.recordings.kept import HOME, Recordings, Request, Standing, is_locked, lock_of, standing_of, write_json
from app.recordings.worker import Ledger, put_aside, record
from routing import RecordingError, open_trace, save_trace
from tests.app.asked_recordings import cut_off, left_behind
from tests.tiny import save_tiny
from tests.traces import planted_trace

PATIENCE_SECONDS = 90


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), "olmoe", max_position_embeddings=256)


def tasks_in(folder: Path, n_prompts: int) -> Path:
    path = folder / "asked.jsonl"
    rows = [{"text": f"is {n} even?", "target": " yes", "task": "even", "metric": "none"} for n in range(n_prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(tmp_path: Path, model: Path):
    """A request for a recording of some prompts, of the tiny model unless another is named."""

    def request(n_prompts: int = 4, **changes) -> Request:
        known = {"model": str(model), "tasks": (str(tasks_in(tmp_path, n_prompts)),), "out": str(tmp_path / "one")}
        return Request(**(known | {"batch_size": 2} | changes))

    return request


def until(recordings: Recordings, name: str, reached) -> Standing:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reached(standing := recordings.standing(name)):
        assert time.monotonic() < deadline, standing
        time.sleep(0.02)
    return standing


def has_ended(standing: Standing) -> bool:
    return not standing.is_alive


@pytest.mark.slow
def test_two_servers_share_one_recording_and_what_is_cancelled_is_kept(tmp_path, asked):
    recordings, other = Recordings(tmp_path), Recordings(tmp_path)
    assert recordings.standing("one") is None
    assert recordings.start("one", asked(2000)).is_alive
    assert other.start("one", asked(2000, limit=1)).request.limit is None
    under_way = until(other, "one", lambda each: each.n_prompts >= 4 or not each.is_alive)
    assert (under_way.stage, under_way.n_prompts_total) == ("recording", 2000)
    assert under_way.tokens_a_second > 0
    assert [each.name for each in other.all()] == ["one"]
    other.stop("one")
    assert recordings.standing("one").stage in ("stopping", "stopped")
    assert until(recordings, "one", has_ended).stage == "stopped"
    kept = open_trace(tmp_path / "one")
    assert kept.n_tokens > 0
    assert not kept.provenance.complete


def test_a_trace_that_was_cut_off_is_replaced_once_there_is_another(tmp_path, asked):
    save_trace(cut_off(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2)), tmp_path / "one")
    before = open_trace(tmp_path / "one").digest
    ledger = Ledger(tmp_path)
    with pytest.raises(RecordingError, match="There is no model folder"):
        record(asked(model=str(tmp_path / "no model"), replaces=True), ledger, folder=tmp_path)
    assert open_trace(tmp_path / "one").digest == before
    record(asked(replaces=True), ledger, folder=tmp_path)
    ledger.stage("done")
    assert open_trace(tmp_path / "one").provenance.complete
    assert not (tmp_path / "replaced").exists()
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["stage"], told["n_prompts"], told["n_prompts_total"]) == ("done", 4, 4)


def test_what_came_to_its_end_or_is_being_written_is_not_replaced(tmp_path):
    save_trace(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2), tmp_path / "whole")
    with pytest.raises(RecordingError, match="came to its end"):
        put_aside(tmp_path / "whole", tmp_path / "aside")
    save_trace(cut_off(planted_trace(seed=0, n_tasks=2, n_prompts_a_task=2)), tmp_path / "part")
    with lock_of(tmp_path / "part" / "commits.jsonl"), pytest.raises(RecordingError, match="being written"):
        put_aside(tmp_path / "part", tmp_path / "aside")
    put_aside(tmp_path / "part", tmp_path / "aside")
    assert not (tmp_path / "part").exists()


def test_one_that_waits_for_its_turn_can_be_cancelled_by_a_server_that_did_not_start_it(tmp_path, asked):
    (tmp_path / HOME).mkdir()
    with lock_of(tmp_path / HOME / "turn", is_patient=True) as lock:
        assert lock is not None
        Recordings(tmp_path).start("one", asked())
        other = Recordings(tmp_path)
        assert until(other, "one", lambda each: each.stage == "waiting")
        other.stop("one")
        assert until(other, "one", has_ended).stage == "stopped"


def test_a_process_that_was_killed_is_found_lost_by_the_next_server(tmp_path, asked):
    recordings = Recordings(tmp_path)
    folder = tmp_path / HOME / "one"
    (tmp_path / HOME).mkdir()
    with lock_of(tmp_path / HOME / "turn", is_patient=True):
        recordings.start("one", asked())
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
        assert until(recordings, "one", has_ended).stage == "lost"
    assert Recordings(tmp_path).standing("one").stage == "lost"


def test_a_recording_ends_with_the_app_that_started_it(tmp_path, asked):
    (tmp_path / HOME).mkdir()
    write_json(tmp_path / "request.json", asdict(asked()))
    code = f"""
import json, sys, time
from pathlib import Path
from app.recordings.kept import Recordings, read_request
recordings = Recordings(Path({str(tmp_path)!r}))
recordings.start("one", read_request(Path({str(tmp_path)!r})))
"""
    with lock_of(tmp_path / HOME / "turn", is_patient=True):
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root)
        assert Recordings(tmp_path).standing("one").stage == "stopped"


@pytest.mark.parametrize(
    ("told", "is_held", "stage"),
    [
        ({"stage": "recording", "n_prompts": 3}, True, "recording"),
        ({"stage": "recording", "n_prompts": 3}, False, "lost"),
        ({"stage": "done"}, False, "done"),
        ({"stage": "done"}, True, "done"),  # it has said so, and only has to leave
        ({}, True, "waiting"),
        ({}, False, "lost"),
    ],
)
def test_what_the_disk_says_of_a_recording(tmp_path, asked, told, is_held, stage):
    folder = left_behind(tmp_path, "one", asked(), **told)
    with (folder / "lock").open("w") as lock:
        if is_held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_locked(folder / "lock") == is_held
        assert standing_of(folder).stage == stage


def test_names_of_runs_become_one_folder_each(tmp_path, asked):
    left_behind(tmp_path, "sweep%2Flr%203", asked(), stage="stopped")
    (found,) = Recordings(tmp_path).all()
    assert found.name == "sweep/lr 3"
    assert Recordings(tmp_path).standing("sweep/lr 3") == found


def test_the_time_that_is_left_follows_the_prompts_that_are_done(asked):
    half = Standing(
        name="x",
        request=asked(),
        stage="recording",
        n_prompts=10,
        n_prompts_total=40,
        n_tokens=500,
        recording_seconds=5.0,
    )
    assert half.tokens_a_second == 100.0
    assert half.seconds_left == 15.0  # 5 s for 10 prompts, 30 to go


@pytest.fixture
def offered(open_app, tmp_path: Path):
    """Open the app on one run, "one", beside a model folder "tiny" that was never recorded."""
    runs, models = tmp_path / "runs", tmp_path / "models"
    (models / "tiny").mkdir(parents=True)
    (models / "tiny" / "config.json").write_text('{"architectures": ["TinyForCausalLM"]}')
    card = "---\ntags: [x]\n---\n# tiny\n\nA **small** model, 1.5 M parameters. See [its twin](../twin). Third.\n"
    (models / "tiny" / "README.md").write_text(card)
    save_trace(planted_trace(seed=0, n_prompts_a_task=2, n_layers=2), runs / "one")

    def opened(run: str, view: str = ""):
        return open_app(view, {"run": run}, runs=runs, models=models)

    return opened


def said(page) -> str:
    return "\n".join(str(each.value) for each in [*page.title, *page.markdown, *page.error, *page.info, *page.warning])


def test_a_model_that_was_never_recorded_is_offered_beside_the_runs(offered):
    page = offered("one", "load")
    assert page.selectbox(key="choice_run").options == ["one", "tiny · not recorded yet"]


def test_choosing_it_says_what_it_is_and_shows_how_far_its_recording_is(offered, asked, tmp_path):
    told = {"stage": "recording", "n_prompts": 30, "n_prompts_total": 120, "n_tokens": 900, "recording_seconds": 3.0}
    folder = left_behind(tmp_path / "runs", "tiny", asked(), began=time.time() - 7, **told)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        page = offered("tiny", "load")
        assert not page.exception
        assert page.title[0].value == "Recording tiny"
        assert "A small model, 1\\.5 M parameters\\. See its twin\\." in said(page)
        assert "Third" not in said(page)
        assert "**30** of 120 prompts · 300 tokens/s" in said(page)
        assert "about 9 s to go" in said(page)
        assert page.selectbox(key="choice_run").options == ["one", "tiny · being recorded"]
        assert page.button(key="cancel_tiny").label == "Cancel"


def test_one_that_failed_is_not_tried_again_unasked_and_says_why(offered, asked, tmp_path):
    left_behind(tmp_path / "runs", "tiny", asked(), stage="failed", message="It holds <b>no</b> weights. Copy them.")
    page = offered("tiny")
    assert page.title[0].value == "tiny is not recorded yet"
    assert "weights\\. Copy them\\." in page.error[0].value
    assert "<b>" not in page.error[0].value
    assert page.button(key="record").label == "Record it"


def test_a_trace_that_was_cut_off_opens_and_offers_to_be_recorded_anew(offered, asked, tmp_path):
    save_trace(cut_off(planted_trace(seed=0, n_prompts_a_task=2, n_layers=2)), tmp_path / "runs" / "tiny")
    page = offered("tiny", "load")
    assert not page.exception
    assert "was cut off before its end" in said(page)
    assert page.title[0].value.startswith("Who does the work")
    assert page.button(key="record").label == "Record anew"
    with lock_of(tmp_path / "runs" / "tiny" / "commits.jsonl", is_patient=True):
        assert "being recorded right now" in said(offered("tiny", "load"))
