from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.recordings.dropped import dropped_folder, keep, sweep, without_places
from app.recordings.kept import HOME, Recordings, lock_of, write_json
from app.recordings.listed import bytes_below, entries, remove
from app.recordings.live import LiveCounts, live_of
from app.recordings.record_sentences import duration, first_and_rest, of_live, why_no_name
from app.runs import find_runs
from routing import RecordingError, RoutingTrace, open_trace, save_trace
from tests.app.asked_recordings import cut_off, left_behind
from tests.counted import counted
from tests.traces import planted_trace


def small(seed: int = 0) -> RoutingTrace:
    return planted_trace(seed=seed, n_tasks=2, n_prompts_a_task=2, n_layers=2)


def listed(root: Path):
    return {each.name: each for each in entries(root, find_runs([root]), Recordings(root).all())}


def test_the_list_holds_what_was_asked_for_here_and_what_was_made_elsewhere(tmp_path):
    save_trace(small(), tmp_path / "by hand")
    save_trace(small(), tmp_path / "done")
    save_trace(cut_off(small()), tmp_path / "half")
    left_behind(tmp_path, "done", stage="done")
    left_behind(tmp_path, "half", stage="stopped")
    left_behind(tmp_path, "bad", stage="failed", message="It holds no weights. Copy them.")
    left_behind(tmp_path, "killed", stage="recording")
    left_behind(tmp_path, "gone", stage="done")
    found = listed(tmp_path)
    states = {
        name: each.state(open_trace(each.run.path) if each.run is not None else None) for name, each in found.items()
    }
    # Whose trace came to its end and is gone was removed by hand.
    assert states == {
        "by hand": "finished",
        "done": "finished",
        "half": "cancelled",
        "bad": "failed",
        "killed": "cut off",
    }
    assert bytes_below(open_trace(tmp_path / "done")) > 1000


def test_what_is_deleted_is_gone_with_all_that_was_asked(tmp_path):
    save_trace(small(), tmp_path / "one")
    left_behind(tmp_path, "one", stage="done")
    remove(tmp_path, listed(tmp_path)["one"])
    assert listed(tmp_path) == {}
    assert [each.name for each in tmp_path.iterdir()] == [HOME]
    assert list((tmp_path / HOME).iterdir()) == []


def test_what_is_being_written_or_lies_elsewhere_is_not_deleted(tmp_path):
    root = tmp_path / "runs"
    save_trace(cut_off(small()), root / "one")
    with lock_of(root / "one" / "commits.jsonl"), pytest.raises(RecordingError, match="being recorded"):
        remove(root, listed(root)["one"])
    folder = left_behind(root, "asked", stage="recording")
    with lock_of(folder / "lock"), pytest.raises(RecordingError, match="Cancel it first"):
        remove(root, listed(root)["asked"])
    save_trace(small(), tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordingError, match="lies outside"):
        remove(root, listed(root)["link"])
    assert open_trace(tmp_path / "elsewhere").n_tokens
    assert open_trace(root / "one").n_tokens


class File:
    """A file as the browser hands it over."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self._content = name, content

    def getvalue(self) -> bytes:
        return self._content


def test_dropped_files_keep_their_name_and_no_path(tmp_path):
    row = b'{"text": "a"}\n'
    same, again, evil = keep(
        [File("my tasks.jsonl", row), File("my tasks.jsonl", row), File("../../..\\etc/.cron.jsonl", row)], tmp_path
    )
    assert same == again
    assert same.name == "my_tasks.jsonl"
    assert evil.name == "cron.jsonl"
    assert evil.is_relative_to(dropped_folder(tmp_path))
    assert same.read_bytes() == row
    assert without_places(f"{same}, line 1 is not JSON", tmp_path) == "my_tasks.jsonl, line 1 is not JSON"


def test_dropped_files_stay_while_a_recording_names_them(tmp_path):
    import os

    used, unused = keep([File("a.jsonl", b"1"), File("b.jsonl", b"2")], tmp_path)
    folder = left_behind(tmp_path, "one", stage="done")
    request = json.loads((folder / "request.json").read_text()) | {"tasks": [str(used)]}
    write_json(folder / "request.json", request)
    sweep(tmp_path)
    assert unused.exists()  # of today
    for path in (used, unused):
        os.utime(path.parent, (0, 0))
    sweep(tmp_path)
    assert used.exists()
    assert not unused.parent.exists()


@pytest.mark.parametrize("level", ["full", "counts"])
def test_the_load_so_far_is_that_of_the_trace(tmp_path, level):
    trace = planted_trace(seed=1, n_tasks=2, n_prompts_a_task=3, n_layers=2, popular={(1, 3): 4.0})
    trace = counted(trace) if level == "counts" else trace
    folder = tmp_path / "asked"
    folder.mkdir()
    watching = LiveCounts(tmp_path / "one", folder)
    watching.refresh()
    assert live_of(folder) is None  # nothing is there, and that ends nothing
    save_trace(trace, tmp_path / "one")
    LiveCounts(tmp_path / "one", folder).refresh()
    live = live_of(folder)
    assert live.n_rows == trace.n_tokens
    assert np.allclose(live.load.sum("expert"), 1)
    assert int(live.load.sel(layer="L01").argmax("expert")) == 3
    assert "**L01·E3** is the busiest" in of_live(live)


def test_rows_are_counted_once_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr("app.recordings.live._SECONDS_BETWEEN_LOOKS", 0.0)
    save_trace(cut_off(small()), tmp_path / "one")
    watching = LiveCounts(tmp_path / "one", tmp_path)
    watching.refresh()
    first = json.loads((tmp_path / "live.json").read_text())
    watching.refresh()
    assert json.loads((tmp_path / "live.json").read_text()) == first
    trace = open_trace(tmp_path / "one")
    assert np.sum(first["counts"]) == trace.n_tokens * sum(each.top_k for each in trace.layer_facts)


def test_words():
    assert [duration(each) for each in (4.4, 60, 200, 7500)] == ["4 s", "1 min", "3 min 20 s", "2 h 5 min"]
    assert first_and_rest("X holds no y. Copy it. Then go on.") == ("X holds no y.", "Copy it. Then go on.")
    assert first_and_rest("About 1.5 GB of x") == ("About 1.5 GB of x", "")
    assert why_no_name("a.b-1", []) == ""
    for name, told in (("", "needs a name"), ("../up", "cannot name a folder"), (".hidden", "begin with a letter")):
        assert told in why_no_name(name, [])
    assert "already" in why_no_name("one", ["one"])
