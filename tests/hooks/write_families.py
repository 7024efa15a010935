"""Write docs/families.md: `python tests/hooks/write_families.py`, with the network for the older transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.hooks.families_page import PAGE, RESULTS, page  # noqa: E402
from tests.hooks.run_with_transformers import main as run_with  # noqa: E402

OLDER = "5.17.0"
TEST = "tests/hooks/test_families.py"


def results() -> dict[str, object]:
    """What the checks find, by version."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        os.environ["FAMILY_REPORT"] = str(report)
        plugin = [sys.executable, "-m", "pytest", "-q", "-p", "tests.hooks.family_report", TEST]
        for run in (lambda: subprocess.run(plugin, cwd=ROOT, check=False), lambda: run_with(OLDER, [TEST])):
            run()
            one = json.loads(report.read_text(encoding="utf-8"))
            found[one["transformers"]] = one
    return found


if __name__ == "__main__":
    found = results()
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {RESULTS.relative_to(ROOT)} are written.")
