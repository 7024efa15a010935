"""Task-level MoE from the authors' weights: whole layers weighted by routes, over the raw tensors."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BartConfig, BartForConditionalGeneration
from transformers.models.bart.modeling_bart import BartEncoderLayer

from moe_models.authors import AuthorsFileError, Checkpoint, mapped_model, routes, task_moe_model
from moe_models.task_moe import TaskMoeForConditionalGeneration
from tests.authors_dicts import HIDDEN, TASK_MOE_CONFIG, M, pha_dict, task_moe_dict

TASKS = ("anli", "boolq", "xsum", "emo")
VECTORS = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
IDS = torch.tensor([[5, 9, 31, 2, 7], [3, 3, 12, 30, 4]])
BART = {"vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 20}
BART |= {
    "decoder_ffn_dim": 20,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "max_position_embeddings": 24,
}


def checkpoint(raw=None, *, kind="linear_layer_specific", **config):
    settings = TASK_MOE_CONFIG | {"router_nn_type": kind} | config
    return Checkpoint(raw or task_moe_dict(kind=kind), settings, VECTORS, TASKS)


def literal_routes(raw, kind, vector, tau):
    """softmax(R/τ) with R from Linear, GELU, Linear: of each layer, of all layers at once, or in each stack."""
    rows = []
    for layer in range(4):
        unit = f"router.model.router_units.{layer}." if kind == "linear_layer_specific" else "router.model."
        if kind == "v1":
            unit = f"model.{('encoder', 'decoder')[layer // 2]}.routers.{layer % 2}."
        hidden = functional.gelu(raw[f"{unit}linear1.weight"] @ torch.from_numpy(vector) + raw[f"{unit}linear1.bias"])
        logits = raw[f"{unit}linear2.weight"] @ hidden + raw[f"{unit}linear2.bias"]
        logits = logits[layer * M : (layer + 1) * M] if kind == "linear" else logits
        rows.append(torch.softmax(logits / tau, dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["linear_layer_specific", "linear", "v1"])
def test_routes_of_the_mapped_model_are_the_equations(kind):
    raw = task_moe_dict(kind=kind)
    model = task_moe_model(checkpoint(raw, kind=kind), temperature=0.6).model
    for task, vector in enumerate(VECTORS):
        torch.testing.assert_close(model.routes()[:, task], literal_routes(raw, kind, vector, 0.6))
    assert tuple(model.config.tasks) == TASKS


def library_bart(raw, chosen):
    """The library's BART with one expert of each routed layer."""
    held = {key: value for key, value in raw.items() if not key.startswith("router.")}
    for (stack, layer), expert in chosen.items():
        prefix = f"model.{stack}.layers.{layer}.blocks."
        kept = {key: value for key, value in held.items() if key.startswith(f"{prefix}{expert}.")}
        held = {key: value for key, value in held.items() if not key.startswith(prefix)}
        held |= {key.replace(f".blocks.{expert}.", "."): value for key, value in kept.items()}
    library = BartForConditionalGeneration(BartConfig(**BART)).eval()
    library.load_state_dict(held)
    return library


@pytest.mark.parametrize("unrouted", [(), (1,)])
def test_a_hard_route_is_the_librarys_bart_of_its_experts(unrouted):
    raw = task_moe_dict(unrouted=unrouted)
    model = task_moe_model(checkpoint(raw), selection="gumbel_hard").model
    routed = [(stack, layer) for stack in ("encoder", "decoder") for layer in range(2) if layer not in unrouted]
    for task in range(4):
        route = literal_routes(raw, "linear_layer_specific", VECTORS[task], 1.0)
        chosen = {at: int(route[at[1] + (2 if at[0] == "decoder" else 0)].argmax()) for at in routed}
        told = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
        got = model(**told, task_ids=torch.tensor([task, task])).logits
        torch.testing.assert_close(got, library_bart(raw, chosen)(**told).logits)


def test_a_soft_route_weighs_the_outputs_of_whole_layers():
    raw = task_moe_dict()
    model = task_moe_model(checkpoint(raw), temperature=0.8).model
    torch.manual_seed(0)
    x, route = torch.randn(1, 5, HIDDEN), literal_routes(raw, "linear_layer_specific", VECTORS[2], 0.8)
    want = 0
    for expert in range(M):
        prefix = f"model.encoder.layers.1.blocks.{expert}."
        layer = BartEncoderLayer(BartConfig(**BART, attn_implementation="eager")).eval()
        layer.load_state_dict({key.removeprefix(prefix): value for key, value in raw.items() if key.startswith(prefix)})
        want = want + route[1, expert] * layer(x, None)
    with model.routed(model.routes(torch.tensor([2]))):
        torch.testing.assert_close(model.model.encoder.layers[1](x, None), want)


def test_the_mapped_model_saves_and_loads_as_ours(tmp_path):
    mapped = task_moe_model(checkpoint(task_moe_dict(unrouted=(0,))), temperature=0.3)
    mapped.model.save_pretrained(tmp_path)
    again = TaskMoeForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again.routes(), mapped.model.routes())
    told = {"input_ids": IDS, "decoder_input_ids": IDS, "task_ids": torch.tensor([0, 3])}
    torch.testing.assert_close(again(**told).logits, mapped.model(**told).logits)
    assert again.generate(IDS, task_ids=torch.tensor([0, 3]), max_new_tokens=2, do_sample=False).shape[0] == 2


def test_what_the_mapping_assumed_or_left_out_is_said():
    raw = task_moe_dict(unrouted=(0,)) | {"surprise": torch.zeros(1), "lm_head.weight": torch.zeros(40, 16)}
    mapped = task_moe_model(checkpoint(raw, encoder_vanilla_layers="0"), selection="gumbel")
    said = " ".join(mapped.sentences)
    assert "Weights not understood and left out: surprise." in said
    assert "τ of the selection is in no file" in said
    assert "Gumbel modes draw noise" in said
    assert "The layers encoder [0] and decoder [0] are not routed" in said
    assert "has decoder_vanilla_layers '', but the weights have [0]" in said
    assert "has encoder_vanilla_layers" not in said
    assert "lm_head.weight differs from the embedding and was left out" in said
    assert "starts decoding from bos_token_id" in said
    assert "not used: num_beams" in said
    assert torch.equal(mapped.model.lm_head.weight, raw["model.shared.weight"])
    linear = " ".join(task_moe_model(checkpoint(kind="linear"), temperature=1.0).sentences)
    assert "it was copied to each" in linear
    assert "τ" not in linear


def test_files_that_do_not_fit_together_are_refused():
    raw = task_moe_dict()
    with pytest.raises(AuthorsFileError, match="Put both beside the weights"):
        mapped_model(Checkpoint(raw, TASK_MOE_CONFIG))
    with pytest.raises(AuthorsFileError, match=r"shape \(4, 8\), but 2 named tasks and a router for vectors of 8"):
        mapped_model(Checkpoint(raw, TASK_MOE_CONFIG, VECTORS, ("anli", "boolq")))
    with pytest.raises(AuthorsFileError, match="encoder_attention_heads is None, and shapes do not tell it"):
        mapped_model(Checkpoint(raw, {}, VECTORS, TASKS))
    with pytest.raises(AuthorsFileError, match="decoder_attention_heads is 3"):
        mapped_model(checkpoint(decoder_attention_heads=3))
    with pytest.raises(AuthorsFileError, match="router_nn_type 'lstm', but the weights have router_nn_type 'linear"):
        mapped_model(checkpoint(task_moe_dict(), kind="lstm"))
    with pytest.raises(AuthorsFileError, match="'first' in config.json is no list of layers"):
        mapped_model(checkpoint(encoder_vanilla_layers="first"))
    with pytest.raises(AuthorsFileError, match=r"kind lstm_layer_specific.*use routes\(checkpoint\)"):
        mapped_model(checkpoint(kind="lstm_layer_specific"))
    with pytest.raises(AuthorsFileError, match="Give a file of Task-level MoE"):
        task_moe_model(Checkpoint(pha_dict()))
    with pytest.raises(AuthorsFileError, match="without routes of tasks"):
        routes(Checkpoint(pha_dict()))
