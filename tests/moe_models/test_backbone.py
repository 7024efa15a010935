import json

import pytest
import torch

from moe_models.recipes.backbone import main
from moe_models.recipes.text_to_text import DEFAULT_SIZES, read_backbone, untrained_backbone
from tests.moe_models.small_corpus import write_corpus
from tests.moe_models.text_to_text import SIZES


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


def pretrain(corpus, out, *extra):
    told = ["--data", str(corpus), "--out", str(out), "--rows", "4", "--window", "24", "--device", "cpu"]
    told += ["--architecture", json.dumps(SIZES), "--log-every", "5", "--check-every", "100", "--warmup", "2"]
    return main([*told, *extra])


def test_a_backbone_learns_the_text_and_can_be_read(corpus, tmp_path):
    assert pretrain(corpus, tmp_path, "--kind", "t5", "--steps", "40", "--learning-rate", "0.01") == 0
    model, tokenizer, made = read_backbone(tmp_path)
    first, last = made["curve"][0], made["curve"][-1]
    assert last["total"] < first["total"] - 0.5
    assert set(last["dev_nll"]) == {"spans", "infilling", "continuation"}
    assert model.dtype == torch.float32
    assert model.generate(**tokenizer("a text", return_tensors="pt"), max_new_tokens=3).shape[0] == 1


def test_a_resumed_backbone_is_the_same(corpus, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert pretrain(corpus, whole, "--kind", "bart", "--steps", "4") == 0
    assert pretrain(corpus, broken, "--kind", "bart", "--steps", "4", "--stop-after", "0.001") == 3
    assert pretrain(corpus, broken, "--kind", "bart", "--steps", "4", "--resume") == 0
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


def test_a_folder_without_a_backbone_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Make one with"):
        read_backbone(tmp_path)


@pytest.mark.parametrize(("kind", "most"), [("t5", 8.6e6), ("bart", 3.5e6)])
def test_default_sizes_leave_room_for_what_is_built_on_them(kind, most):
    class Tokens:
        pad_token_id, eos_token_id = 1, 0

        def __len__(self):
            return 4096

    with torch.device("meta"):
        model = untrained_backbone(kind, DEFAULT_SIZES[kind], Tokens(), window=256, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) < most
