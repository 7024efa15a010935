"""Route maps from router weights and task vectors, of every kind of router, and from the arrays that were saved."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from moe_models.authors import AuthorsFileError, Checkpoint, routes, saved_routes, task_order
from tests.authors_dicts import ROUTER_HIDDEN, TASK_MOE_CONFIG, M, task_moe_dict

TASKS = ("anli", "boolq", "xsum", "emo")
VECTORS = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
ONTOLOGY = {
    "classification": {"nli": ["anli", "sick"], "emotion": ["emo"]},
    "other": {"n/a": ["piqa"]},
    "qa": {"binary": ["mc_taco", "boolq"]},
}
SPLIT = {"train": ["boolq", "anli", "mc_taco", "emo"], "dev": ["sick"], "test": []}


def linear(raw, name, x):
    return x @ raw[f"router.model.{name}.weight"].T + raw[f"router.model.{name}.bias"]


def one_direction(raw, kind, sequence, ending):
    """The textbook step of RNN, GRU or LSTM, one layer of the model after the other."""
    w_in, w_hidden, b_in, b_hidden = (
        raw[f"router.model.rnn.{name}_l0{ending}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, c, out = torch.zeros(ROUTER_HIDDEN), torch.zeros(ROUTER_HIDDEN), []
    for x in sequence:
        a, b = w_in @ x + b_in, w_hidden @ h + b_hidden
        if kind == "rnn":
            h = torch.tanh(a + b)
        elif kind == "gru":
            (r_in, z_in, n_in), (r_h, z_h, n_h) = a.chunk(3), b.chunk(3)
            r, z = torch.sigmoid(r_in + r_h), torch.sigmoid(z_in + z_h)
            h = (1 - z) * torch.tanh(n_in + r * n_h) + z * h
        else:
            i, f, g, o = (a + b).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return out


def literal_transformer(raw, x):
    """Attention of 4 heads, then feed-forward, each followed by its norm; the layers are the sequence."""
    name, width = "transformer.self_attn", x.shape[1]
    qkv = x @ raw[f"router.model.{name}.in_proj_weight"].T + raw[f"router.model.{name}.in_proj_bias"]
    q, k, v = (part.view(len(x), 4, width // 4).transpose(0, 1) for part in qkv.chunk(3, dim=1))
    mixed = torch.softmax(q @ k.transpose(1, 2) / (width // 4) ** 0.5, dim=-1) @ v
    mixed = linear(raw, f"{name}.out_proj", mixed.transpose(0, 1).reshape(len(x), width))

    def norm(x, which):
        weight, bias = raw[f"router.model.transformer.{which}.weight"], raw[f"router.model.transformer.{which}.bias"]
        return functional.layer_norm(x, (width,), weight, bias)

    x = norm(x + mixed, "norm1")
    inner = torch.relu(linear(raw, "transformer.linear1", x))
    return norm(x + linear(raw, "transformer.linear2", inner), "norm2")


def literal_logits(raw, kind, vector):
    if kind.endswith("_layer_specific"):
        sequence = linear(raw, "layer_specific_proj", vector).view(4, -1)
    else:
        sequence = vector + raw["router.model.pos_embed.weight"]
    if kind.startswith("transformer"):
        return linear(raw, "proj", literal_transformer(raw, sequence))
    cell = kind.split("_")[0]
    forward = one_direction(raw, cell, sequence, "")
    backward = one_direction(raw, cell, sequence.flip(0), "_reverse")[::-1]
    both = torch.stack([torch.cat(pair) for pair in zip(forward, backward, strict=True)])
    return linear(raw, "proj", both)


@pytest.mark.parametrize("ending", ["", "_layer_specific"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "transformer"])
def test_routes_of_sequence_routers_are_the_equations(cell, ending):
    raw = task_moe_dict(kind=cell + ending)
    got = routes(Checkpoint(raw, {}, VECTORS, TASKS), temperature=0.6)
    want = [torch.softmax(literal_logits(raw, cell + ending, torch.from_numpy(v)) / 0.6, dim=-1) for v in VECTORS]
    np.testing.assert_allclose(got.weights, torch.stack(want), rtol=1e-4, atol=1e-5)
    assert got.weights.shape == (4, 4, M)
    assert (got.tasks, got.temperature, got.categories) == (TASKS, 0.6, None)


@pytest.mark.parametrize("kind", ["linear_layer_specific", "linear", "v1"])
def test_routes_of_mlp_routers_are_the_equations(kind):
    raw = task_moe_dict(kind=kind)
    got = routes(Checkpoint(raw, TASK_MOE_CONFIG, VECTORS, TASKS))
    for layer, name in enumerate(("enc00", "enc01", "dec00", "dec01")):
        unit = {"linear": "router.model.", "v1": f"model.{'encoder' if layer < 2 else 'decoder'}.routers.{layer % 2}."}
        unit = unit.get(kind, f"router.model.router_units.{layer}.")
        hidden = functional.gelu(
            torch.from_numpy(VECTORS) @ raw[f"{unit}linear1.weight"].T + raw[f"{unit}linear1.bias"]
        )
        logits = hidden @ raw[f"{unit}linear2.weight"].T + raw[f"{unit}linear2.bias"]
        logits = logits[:, layer * M : (layer + 1) * M] if kind == "linear" else logits
        np.testing.assert_allclose(got.weights[:, layer], torch.softmax(logits, dim=-1), rtol=1e-5)
        assert got.layers[layer] == name
    assert any("those of τ = 1" in said for said in got.sentences)


def test_layers_without_experts_are_marked():
    got = routes(Checkpoint(task_moe_dict(unrouted=(1,)), {}, VECTORS, TASKS), temperature=1.0)
    assert got.routed == (True, False, True, False)
    assert got.weights.shape == (4, 4, M)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    return tmp_path


def order(files):
    return task_order(files / "split.json", ontology=files / "ontology.json")


def test_tasks_follow_the_ontology_not_the_split(files):
    got = order(files)
    assert got.tasks == ("anli", "emo", "boolq", "mc_taco")
    assert got.categories == (
        ("classification", "nli"),
        ("classification", "emotion"),
        ("qa", "binary"),
        ("qa", "binary"),
    )
    assert task_order(files / "split.json", ontology=files / "ontology.json", part="dev").tasks == ("sick",)


def test_saved_routes_get_their_names_back(files):
    tasks = ("mc_taco", "emo", "anli", "boolq", "xsum")
    vectors = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    computed = routes(Checkpoint(task_moe_dict(), {}, vectors, tasks), order=order(files))
    assert computed.tasks == ("anli", "emo", "boolq", "mc_taco")
    plain = routes(Checkpoint(task_moe_dict(), {}, vectors, tasks))
    np.testing.assert_allclose(computed.weights[1], plain.weights[1], rtol=1e-6)  # emo is row 1 of both
    np.testing.assert_allclose(computed.weights[3], plain.weights[0], rtol=1e-6)
    np.save(files / "route_t1.npy", computed.weights)
    saved = saved_routes(files / "route_t1.npy", order=order(files))
    assert (saved.tasks, saved.layers, saved.categories) == (computed.tasks, computed.layers, computed.categories)
    np.testing.assert_array_equal(saved.weights, computed.weights)
    assert saved.temperature == 1.0
    assert any("only their number confirms" in said for said in saved.sentences)
    np.save(files / "route.npy", computed.weights)
    later = saved_routes(files / "route.npy", order=order(files))
    assert later.temperature is None
    assert any("at the temperature of its training step" in said for said in later.sentences)


def test_another_number_of_tasks_is_refused(files):
    np.save(files / "route.npy", np.full((3, 4, 2), 0.5))
    with pytest.raises(AuthorsFileError, match="route.npy has 3 tasks, but split and ontology give 4"):
        saved_routes(files / "route.npy", order=order(files))


def test_an_odd_number_of_layers_needs_the_encoders(files):
    np.save(files / "route.npy", np.full((4, 3, 2), 0.5))
    with pytest.raises(AuthorsFileError, match="Pass n_encoder_layers="):
        saved_routes(files / "route.npy", order=order(files))
    got = saved_routes(files / "route.npy", order=order(files), n_encoder_layers=1)
    assert got.layers == ("enc00", "dec00", "dec01")


@pytest.mark.parametrize("array", [np.full((4, 4), 0.5), np.full((4, 4, 3), 0.5), -np.ones((4, 2, 1))])
def test_arrays_that_are_no_route_map_are_refused(files, array):
    np.save(files / "route.npy", array)
    with pytest.raises(AuthorsFileError, match="is no route map"):
        saved_routes(files / "route.npy", order=order(files))


def test_tasks_without_a_place_are_named(files):
    (files / "split.json").write_text(json.dumps({"train": ["boolq", "novel_task"]}))
    got = order(files)
    assert got.tasks == ("boolq",)
    assert got.sentences == ("Tasks of the split that the ontology lacks, so that no array has them: novel_task.",)
    (files / "ontology.json").write_text(json.dumps(ONTOLOGY | {"more": {"again": ["boolq"]}}))
    with pytest.raises(AuthorsFileError, match="names boolq more than once"):
        order(files)


@pytest.mark.parametrize(
    ("name", "held", "message"),
    [
        ("split.json", {"training": []}, "no list of tasks under 'train'; it has training"),
        ("ontology.json", {"qa": ["boolq"]}, "'qa' is not a map from sub-categories"),
        ("ontology.json", [], "holds a list instead of an object"),
    ],
)
def test_small_files_of_another_form_are_refused(files, name, held, message):
    (files / name).write_text(json.dumps(held))
    with pytest.raises(AuthorsFileError, match=message):
        order(files)


def test_an_order_of_unknown_tasks_is_refused(files):
    with pytest.raises(AuthorsFileError, match="id2task.json has no row for mc_taco"):
        routes(Checkpoint(task_moe_dict(), {}, VECTORS, TASKS), order=order(files))
