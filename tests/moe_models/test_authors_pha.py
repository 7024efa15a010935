"""PHA from the authors' weights against its equations, written out over the raw tensors."""

import numpy as np
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from moe_models.authors import AuthorsFileError, Checkpoint, mapped_model, pha_model, prototypes
from tests.authors_dicts import ADAPTER, HIDDEN, PHA_CONFIG, pha_dict, switch_dict

TASKS = tuple(PHA_CONFIG["tasks"])
IDS = torch.tensor([[5, 9, 31, 2, 7], [3, 3, 12, 30, 1]])


def checkpoint(raw=None, **config):
    return Checkpoint(raw or pha_dict(), PHA_CONFIG | config, tasks=TASKS)


def linear(raw, name, x):
    return raw[f"{name}.weight"] @ x + raw[f"{name}.bias"]


def literal_adapter(raw, task, layer):
    """u = [k ; e], r = W2·ReLU(W1·u), v = LayerNorm(r), one head from v for each of D, β_D, U, β_U."""
    generator = "decoder.param_gen.decoder"
    u = torch.cat(
        [raw["decoder.adapter_task_embedding.weight"][task], raw["decoder.param_gen.layer_embed.weight"][layer]]
    )
    r = linear(raw, f"{generator}.linear2", torch.relu(linear(raw, f"{generator}.linear1", u)))
    v = (r - r.mean()) / (r.var(correction=0) + 1e-6).sqrt()
    v = v * raw[f"{generator}.LayerNorm.weight"] + raw[f"{generator}.LayerNorm.bias"]
    down = linear(raw, f"{generator}.weight_down", v).reshape(HIDDEN, ADAPTER)
    up = linear(raw, f"{generator}.weight_up", v).reshape(ADAPTER, HIDDEN)
    return down, linear(raw, f"{generator}.bias_down", v), up, linear(raw, f"{generator}.bias_up", v)


def normed(x, weight):
    return x * (x.pow(2).mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * weight


@pytest.mark.parametrize("width", [4, 64])
def test_adapters_of_every_task_and_layer_are_the_equations(width):
    raw = pha_dict(width=width)
    model, view = mapped_model(checkpoint(raw)).model, prototypes(checkpoint(raw))
    assert view.tasks == TASKS == tuple(model.config.tasks)
    np.testing.assert_array_equal(view.prototypes, raw["decoder.adapter_task_embedding.weight"])
    assert view.layers == ("dec00", "dec01", "dec02")
    for layer, ours in enumerate(model.task_adapters()):
        for task in range(3):
            parts = literal_adapter(raw, task, layer)
            for got, want in zip(ours.parts(), parts, strict=True):
                torch.testing.assert_close(got[task], want, rtol=1e-4, atol=1e-4)
            want = torch.cat([part.flatten() for part in parts])
            np.testing.assert_allclose(view.adapters[layer, task], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm_input", [True, False])
def test_feed_forward_layers_of_the_mapped_model_are_the_equations(norm_input):
    raw = pha_dict()
    model = mapped_model(checkpoint(raw, adapter_norm_input=norm_input)).model
    torch.manual_seed(0)
    h = torch.randn(1, 4, HIDDEN)
    for stack, number, place in (("encoder", 1, 1), ("decoder", 2, 2)):
        layer = f"{stack}.block.{number}.layer.{place}"
        u = normed(h[0], raw[f"{layer}.layer_norm.weight"])
        wi, wo = (raw[f"{layer}.DenseReluDense.{name}.weight"] for name in ("wi", "wo"))
        a = u if norm_input else h[0]
        if stack == "encoder":
            manual = f"{layer}.adapter_layer.adapter"
            added = torch.stack(
                [linear(raw, f"{manual}_up_manual", torch.relu(linear(raw, f"{manual}_down_manual", x))) for x in a]
            )
        else:
            down, bias_down, up, bias_up = literal_adapter(raw, 1, number)
            added = torch.relu(a @ down + bias_down) @ up + bias_up
        with model.adapted(model.prototypes(torch.tensor([1]))):
            got = getattr(model, stack).block[number].layer[-1](h)
        torch.testing.assert_close(got[0], h[0] + torch.relu(u @ wi.T) @ wo.T + added, rtol=1e-4, atol=1e-4)


def test_instance_vectors_are_the_retrievers_of_the_masked_mean():
    raw = pha_dict()
    model, mask = mapped_model(checkpoint(raw)).model, torch.ones_like(IDS)
    mask[0, 3:] = 0
    out = model(input_ids=IDS, attention_mask=mask, decoder_input_ids=IDS, task_ids=torch.tensor([0, 2]))
    encoded = model.encoder(input_ids=IDS, attention_mask=mask)[0]
    for i, length in enumerate((3, 5)):
        z = torch.relu(linear(raw, "decoder.mlp.0", encoded[i, :length].mean(dim=0)))
        torch.testing.assert_close(out.instance_vectors[i], linear(raw, "decoder.mlp.2", z), rtol=1e-4, atol=1e-4)


def test_the_rest_of_the_mapped_model_is_the_librarys_t5():
    raw = pha_dict()
    for key in raw:  # silent adapters
        if "adapter_up_manual" in key or ".param_gen.decoder.weight_up" in key or ".param_gen.decoder.bias_up" in key:
            raw[key] = torch.zeros_like(raw[key])
    config = T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=6,
        d_ff=20,
        num_heads=2,
        num_layers=2,
        num_decoder_layers=3,
        decoder_start_token_id=0,
    )
    library = T5ForConditionalGeneration(config).eval()
    added = (".adapter_layer.", "decoder.mlp.", "adapter_task_embedding", ".param_gen.")
    library.load_state_dict({key: value for key, value in raw.items() if not any(part in key for part in added)})
    told = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    got = mapped_model(checkpoint(raw)).model(**told, task_ids=torch.tensor([0, 1])).logits
    torch.testing.assert_close(got, library(**told).logits)


def test_what_the_mapping_assumed_or_left_out_is_said():
    said = " ".join(mapped_model(checkpoint(pha_dict() | {"surprise": torch.zeros(1)})).sentences)
    assert "Weights left out: 12, since the decoder's own adapters (adapter_*_manual) are never run" in said
    assert "Weights not understood and left out: surprise." in said
    assert "an unordered set at every launch" in said
    assert "not used: hypernetwork_bottleneck" in said


def test_without_task_names_rows_are_numbered_and_it_says_so():
    for made in (mapped_model(Checkpoint(pha_dict())), prototypes(Checkpoint(pha_dict()))):
        assert any("no names but their row's number" in said for said in made.sentences)
    assert prototypes(Checkpoint(pha_dict())).tasks == ("prototype 0", "prototype 1", "prototype 2")


@pytest.mark.parametrize("tasks", [("rte", "cola"), ("rte", "cola", "rte")])
def test_names_that_do_not_fit_the_rows_are_refused(tasks):
    with pytest.raises(AuthorsFileError, match="have 3 prototypes, but config.json names"):
        mapped_model(Checkpoint(pha_dict(), PHA_CONFIG, tasks=tasks))


def test_other_modes_heads_and_systems_are_refused():
    with pytest.raises(AuthorsFileError, match="decoder_adapter 'generated', which is not how PHA is trained"):
        mapped_model(checkpoint(decoder_adapter="generated"))
    with pytest.raises(AuthorsFileError, match="says d_model 512, but the weights have d_model 16"):
        mapped_model(checkpoint(d_model=512))
    untied = pha_dict() | {"lm_head.weight": torch.zeros(40, 16)}
    with pytest.raises(AuthorsFileError, match=r"T5 v1.1.*use prototypes\(checkpoint\)"):
        mapped_model(checkpoint(untied))
    assert prototypes(checkpoint(untied)).adapters.shape == (3, 3, 2 * 16 * 8 + 8 + 16)
    with pytest.raises(AuthorsFileError, match="Give a file of PHA"):
        pha_model(Checkpoint(switch_dict()))
    with pytest.raises(AuthorsFileError, match="which has no prototypes"):
        prototypes(Checkpoint(switch_dict()))


def test_a_gated_feed_forward_is_mapped():
    raw = {}
    for key, value in pha_dict().items():
        if key.endswith(".wi.weight"):
            raw[key.replace(".wi.", ".wi_0.")], raw[key.replace(".wi.", ".wi_1.")] = value, value + 1
        else:
            raw[key] = value
    model = mapped_model(checkpoint(raw)).model
    assert model.config.feed_forward_proj == "gated-gelu"
    held = model.decoder.block[1].layer[-1].DenseReluDense.wi_1.weight
    assert torch.equal(held, raw["decoder.block.1.layer.2.DenseReluDense.wi_1.weight"])
