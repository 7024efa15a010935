import torch

from moe_models.recipes import shared_batches
from moe_models.recipes.shared_batches import SharedBatches


class Source:
    """Batches that tell how often they were made."""

    tokens_a_batch = 6

    def __init__(self):
        self.made = []

    def __getitem__(self, step):
        self.made.append(step)
        return {"tokens": torch.full((2, 3), step, dtype=torch.int32), "weights": torch.rand(2, 3)}


def test_a_batch_is_made_once_and_read_by_the_others(tmp_path):
    first, second = Source(), Source()
    made, read = SharedBatches(first, tmp_path / "kept")[4], SharedBatches(second, tmp_path / "kept")[4]
    assert (first.made, second.made) == ([4], [])
    assert made.keys() == read.keys()
    assert all(torch.equal(made[name], read[name]) and made[name].dtype == read[name].dtype for name in made)
    assert SharedBatches(second, tmp_path / "kept").tokens_a_batch == 6


def test_a_batch_whose_maker_was_killed_is_made_after_all(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_batches, "_PATIENCE_SECONDS", 0.05)
    (tmp_path / "000002.claim").touch()
    source = Source()
    assert SharedBatches(source, tmp_path)[2]["tokens"][0, 0] == 2
    assert source.made == [2]
    assert not list(tmp_path.glob("*.[0-9]*"))  # nothing half-written is left
