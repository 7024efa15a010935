"""The example of docs/authors-files.md runs, on folders as the training scripts leave them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from app.cli import cli
from routing import open_trace
from tests.authors_dicts import PHA_CONFIG, TASK_MOE_CONFIG, gpt2_dict, pha_dict, switch_dict, task_moe_dict

DOC = Path(__file__).parents[2] / "docs" / "authors-files.md"


def leave(folder, name, tensors, **small):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / name)
    for file, held in small.items():
        (folder / f"{file}.json").write_text(json.dumps(held))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """What the training scripts leave, in the folder that the reader stands in."""
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "hypermoe-squad", "pytorch_model.bin", switch_dict(), config={"expert_capacity": 64})
    leave(tmp_path / "hypermoe-gpt2", "pytorch_model.bin", gpt2_dict(), config={"k": 2})
    leave(tmp_path / "pha-glue", "pytorch_model.bin", pha_dict(), config=PHA_CONFIG)
    leave(tmp_path / "task-moe/best", "model.pt", task_moe_dict(), id2task={"0": "boolq", "1": "anli"})
    (tmp_path / "task-moe/config.json").write_text(json.dumps(TASK_MOE_CONFIG))
    np.save(tmp_path / "task-moe/best/task_vecs.npy", np.eye(2, 8, dtype=np.float32))
    (tmp_path / "task-moe/750-steps").mkdir()
    np.save(tmp_path / "task-moe/750-steps/route_t1.npy", np.full((2, 4, 3), 1 / 3))
    (tmp_path / "random.json").write_text('{"train": ["boolq", "anli"], "dev": [], "test": []}')
    (tmp_path / "ontology.json").write_text('{"classification": {"nli": ["anli"]}, "qa": {"binary": ["boolq"]}}')
    return tmp_path


def test_the_example_runs(folders, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(example, str(DOC), "exec"), {})
    said = capsys.readouterr().out
    assert "HyperMoE switch ('enc01', 'enc03', 'dec01') 4" in said
    assert "Weights left out: 12" in said
    assert "('rte', 'cola', 'qnli') (3, 4) (3, 3, 280)" in said
    assert "('anli', 'boolq') ('enc00', 'enc01', 'dec00', 'dec01')" in said
    assert (folders / "hypermoe-squad-ours/model.safetensors").is_file()


def test_the_commands_make_runs(folders):
    (block,) = re.findall(r"```bash\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.strip().splitlines():
        done = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    runs = {path.name: open_trace(path) for path in sorted((folders / "runs").iterdir())}
    assert list(runs) == ["hypermoe-squad", "pha-glue", "task-moe", "task-moe-750"]
    assert runs["task-moe"].layer_facts[0].temperature == 0.1
    assert len(runs["hypermoe-squad"].adapters) == 3 * 4
