"""A pytest plugin that writes what became of each family's checks: `-p tests.hooks.family_report`.

The file is named by the environment variable FAMILY_REPORT.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
import transformers

OUTCOMES: dict[str, dict[str, str]] = defaultdict(dict)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst outcome of a family's check."""
    if "test_families.py::" not in report.nodeid or "[" not in report.nodeid:
        return
    check, _, arguments = report.nodeid.split("::")[-1].partition("[")
    family = arguments.removesuffix("]").removesuffix("-left").removesuffix("-right")
    family = family.removeprefix("left-").removeprefix("right-")
    if report.failed or report.when == "call":
        worst = "failed" in (report.outcome, OUTCOMES[family].get(check))
        OUTCOMES[family][check] = "failed" if worst else "passed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write them, by family; of several processes the one that hears from all."""
    if (target := os.environ.get("FAMILY_REPORT")) and not hasattr(session.config, "workerinput"):
        found = {"transformers": transformers.__version__, "families": dict(sorted(OUTCOMES.items()))}
        Path(target).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
