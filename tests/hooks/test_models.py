"""Loading by folder, and every way in which that fails in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hooks import load_model
from routing import RecordingError
from tests.tiny import byte_tokenizer, save_tiny, tiny_model
from tests.tiny_systems import SYSTEMS, save_tiny_system, tiny_system


@pytest.mark.parametrize(
    "family, name", [("olmoe", "OlmoeForCausalLM"), ("switch", "SwitchTransformersForConditionalGeneration")]
)
def test_the_class_is_the_one_that_the_config_names(family: str, name: str, tmp_path: Path) -> None:
    model, tokenizer = load_model(save_tiny(tmp_path, family))
    assert type(model).__name__ == name
    assert not model.training
    assert tokenizer("ab")["input_ids"] == byte_tokenizer()("ab")["input_ids"]
    ids = {"input_ids": torch.tensor([[5, 6, 7]])} | (
        {"decoder_input_ids": torch.tensor([[0, 9]])} if family == "switch" else {}
    )
    with torch.no_grad():
        torch.testing.assert_close(model(**ids).logits, tiny_model(family)(**ids).logits)


def test_half_precision_is_kept_if_asked_for(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "olmoe")
    assert load_model(folder)[0].dtype == torch.float32
    assert load_model(folder, dtype="bf16")[0].dtype == torch.bfloat16
    with pytest.raises(RecordingError, match="no floating-point type 'int7'"):
        load_model(folder, dtype="int7")


def test_a_half_precision_checkpoint_runs_in_single_on_a_cpu(tmp_path: Path) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path, device="cpu")[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["./nothing/here", "/nothing/here", "a/b/c"])
def test_a_missing_folder(name: str) -> None:
    with pytest.raises(RecordingError, match="no model folder"):
        load_model(name)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no config.json"):
        load_model(tmp_path)


def test_a_model_without_experts_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never opened")
    with pytest.raises(RecordingError, match="LlamaForCausalLM has no router"):
        load_model(tmp_path)


@pytest.mark.parametrize("family", ["olmoe", "switch", "gpt_oss"])
def test_a_model_without_a_tokenizer(family: str, tmp_path: Path) -> None:
    # transformers makes empty tokenizers of some classes without a word.
    with pytest.raises(RecordingError, match="without a tokenizer"):
        load_model(save_tiny(tmp_path, family, tokenizer=False))


def test_pickled_weights_are_never_opened(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "olmoe")
    weights = tiny_model().state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(RecordingError, match="Pickled weights .* are not opened"):
        load_model(folder)


def test_weights_that_were_cut_off(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "olmoe")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match="cannot be read from safetensors"):
        load_model(folder)


def test_code_of_a_repository_is_not_run_unasked(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "olmoe")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "of_its_own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('run unasked')")
    with pytest.raises(RecordingError, match="model code of its own"):
        load_model(folder)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RecordingError, match="configuration of .* cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize("system", SYSTEMS)
def test_our_own_systems_are_loaded_from_their_folders(system: str, tmp_path: Path) -> None:
    model, _ = load_model(save_tiny_system(tmp_path, system))
    original = tiny_system(system)
    assert type(model) is type(original)
    for name, value in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
