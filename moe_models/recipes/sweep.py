"""Run many recipes on the GPUs there are: ``python -m moe_models.recipes.sweep PLAN.json --out DIR``.

A plan is ``{"jobs": [{"name", "command", "after", "slots", "seconds"}, …]}``. A command is a list of words, in which
``{out}`` is the job's own folder, ``{out:NAME}`` another job's, ``{data}`` the corpus, ``{stop_after}`` how many
seconds are left (for recipes that can stop and be resumed). ``after`` names jobs that must be done first, ``slots`` (1)
how many of a GPU's places it takes, ``seconds`` about how long it runs: it is not started when less is left, unless it
can stop.

Exit codes: 0 is done, 3 is stopped with its state saved, anything else has failed; jobs after a failed one are blocked,
all others go on. A second start skips what is done. With no GPU, jobs run on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_STOPPED_EXIT = 3
_LEAST_SECONDS = 20.0
_GRACE_SECONDS = 10.0
"""What a job may take to save its state and end, before the time limit."""


@dataclass(kw_only=True)
class Job:
    """One command of a plan, and how it stands: waiting, running, done, skipped, stopped, failed, blocked."""

    name: str
    command: list[str]
    after: list[str] = field(default_factory=list)
    slots: int = 1
    seconds: float = 0.0
    state: str = "waiting"
    device: str | None = None
    took: float | None = None
    exit_code: int | None = None

    @property
    def can_stop(self) -> bool:
        """Whether the command is told when to stop."""
        return any("{stop_after}" in word for word in self.command)


@dataclass(kw_only=True)
class _Running:
    job: Job
    process: subprocess.Popen
    started: float


def read_plan(path: Path) -> list[Job]:
    """Return the jobs of a plan, in its order.

    Raises:
        ValueError: two jobs have one name, or a job comes after one that stands not before it in the plan.
    """
    jobs: list[Job] = []
    for entry in json.loads(path.read_text(encoding="utf-8"))["jobs"]:
        job = Job(**entry)
        known = {other.name for other in jobs}
        if job.name in known:
            message = f"Two jobs of the plan are named {job.name!r}. Give each its own name: it is its folder."
            raise ValueError(message)
        if missing := [name for name in job.after if name not in known]:
            message = f"Job {job.name!r} comes after {missing}, not before it in the plan. Put those jobs first."
            raise ValueError(message)
        jobs.append(job)
    return jobs


class Sweep:
    """A plan on its way.

    Args:
        jobs: in the order in which they shall start.
        out: folder of all jobs' folders, logs and the summary.
        devices: GPU numbers, or ``cpu``.
        per_device: jobs that run on a device together.
        time_limit: seconds after which nothing runs any more; None for no limit.
        data: the corpus, for ``{data}``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        out: Path,
        devices: Sequence[str],
        per_device: int,
        time_limit: float | None = None,
        data: Path | None = None,
    ) -> None:
        self.jobs, self._out, self._data = list(jobs), out, data
        self._free = {device: per_device for device in devices}
        for job in self.jobs:
            # A job that wants more places than a device has takes the device for itself.
            job.slots = min(job.slots, per_device)
        self._n_threads = max(1, (os.cpu_count() or 1) // (per_device * len(devices)))
        self._started = time.monotonic()
        self._deadline = None if time_limit is None else self._started + time_limit
        self._running: list[_Running] = []

    def run(self) -> bool:
        """Run until every job has ended or the time is up; return whether all of them are done."""
        for job in self.jobs:
            if self._was_done(job):
                job.state = "skipped"
        try:
            while self._time_left() > _GRACE_SECONDS:
                self._collect()
                self._block()
                while ready := self._next():
                    self._start(*ready)
                if not self._running:
                    break
                time.sleep(0.05)
        finally:
            self._stop_all()
            self._write_summary()
        return all(job.state in ("done", "skipped") for job in self.jobs)

    def _time_left(self) -> float:
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def _next(self) -> tuple[Job, str] | None:
        done = {job.name for job in self.jobs if job.state in ("done", "skipped")}
        left = self._time_left() - _GRACE_SECONDS
        for job in self.jobs:
            if job.state != "waiting" or not done.issuperset(job.after):
                continue
            if left < (_LEAST_SECONDS if job.can_stop else max(job.seconds, 1.0)):
                continue
            device = max(self._free, key=lambda name: self._free[name])
            if self._free[device] >= job.slots:
                return job, device
        return None

    def _start(self, job: Job, device: str) -> None:
        folder = self._out / job.name
        folder.mkdir(parents=True, exist_ok=True)
        left = self._time_left()
        stop_after = 1e9 if left == float("inf") else max(1.0, left - 2 * _GRACE_SECONDS)
        words = [word.replace("{stop_after}", f"{stop_after:.0f}") for word in self._words(job)]
        threads = str(self._n_threads)
        settings = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
        settings |= {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": device.removeprefix("cpu")}
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                words, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings, start_new_session=True
            )
        job.state, job.device = "running", device
        self._free[device] -= job.slots
        self._running.append(_Running(job=job, process=process, started=time.monotonic()))
        self._tell(f"start {job.name} on {device}")

    def _words(self, job: Job) -> list[str]:
        places = {"{out}": str(self._out / job.name), "{data}": str(self._data), "{python}": sys.executable}
        places |= {f"{{out:{other.name}}}": str(self._out / other.name) for other in self.jobs}
        words = job.command
        for mark, value in places.items():
            words = [word.replace(mark, value) for word in words]
        return [sys.executable if word == "python" and not number else word for number, word in enumerate(words)]

    def _collect(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            if code is not None:
                state = {0: "done", _STOPPED_EXIT: "stopped"}.get(code, "failed")
                self._end(running, state=state, code=code)

    def _end(self, running: _Running, *, state: str, code: int | None) -> None:
        job = running.job
        job.state, job.exit_code, job.took = state, code, round(time.monotonic() - running.started, 1)
        self._free[job.device or ""] += job.slots
        self._running.remove(running)
        if state == "done":
            mark = {"command": self._words(job), "seconds": job.took}
            (self._out / job.name / "done.json").write_text(json.dumps(mark) + "\n", encoding="utf-8")
        self._tell(f"{state} {job.name} after {job.took} s")
        if state == "failed":
            for line in _tail(self._out / job.name / "log.txt"):
                print(f"    {line}", flush=True)

    def _block(self) -> None:
        for job in self.jobs:
            lost = {other.name for other in self.jobs if other.state in ("failed", "blocked")}
            if job.state == "waiting" and lost.intersection(job.after):
                job.state = "blocked"

    def _stop_all(self) -> None:
        for running in self._running:
            os.killpg(running.process.pid, signal.SIGTERM)
        latest = time.monotonic() + _GRACE_SECONDS / 2
        for running in list(self._running):
            try:
                running.process.wait(timeout=max(0.1, latest - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()
            code = running.process.returncode
            self._end(running, state="done" if code == 0 else "stopped", code=code)

    def _was_done(self, job: Job) -> bool:
        path = self._out / job.name / "done.json"
        return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["command"] == self._words(job)

    def _tell(self, what: str) -> None:
        n_waiting = sum(job.state == "waiting" for job in self.jobs)
        now = time.monotonic() - self._started
        print(f"[{now:6.1f} s] {what} · {len(self._running)} running, {n_waiting} waiting", flush=True)

    def _write_summary(self) -> None:
        told = [
            {
                "name": job.name,
                "state": job.state,
                "seconds": job.took,
                "device": job.device,
                "exit_code": job.exit_code,
            }
            for job in self.jobs
        ]
        whole = {"seconds": round(time.monotonic() - self._started, 1), "jobs": told}
        (self._out / "summary.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        for state in dict.fromkeys(job.state for job in self.jobs):
            its = [job for job in self.jobs if job.state == state]
            slow = max((job.took or 0.0 for job in its), default=0.0)
            print(f"{state}: {len(its)}" + (f", the longest {slow:.0f} s" if slow else ""), flush=True)


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the numbers of the GPUs this process may use, or ``["cpu"]``."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [number.strip() for number in listed.split(",") if number.strip()] or ["cpu"]
    if not shutil.which("nvidia-smi"):
        return ["cpu"]
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, _ in enumerate(line for line in told.splitlines() if line.startswith("GPU"))] or [
        "cpu"
    ]


def _tail(path: Path, *, n_lines: int = 12) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-n_lines:] if path.is_file() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan; return 0 if every job is done, 1 if one failed, 3 if time ran out."""
    parser = argparse.ArgumentParser(description="Run the jobs of a plan on the GPUs there are.")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of all jobs' folders")
    parser.add_argument("--data", type=Path, help="the corpus, for {data}")
    parser.add_argument("--per-gpu", type=int, default=3, help="jobs that share a GPU")
    parser.add_argument("--time-limit", type=float, help="seconds after which nothing runs any more")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(
        read_plan(options.plan),
        out=options.out,
        devices=visible_devices(),
        per_device=options.per_gpu,
        time_limit=options.time_limit,
        data=options.data,
    )
    if sweep.run():
        return 0
    return 1 if any(job.state in ("failed", "blocked") for job in sweep.jobs) else _STOPPED_EXIT


if __name__ == "__main__":
    sys.exit(main())
