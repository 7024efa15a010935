"""Computations beside the page: what is said while it waits, and of one that failed, which can be begun anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import cache
from app.jobs import Job, Jobs
from app.recordings.asked_plan import ask, is_asked
from tests.app.asked_recordings import left_behind
from tests.app.conftest import text_of


@pytest.mark.parametrize("message", ["MemoryError: <b>no</b> room", ""])
def test_a_computation_that_failed_can_be_tried_again(open_app, monkeypatch, message):
    forgotten: list[str] = []
    failed = Job("failed", folder=Path(), message=message, key="the question")
    monkeypatch.setattr("app.slow_answers.tables_or_job", lambda *_, **__: failed)
    monkeypatch.setattr(type(cache.jobs()), "forget", lambda _, key: forgotten.append(key))
    page = open_app("tasks", {"part": "clusters"})
    assert not page.exception
    said = text_of(page)
    assert "Experts are being clustered and tested: this ended with an error." in said
    assert ("as when the system ends it for want of memory" in said) != bool(message)
    assert [each.value for each in page.code] == ([message] if message else [])
    (again,) = (each for each in page.button if each.label == "Try again")
    again.click().run()
    assert forgotten == ["the question"]


@pytest.mark.parametrize(
    ("job", "said"), [(Job("waiting"), "after another computation."), (Job("running", 3.2), "for 3 s so far.")]
)
def test_a_page_says_what_it_waits_for(open_app, monkeypatch, job, said):
    monkeypatch.setattr("app.slow_answers.tables_or_job", lambda *_, **__: job)
    page = open_app("tasks", {"part": "clusters"})
    assert not page.exception
    assert f"Experts are being clustered and tested, {said}" in text_of(page)
    assert not any(each.label == "Try again" for each in page.button)


def test_a_job_says_which_question_it_is_of_and_a_wish_is_not_lost_while_another_is_at_work(tmp_path, monkeypatch):
    (tmp_path / "resting.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    jobs = Jobs()
    try:
        assert jobs.ensure("first", module="resting", arguments=()).key == "first"
        given = {"revision": None, "trust_remote_code": False, "jobs": jobs}
        assert not is_asked("nobody/nothing", ("sample_tasks",), **given)
        _, looking = ask("nobody/nothing", ("sample_tasks",), **given)
        assert looking.is_waiting
        assert is_asked("nobody/nothing", ("sample_tasks",), **given)
    finally:
        jobs.stop()


def test_one_that_ended_without_a_word_is_not_said_to_have_taken_no_time(open_app, tmp_path):
    left_behind(tmp_path, "killed", stage="loading", seconds=0.2, peak_bytes=1, began=1.0)
    left_behind(tmp_path, "failed", stage="failed", seconds=7.0, began=2.0, message="It broke.")
    said = text_of(open_app("recordings", runs=tmp_path))
    assert "took 7 s" in said
    assert "took 0 s" not in said
