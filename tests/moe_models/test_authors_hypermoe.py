"""HyperMoE from the authors' weights against its equations, written out over the raw tensors."""

import itertools

import numpy as np
import pytest
import torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration

from moe_models.authors import AuthorsFileError, Checkpoint, hyper_experts, mapped_model, switch_model
from moe_models.hypermoe import HyperMoeSwitchForConditionalGeneration
from tests.authors_dicts import ADAPTER, HIDDEN, gpt2_dict, pha_dict, switch_dict, without

SPARSE = [("encoder", 1, 1), ("encoder", 3, 1), ("decoder", 1, 2)]
IDS = torch.tensor([[5, 9, 31, 2, 7], [3, 3, 12, 30, 1]])


def linear(raw, name, x):
    return raw[f"{name}.weight"] @ x + raw[f"{name}.bias"]


def literal_adapter(raw, generator, mlp, number, selected):
    """Steps A and B: the parts D, β_D, U, β_U for one set of selected experts, and s and q on the way."""
    table = raw[f"{mlp}.n_experts_embedding.weight"]
    s = sum((table[n] for n in range(len(table)) if n not in selected), torch.zeros(table.shape[1]))
    q = linear(raw, f"{mlp}.embedding_process.2", torch.relu(linear(raw, f"{mlp}.embedding_process.0", s)))
    c = torch.cat([q, raw[f"{generator}.layer_embed.weight"][number]])
    g = torch.relu(linear(raw, f"{generator}.decoder.linear1", c))
    up = linear(raw, f"{generator}.decoder.weight_up", g).reshape(ADAPTER, HIDDEN)
    down = linear(raw, f"{generator}.decoder.weight_down", g).reshape(HIDDEN, ADAPTER)
    bias_down, bias_up = (linear(raw, f"{generator}.decoder.bias_{side}", g) for side in ("down", "up"))
    return s, q, (down, bias_down, up, bias_up)


def literal_sparse_layer(raw, stack, number, place, sequence, *, capacity, hyper=True):
    """Steps C to E for one sequence: y = P·E(x) + Ê(x), and P·x + Ê(x) for a token over capacity."""
    mlp, out, sent = f"{stack}.block.{number}.layer.{place}.mlp", [], {}
    for x in sequence:
        p = torch.softmax(raw[f"{mlp}.router.classifier.weight"] @ x, dim=0)
        i = int(p.argmax())
        sent[i] = sent.get(i, 0) + 1
        wi, wo = (raw[f"{mlp}.experts.expert_{i}.{name}.weight"] for name in ("wi", "wo"))
        y = p[i] * (wo @ torch.relu(wi @ x) if sent[i] <= capacity else x)
        if hyper:
            down, bias_down, up, bias_up = literal_adapter(raw, f"{stack}.param_gen", mlp, number, [i])[2]
            y = y + torch.relu(x @ down + bias_down) @ up + bias_up
        out.append(y)
    return torch.stack(out)


@pytest.mark.parametrize("hyper", [True, False])
def test_sparse_layers_of_the_mapped_switch_are_the_equations(hyper):
    raw = switch_dict(hyper=hyper)
    mapped = mapped_model(Checkpoint(raw, {"expert_capacity": 2, "num_sparse_encoder_layers": 2}))
    torch.manual_seed(0)
    x = torch.randn(2, 8, HIDDEN)
    for stack, number, place in SPARSE:
        mlp = getattr(mapped.model, stack).block[number].layer[-1].mlp
        assert (mlp.router(x)[0].sum(dim=-1) == 0).any(), "some token must be over capacity"
        got = mlp(x)
        for b in range(2):
            want = literal_sparse_layer(raw, stack, number, place, x[b], capacity=2, hyper=hyper)
            torch.testing.assert_close(got[b], want, rtol=1e-4, atol=1e-4)


def test_the_rest_of_the_mapped_switch_is_the_librarys():
    # With silent hyper-experts and room for every token, HyperMoE is a Switch Transformer.
    raw = switch_dict()
    for key in raw:
        if ".param_gen.decoder.weight_up" in key or ".param_gen.decoder.bias_up" in key:
            raw[key] = torch.zeros_like(raw[key])
    config = SwitchTransformersConfig(
        vocab_size=40, d_model=16, d_kv=6, d_ff=20, num_heads=2, num_layers=4, num_decoder_layers=2, num_experts=4,
        num_sparse_encoder_layers=2, num_sparse_decoder_layers=1, decoder_start_token_id=0,
    )  # fmt: skip
    library = SwitchTransformersForConditionalGeneration(config).eval()
    hyper_parts = (".param_gen.", ".n_experts_embedding.", ".embedding_process.", ".adapter_layer.")
    library.load_state_dict({key: value for key, value in raw.items() if not any(part in key for part in hyper_parts)})
    told = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    torch.testing.assert_close(mapped_model(Checkpoint(raw)).model(**told).logits, library(**told).logits)


def test_each_stack_keeps_its_own_hypernetwork():
    raw = switch_dict()
    model = mapped_model(Checkpoint(raw)).model
    assert torch.equal(model.encoder.hypernetwork.trunk.weight, raw["encoder.param_gen.decoder.linear1.weight"])
    assert torch.equal(model.decoder.hypernetwork.trunk.weight, raw["decoder.param_gen.decoder.linear1.weight"])


def test_the_mapped_switch_saves_and_loads_as_ours(tmp_path):
    mapped = mapped_model(Checkpoint(switch_dict()))
    mapped.model.save_pretrained(tmp_path)
    again = HyperMoeSwitchForConditionalGeneration.from_pretrained(tmp_path).eval()
    told = {"input_ids": IDS, "decoder_input_ids": IDS}
    torch.testing.assert_close(again(**told).logits, mapped.model(**told).logits)


def test_what_the_mapping_assumed_or_left_out_is_said():
    raw = switch_dict() | {"surprise.weight": torch.zeros(2)}
    said = " ".join(mapped_model(Checkpoint(raw, {"use_fast_mode": False, "expert_capacity": 64})).sentences)
    assert "Weights left out: 12, since the adapter with weights of its own" in said
    assert "Weights not understood and left out: surprise.weight." in said
    assert "config.json does not say layer_norm_epsilon = 1e-06" in said
    assert "expert_capacity" not in said
    assert "not used: use_fast_mode" in said
    assert "those of router_jitter_noise 0" in said
    assert "router_jitter_noise 0" not in " ".join(
        mapped_model(Checkpoint(switch_dict(), {"router_jitter_noise": 0.0})).sentences
    )
    assert "do not tell which" in mapped_model(Checkpoint(switch_dict(hyper=False))).sentences[-1]


def test_a_config_of_other_weights_is_refused():
    with pytest.raises(AuthorsFileError, match="says adapter_dim 64, but the weights have adapter_dim 8"):
        mapped_model(Checkpoint(switch_dict(), {"adapter_dim": 64}))
    with pytest.raises(
        AuthorsFileError, match=r"asks for 4 sparse layers of 4 in the encoder; the weights have \[1, 3\]"
    ):
        mapped_model(Checkpoint(switch_dict(), {"num_sparse_encoder_layers": 4}))
    with pytest.raises(AuthorsFileError, match="holds a value that does not fit"):
        mapped_model(Checkpoint(switch_dict(), {"expert_capacity": "many"}))
    with pytest.raises(AuthorsFileError, match="decoder.embed_tokens.weight differs from shared.weight"):
        mapped_model(Checkpoint(switch_dict() | {"decoder.embed_tokens.weight": torch.zeros(40, 16)}))


def test_a_stack_without_sparse_layers_and_a_head_of_its_own_are_mapped():
    raw = {key: value for key, value in switch_dict(hyper=False).items() if "decoder.block.1.layer.2.mlp" not in key}
    raw |= {
        f"decoder.block.1.layer.2.mlp.{end}": raw[f"decoder.block.0.layer.2.mlp.{end}"]
        for end in ("wi.weight", "wo.weight")
    }
    raw["lm_head.weight"] = torch.randn(40, 16)
    # The authors' release makes no layer sparse where as many are asked for as there are.
    mapped = switch_model(Checkpoint(raw, {"num_sparse_decoder_layers": 2, "tie_word_embeddings": False}))
    assert mapped.recognized.layers == ("enc01", "enc03")
    assert torch.equal(mapped.model.lm_head.weight, raw["lm_head.weight"])
    assert mapped.model(input_ids=IDS, decoder_input_ids=IDS).logits.isfinite().all()


@pytest.mark.parametrize(("k", "config"), [(1, {}), (2, {"k": 2}), (3, {"k": 3})])
def test_hyper_experts_of_gpt2_are_the_equations_for_every_set(k, config):
    raw = gpt2_dict()
    view = hyper_experts(Checkpoint(raw, config))
    assert [layer.layer for layer in view.layers] == ["L00", "L01"]
    for number, layer in enumerate(view.layers):
        mlp = f"transformer.h.{number}.mlp"
        assert layer.sets.tolist() == [list(one) for one in itertools.combinations(range(4), k)]
        np.testing.assert_array_equal(layer.expert_embeddings, raw[f"{mlp}.n_experts_embedding.weight"])
        for row, selected in enumerate(layer.sets.tolist()):
            s, q, parts = literal_adapter(raw, "transformer.param_gen", mlp, number, selected)
            np.testing.assert_allclose(layer.selection_embeddings[row], s, atol=1e-5)
            np.testing.assert_allclose(layer.hypernetwork_inputs[row], q, atol=1e-5)
            want = torch.cat([part.flatten() for part in parts])
            np.testing.assert_allclose(layer.adapters[row], want, rtol=1e-4, atol=1e-4)


def test_hyper_experts_of_switch_are_those_of_the_mapped_model():
    checkpoint = Checkpoint(switch_dict())
    view, model = hyper_experts(checkpoint), mapped_model(checkpoint).model
    for layer, (stack, number, _) in zip(view.layers, SPARSE, strict=True):
        part = getattr(model, stack).block[number].layer[-1].mlp.hyper_expert
        np.testing.assert_allclose(layer.adapters, part.generate(torch.arange(4)[:, None]).flat().detach(), rtol=1e-6)
    assert any("exactly one hyper-expert for each selected expert" in said for said in view.sentences)


def test_chosen_sets_and_what_is_said_of_k():
    view = hyper_experts(Checkpoint(gpt2_dict(), {"k": 1}), top_k=2, sets=[(3, 0), (1, 2)])
    assert view.layers[0].sets.tolist() == [[0, 3], [1, 2]]
    said = " ".join(view.sentences)
    assert "config.json says k = 1; hyper-experts were made for k = 2, as asked" in said
    assert "needs a run" not in said
    assert "need a run of the authors' code" in said
    assert "only the balance loss trained it" in " ".join(hyper_experts(Checkpoint(gpt2_dict())).sentences)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, "no sets of 5 among 4 experts"),
        ({"top_k": 2, "sets": [(0, 0)]}, "Not all sets hold 2 distinct experts from 0 to 3"),
        ({"top_k": 2, "sets": [(0, 4)]}, "Not all sets hold 2 distinct experts from 0 to 3"),
        ({"top_k": 2, "sets": []}, "at least one"),
    ],
)
def test_impossible_sets_are_refused(options, message):
    with pytest.raises(AuthorsFileError, match=message):
        hyper_experts(Checkpoint(gpt2_dict()), **options)


def test_what_has_no_hyper_experts_or_no_model_is_refused():
    with pytest.raises(AuthorsFileError, match="Switch selects one expert a token, not 2"):
        hyper_experts(Checkpoint(switch_dict()), top_k=2)
    with pytest.raises(AuthorsFileError, match="PHA in its t5 form, which has no hyper-experts"):
        hyper_experts(Checkpoint(pha_dict()))
    with pytest.raises(AuthorsFileError, match="gpt2 baseline form, which has no hyper-experts"):
        hyper_experts(Checkpoint(gpt2_dict(hyper=False)))
    with pytest.raises(AuthorsFileError, match=r"noisy top-k .*use hyper_experts\(checkpoint\)"):
        mapped_model(Checkpoint(gpt2_dict()))
    with pytest.raises(AuthorsFileError, match="which none of our models has.$"):
        mapped_model(Checkpoint(gpt2_dict(hyper=False)))
    with pytest.raises(AuthorsFileError, match="Give a file of HyperMoE on Switch"):
        switch_model(Checkpoint(gpt2_dict()))


def test_too_many_sets_are_not_made_unasked():
    with pytest.raises(AuthorsFileError, match="There are 6 sets of 2 among 4 experts, more than 5"):
        hyper_experts(Checkpoint(gpt2_dict()), top_k=2, max_sets=5)


def test_a_file_that_lost_its_copies_of_the_embedding_is_whole():
    raw = without(switch_dict(), "embed_tokens.weight", "lm_head.weight")
    told = {"input_ids": IDS, "decoder_input_ids": IDS}
    torch.testing.assert_close(
        mapped_model(Checkpoint(raw)).model(**told).logits, mapped_model(Checkpoint(switch_dict())).model(**told).logits
    )
