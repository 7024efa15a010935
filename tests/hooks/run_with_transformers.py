"""Run the tests of hooks/ with another transformers: `python tests/hooks/run_with_transformers.py 5.17.0 [pytest …]`.

The version is installed beside the environment (`.venv-5.17.0/`, ignored by git) with only those of its requirements
that the environment does not meet, and put before it on PYTHONPATH. What that version lacks is named in the summary.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("test_families.py", "test_completeness.py", "test_exceptions.py", "test_capacity.py", "test_mxfp4.py",
         "test_image_tokens.py", "test_taps.py")  # fmt: skip


def overlay(version: str) -> Path:
    """A folder holding that transformers and the requirements that the environment does not meet."""
    folder = ROOT / f".venv-{version}"
    wanted, seen = [f"transformers=={version}"], set()
    while wanted:
        requirement = wanted.pop()
        name = Requirement(requirement).name
        if name in seen:
            continue
        seen.add(name)
        if not _held(folder, requirement):
            print(f"installing {requirement} into {folder.name}/", flush=True)
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
            subprocess.run([*command, "--target", str(folder), requirement], check=True)
        wanted += [
            str(each)
            for each in map(Requirement, _held(folder, requirement).requires or ())
            if (each.marker is None or each.marker.evaluate({"extra": ""})) and not _met(each)
        ]
    return folder


def _held(folder: Path, requirement: str) -> importlib.metadata.Distribution | None:
    wanted = Requirement(requirement)
    for held in importlib.metadata.distributions(name=wanted.name, path=[str(folder)]):
        if wanted.specifier.contains(held.version, prereleases=True):
            return held
    return None


def _met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def main(version: str, arguments: list[str]) -> int:
    """Exit status of pytest."""
    path = os.pathsep.join([str(overlay(version)), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    chosen = arguments or [str(ROOT / "tests" / "hooks" / name) for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "tests.hooks.family_report", *chosen]
    # Two processes with two threads each would stand in each other's way: 390 s in place of 48.
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
