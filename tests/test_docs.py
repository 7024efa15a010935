"""What the documents promise: their Python blocks run, their links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(document, number, text, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    if document.name != "authors-files.md"  # needs files of its own: tests/moe_models/test_authors_doc.py
    for number, text in enumerate(re.findall(r"^```python\n(.*?)^```", document.read_text(), re.S | re.M), 1)
]


@pytest.mark.slow
@pytest.mark.parametrize("document, number, text", BLOCKS)
def test_python_blocks_run(document, number, text, tmp_path):
    for folder in ("sample_checkpoints", "sample_tasks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    script = tmp_path / f"{document.stem}_{number}.py"
    script.write_text(text)
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text())
    lost = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert not lost
