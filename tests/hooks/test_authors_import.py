"""Files of the papers' authors as traces: what the weights say is what the loaders say, and nothing else is there."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import analysis
from hooks.authors_import import imported
from moe_models.authors import hyper_experts, open_checkpoint, prototypes, routes
from routing import RecordingError, open_trace, save_trace, verify_trace
from tests.authors_dicts import PHA_CONFIG, TASK_MOE_CONFIG, gpt2_dict, pha_dict, switch_dict, task_moe_dict

TASKS = ("anli", "boolq", "xsum", "emo")
ONTOLOGY = {
    "classification": {"nli": ["anli"], "emotion": ["emo"]},
    "conditional generation": {"summarization": ["xsum"]},
    "qa": {"binary": ["boolq"]},
}


def folder_of(tmp_path, tensors, config=None):
    folder = tmp_path / "theirs" / "best"
    folder.mkdir(parents=True)
    torch.save(tensors, folder / "model.pt")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def stored(found, tmp_path):
    save_trace(found.trace, tmp_path / "trace")
    assert verify_trace(tmp_path / "trace") == []
    return open_trace(tmp_path / "trace")


def literal(parameters, x, hidden, width):
    """A stored adapter applied: D, U, β_D, β_U one after the other."""
    down, up, bias_down, bias_up = np.split(parameters, np.cumsum([hidden * width, width * hidden, width]))
    return np.maximum(x @ down.reshape(hidden, width) + bias_down, 0) @ up.reshape(width, hidden) + bias_up


@pytest.mark.parametrize("form, top_k", [("switch", 1), ("gpt2", 1), ("gpt2", 2)])
def test_hyper_experts_are_those_of_the_weights(form, top_k, tmp_path):
    tensors = switch_dict() if form == "switch" else gpt2_dict()
    folder = folder_of(tmp_path, tensors, {} if form == "switch" else {"k": top_k})
    found = imported(folder)
    trace, made = stored(found, tmp_path), hyper_experts(open_checkpoint(folder))
    assert (trace.n_tokens, trace.unit) == (0, "token")
    assert list(trace.layers) == [layer.layer for layer in made.layers]
    assert {facts.top_k for facts in trace.layer_facts} == {top_k}
    assert analysis.distinct_adapters(trace)["bijection"].all() == (top_k == 1)
    held, site = trace.adapters, trace.adapters.sites[-1]
    last, number = made.layers[-1], int(held.table.index[held.table["site"] == site.label][-1])
    assert held.table["key"][number] == " ".join(map(str, last.sets[-1]))
    np.testing.assert_allclose(held.conditioning["selection_embedding"][number], last.selection_embeddings[-1])
    # What the stored numbers do to a token is what the authors' order of the same numbers does.
    x = np.random.default_rng(0).normal(size=site.hidden)
    d, b, u, c = np.split(
        last.adapters[-1], np.cumsum([site.hidden * site.width, site.width, site.hidden * site.width])
    )
    want = np.maximum(x @ d.reshape(site.hidden, -1) + b, 0) @ u.reshape(site.width, -1) + c
    np.testing.assert_allclose(literal(held.parameters.values[number], x, site.hidden, site.width), want, rtol=1e-4)
    relations = analysis.expert_relations(trace, n_permutations=20)
    assert set(relations.index.get_level_values("pair")) == {
        "embedding–adapter",
        "adapter–weights",
        "embedding–weights",
    }
    first = trace.layers[0]
    prefix = "encoder.block.1.layer.1.mlp" if form == "switch" else "transformer.h.0.mlp"
    one, two = (
        torch.cat([tensors[name].flatten() for name in sorted(tensors) if f"{prefix}.experts.expert_{n}." in name])
        for n in (0, 1)
    )
    cosine = float(torch.nn.functional.cosine_similarity(one, two, dim=0))
    assert float(trace.vectors["expert_weight_similarity"].sel(layer=first)[0, 1]) == pytest.approx(cosine, abs=1e-5)
    assert "no text was run" in trace.provenance.note
    assert all(sentence in trace.provenance.note for sentence in found.sentences)


def test_prototypes_and_their_adapters_are_those_of_the_weights(tmp_path):
    folder = folder_of(tmp_path, pha_dict(), PHA_CONFIG)
    trace, made = stored(imported(folder), tmp_path), prototypes(open_checkpoint(folder))
    assert trace.expert_names["retriever"] == tuple(PHA_CONFIG["tasks"])
    assert trace.vectors["prototype"]["prototype"].values.tolist() == PHA_CONFIG["tasks"]
    np.testing.assert_array_equal(trace.vectors["prototype"], made.prototypes)
    assert [site.label for site in trace.adapters.sites] == list(made.layers)
    assert trace.adapters.table["key"].tolist() == PHA_CONFIG["tasks"] * len(made.layers)
    site, x = trace.adapters.sites[1], np.ones(trace.adapters.sites[1].hidden)
    flat = made.adapters[1, 2]
    d, b, u, c = np.split(flat, np.cumsum([site.hidden * site.width, site.width, site.hidden * site.width]))
    want = np.maximum(x @ d.reshape(site.hidden, -1) + b, 0) @ u.reshape(site.width, -1) + c
    number = len(PHA_CONFIG["tasks"]) + 2
    np.testing.assert_allclose(
        literal(trace.adapters.parameters.values[number], x, site.hidden, site.width), want, rtol=1e-4
    )
    assert analysis.prototype_relations(trace, n_permutations=5).index.tolist() == list(made.layers)


def task_moe_folder(tmp_path):
    folder = folder_of(
        tmp_path,
        task_moe_dict(unrouted=(0,)),
        TASK_MOE_CONFIG | {"encoder_vanilla_layers": "0", "decoder_vanilla_layers": "0"},
    )
    np.save(folder / "task_vecs.npy", np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32))
    (folder / "id2task.json").write_text(json.dumps(dict(enumerate(TASKS))))
    (tmp_path / "split.json").write_text(json.dumps({"train": list(TASKS)}))
    (tmp_path / "ontology.json").write_text(json.dumps(ONTOLOGY))
    return folder


def test_routes_are_a_row_a_task_with_types_from_the_ontology(tmp_path):
    folder = task_moe_folder(tmp_path)
    order = {"split": tmp_path / "split.json", "ontology": tmp_path / "ontology.json"}
    trace, made = stored(imported(folder, **order), tmp_path), routes(open_checkpoint(folder))
    assert trace.tasks == ("anli", "emo", "xsum", "boolq")
    assert trace.task_types["emo"] == "classification"
    assert trace.prompts["sub_category"].tolist() == ["nli", "emotion", "summarization", "binary"]
    # Vanilla layers have no experts.
    assert trace.layers == ("enc01", "dec01")
    assert trace.dense_routing
    shown = analysis.task_routes(trace)
    for task in TASKS:
        want = made.weights[made.tasks.index(task)][[1, 3]]
        np.testing.assert_allclose(shown.sel(task=task), want, atol=1e-3)  # weights are stored in half precision
        np.testing.assert_allclose(trace.vectors["route_softmax_t1"].sel(task_row=task), want, rtol=1e-6)
    assert analysis.route_grouping(trace, n_permutations=5).embedding is not None
    at_tau = imported(folder, temperature=5.0).trace
    assert {facts.temperature for facts in at_tau.layer_facts} == {5.0}
    assert "route_softmax_t1" not in at_tau.vectors


def test_a_saved_array_needs_names_and_becomes_the_same_map(tmp_path):
    folder = task_moe_folder(tmp_path)
    order = {"split": tmp_path / "split.json", "ontology": tmp_path / "ontology.json"}
    array = np.random.default_rng(1).dirichlet(np.ones(3), size=(4, 12)).astype(np.float32)
    np.save(folder / "route_t1.npy", array)
    with pytest.raises(RecordingError, match="carries no names of tasks"):
        imported(folder / "route_t1.npy")
    trace = stored(imported(folder / "route_t1.npy", **order), tmp_path)
    assert trace.n_layers == 12
    np.testing.assert_allclose(analysis.task_routes(trace), array, atol=1e-3)


def test_what_cannot_be_shown_without_data_is_refused_in_sentences(tmp_path):
    with pytest.raises(RecordingError, match="has no hyper-experts"):
        imported(folder_of(tmp_path, switch_dict(hyper=False)))
    with pytest.raises(RecordingError, match="Give both, or neither"):
        imported(tmp_path, split=tmp_path / "split.json")
