"""Reading the authors' files: what lies beside the weights is found, and nothing that could run code is opened."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from moe_models.authors import AuthorsFileError, open_checkpoint, state_dict
from tests.authors_dicts import TASK_MOE_CONFIG, drawn

TENSORS = drawn({"a.weight": (2, 3), "b": (4,)}, seed=0)


class Trap:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors_and_plain_torch_files_give_the_same_tensors(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    torch.save(TENSORS, tmp_path / "model.pt")
    assert same(state_dict(tmp_path / "model.safetensors"), TENSORS)
    assert same(state_dict(tmp_path / "model.pt"), TENSORS)


@pytest.mark.parametrize("write", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))])
def test_a_pickle_that_would_run_code_is_refused_unopened(tmp_path, write):
    opened = tmp_path / "opened"
    write({"a": torch.zeros(1), "trap": Trap(opened)}, tmp_path / "model.pt")
    with pytest.raises(AuthorsFileError, match="weights_only=True.*Save the bare state dict"):
        state_dict(tmp_path / "model.pt")
    assert not opened.exists()


def test_a_training_checkpoint_and_a_file_without_names_are_refused(tmp_path):
    torch.save({"model": TENSORS, "epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(AuthorsFileError, match=r"model \(dict\), epoch \(int\)"):
        state_dict(tmp_path / "model.pt")
    torch.save([torch.zeros(1)], tmp_path / "model.pt")
    with pytest.raises(AuthorsFileError, match="holds a list, not a state dict"):
        state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_file_cut_off_is_refused(tmp_path, name):
    whole = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(TENSORS, whole)
    whole.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(AuthorsFileError, match=f"{name} is broken"):
        state_dict(whole)
    whole.write_bytes(b"")
    with pytest.raises(AuthorsFileError, match=f"{name} is broken"):
        state_dict(whole)


def test_a_folder_is_read_with_what_lies_in_it_and_above(tmp_path):
    best = tmp_path / "best"
    best.mkdir()
    torch.save(TENSORS, best / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(TASK_MOE_CONFIG))
    (best / "id2task.json").write_text(json.dumps({"1": "boolq", "0": "anli"}))
    np.save(best / "task_vecs.npy", np.ones((2, 5), dtype=np.float32))
    held = open_checkpoint(best)
    assert same(held.tensors, TENSORS)
    assert held.config == TASK_MOE_CONFIG
    assert held.tasks == ("anli", "boolq")
    assert held.task_vectors.shape == (2, 5)
    assert same(open_checkpoint(best / "model.pt").tensors, TENSORS)


def test_pha_names_its_tasks_in_config(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"tasks": ["rte", "cola"]}')
    assert open_checkpoint(tmp_path).tasks == ("rte", "cola")
    (tmp_path / "config.json").write_text('{"tasks": "rte"}')
    with pytest.raises(AuthorsFileError, match="tasks is 'rte' instead of a list"):
        open_checkpoint(tmp_path)


def test_a_folder_without_one_file_of_weights_is_refused(tmp_path):
    with pytest.raises(AuthorsFileError, match=r"no weights at .*pytorch_model.bin"):
        open_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(AuthorsFileError, match="in several files"):
        open_checkpoint(tmp_path)
    with pytest.raises(AuthorsFileError, match="There is no file"):
        state_dict(tmp_path / "gone.pt")


def test_small_files_of_another_form_are_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text("{tasks: 1}")
    with pytest.raises(AuthorsFileError, match="cannot be read as JSON"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(AuthorsFileError, match="holds a list instead of an object"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "id2task.json").write_text('{"1": "a", "2": "b"}')
    with pytest.raises(AuthorsFileError, match="each row 0 to 1 one task"):
        open_checkpoint(tmp_path)


def test_arrays_of_objects_and_of_no_numbers_are_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "model.pt")
    opened = tmp_path / "opened"
    np.save(tmp_path / "task_vecs.npy", np.array([Trap(opened)]), allow_pickle=True)
    with pytest.raises(AuthorsFileError, match="arrays of pickled objects are never opened"):
        open_checkpoint(tmp_path)
    assert not opened.exists()
    np.save(tmp_path / "task_vecs.npy", np.array([[np.nan]]))
    with pytest.raises(AuthorsFileError, match="finite floating-point"):
        open_checkpoint(tmp_path)
