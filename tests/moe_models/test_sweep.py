import json

import pytest

from moe_models.recipes.sweep import Sweep, main, read_plan, visible_devices

NOTE = "import sys, pathlib; p = pathlib.Path(sys.argv[1]) / 'ran.txt'; p.open('a').write('x')"


def plan(folder, jobs):
    path = folder / "plan.json"
    path.write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
    return path


def job(name, code=NOTE, **options):
    return {"name": name, "command": ["python", "-c", code, "{out}"], **options}


def states(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return {entry["name"]: entry["state"] for entry in summary["jobs"]}


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_a_failing_job_blocks_what_comes_after_it_and_a_restart_does_only_the_rest(tmp_path, capsys):
    jobs = [
        job("good"),
        job("bad", "raise SystemExit('no such thing')"),
        job("after-good", after=["good"]),
        job("after-bad", after=["bad"]),
        job("after-that", after=["after-bad"]),
    ]
    assert main([str(plan(tmp_path, jobs)), "--out", str(tmp_path)]) == 1
    want = {"good": "done", "bad": "failed", "after-good": "done", "after-bad": "blocked", "after-that": "blocked"}
    assert states(tmp_path) == want
    assert "no such thing" in capsys.readouterr().out

    mended = [entry if entry["name"] != "bad" else job("bad") for entry in jobs]
    assert main([str(plan(tmp_path, mended)), "--out", str(tmp_path)]) == 0
    assert states(tmp_path)["good"] == states(tmp_path)["after-good"] == "skipped"
    assert states(tmp_path)["after-that"] == "done"
    assert all((tmp_path / entry["name"] / "ran.txt").read_text() == "x" for entry in jobs)


def test_a_changed_command_is_run_again(tmp_path):
    main([str(plan(tmp_path, [job("one")])), "--out", str(tmp_path)])
    main([str(plan(tmp_path, [job("one", NOTE + " # and more")])), "--out", str(tmp_path)])
    assert (tmp_path / "one" / "ran.txt").read_text() == "xx"


def test_marks_in_a_command_become_folders(tmp_path):
    show = "import sys, pathlib; pathlib.Path(sys.argv[1], 'words').write_text(' '.join(sys.argv[2:]))"
    second = job("b", show, after=["a"])
    second["command"] += ["{out:a}", "{data}", "{stop_after}"]
    assert main([str(plan(tmp_path, [job("a"), second])), "--out", str(tmp_path), "--data", "/corpus"]) == 0
    assert (tmp_path / "b" / "words").read_text().split()[:2] == [str(tmp_path / "a"), "/corpus"]


def test_at_the_time_limit_jobs_are_stopped_and_those_that_cannot_finish_are_not_begun(tmp_path):
    jobs = [
        job("quick"),
        job("endless", "import time; time.sleep(60)"),
        job("long", seconds=100, after=["quick"]),
    ]
    assert main([str(plan(tmp_path, jobs)), "--out", str(tmp_path), "--time-limit", "12"]) == 3
    assert states(tmp_path) == {"quick": "done", "endless": "stopped", "long": "waiting"}
    assert not (tmp_path / "long").exists()


def test_a_job_that_says_it_was_stopped_is_not_done(tmp_path):
    assert main([str(plan(tmp_path, [job("half", "raise SystemExit(3)")])), "--out", str(tmp_path)]) == 3
    assert states(tmp_path) == {"half": "stopped"}
    assert not (tmp_path / "half" / "done.json").exists()


def test_jobs_are_spread_over_devices_and_never_more_than_its_places(tmp_path):
    jobs = read_plan(plan(tmp_path, [job(f"j{n}", slots=2 if n == 0 else 1) for n in range(5)]))
    sweep = Sweep(jobs, out=tmp_path, devices=["0", "1"], per_device=2)
    assert sweep.run()
    told = json.loads((tmp_path / "summary.json").read_text())["jobs"]
    assert {entry["device"] for entry in told} == {"0", "1"}
    assert told[1]["device"] == told[2]["device"] == "1"


def test_a_plan_with_an_unknown_or_doubled_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not before it"):
        read_plan(plan(tmp_path, [job("a", after=["b"]), job("b")]))
    with pytest.raises(ValueError, match="Two jobs"):
        read_plan(plan(tmp_path, [job("a"), job("a")]))


def test_devices_are_those_the_environment_names():
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "2,3"}) == ["2", "3"]
    assert visible_devices({"CUDA_VISIBLE_DEVICES": ""}) == ["cpu"]
