import time

import pytest

from app.jobs import Jobs


@pytest.fixture
def jobs():
    jobs = Jobs()
    yield jobs
    jobs.stop()


def run(jobs, key, module, *arguments):
    deadline = time.monotonic() + 30
    while (job := jobs.ensure(key, module=module, arguments=arguments)).state in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return job


def test_a_job_leaves_its_results_in_its_folder(jobs, tmp_path, monkeypatch):
    (tmp_path / "answering.py").write_text(
        "import sys, pathlib; pathlib.Path(sys.argv[1], 'answer').write_text(sys.argv[2])"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = run(jobs, "question", "answering", "42")
    assert job.state == "done"
    assert (job.folder / "answer").read_text() == "42"


def test_a_job_that_fails_says_why_and_is_not_tried_again_unasked(jobs):
    job = run(jobs, "question", "there_is_no_such_module")
    assert job.state == "failed"
    assert "there_is_no_such_module" in job.message
    assert jobs.ensure("question", module="json.tool", arguments=()).state == "failed"
    jobs.forget("question")
    assert jobs.ensure("question", module="there_is_no_such_module", arguments=()).state == "running"


def test_a_second_job_waits_for_the_first(jobs, tmp_path, monkeypatch):
    (tmp_path / "resting.py").write_text("import sys; sys.stdin.read(); import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert jobs.ensure("first", module="resting", arguments=()).state == "running"
    assert jobs.ensure("second", module="resting", arguments=()).state == "waiting"
    assert jobs.ensure("first", module="resting", arguments=()).state == "running"
    jobs.forget("first")
    assert run_until(jobs, "second", "resting", "running")


def run_until(jobs, key, module, state):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if jobs.ensure(key, module=module, arguments=()).state == state:
            return True
        time.sleep(0.02)
    return False


def test_what_nobody_comes_back_to_is_let_go(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("app.jobs._MOST_KEPT", 2)
    (tmp_path / "answering.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folders = {key: run(jobs, key, "answering").folder for key in ("old", "used")}
    # Asked for again, the first is now the one that was used last.
    assert jobs.ensure("old", module="answering", arguments=()).state == "done"
    run(jobs, "new", "answering")
    assert jobs.standing("used") is None
    assert not folders["used"].exists()
    assert jobs.standing("old").state == "done"
    jobs.forget("old")
    assert not folders["old"].exists()
