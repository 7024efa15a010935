"""HyperMoE recorded: the adapter of each token's selected set, once each, and how much it added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hooks import Recorder, find_sites
from hooks.proof import prove_sites
from hooks.taps.hyper_moe import HyperMoeTap
from moe_models.hypermoe import overridden_selection
from routing import MISSING_ADAPTER, RecordingError, RoutingTrace, open_trace, verify_trace
from tests.hooks.system_runs import (
    TEXTS,
    batch_of,
    ids_of,
    literal_adapter,
    outputs_of,
    prompts_of,
    recorded,
    require_untouched,
)
from tests.tiny import EOS, byte_tokenizer
from tests.tiny_systems import tiny_system

DROPS = {"expert_capacity": 2}
GENERATING: list[tuple[str, dict[str, Any]]] = [
    ("hypermoe", {}),
    ("hypermoe", {"num_experts_per_tok": 1}),
    ("hypermoe", {"conditioning": "selected"}),
    ("hypermoe", {"conditioning": "constant"}),
    ("hypermoe", {"conditioning": "random"}),
    ("hypermoe_switch", {}),
    ("hypermoe_switch", DROPS),
    ("hypermoe_switch", DROPS | {"dropped_tokens": "scaled_input"}),
]
BACKBONES = ("hypermoe", "hypermoe_switch")


def keys(trace: RoutingTrace) -> np.ndarray:
    """(token, site) · key of the adapter that was applied, "" where none."""
    names = np.array([*trace.adapters.table["key"], ""])
    return names[np.where(trace.adapter_index.values < 0, -1, trace.adapter_index.values)]


@torch.no_grad()
@pytest.mark.parametrize("system, changes", GENERATING)
def test_what_is_on_the_disk_reproduces_adapters_and_blocks(
    system: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    # One text, no padding: rows of the trace are rows of the batch.
    model, text = tiny_system(system, **changes), ("the quick brown fox jumps",)
    sites = {site.facts.label: site for site in find_sites(model)}
    with outputs_of(model, lambda module: hasattr(module, "hyper_expert") or hasattr(module, "override")) as seen:
        trace = recorded(model, tmp_path / "trace", texts=text)
    assert verify_trace(trace.path) == []
    assert trace.provenance.self_check["adapters"] == "passed"
    parameters, n_dropped = torch.tensor(trace.adapters.parameters.values), 0
    for number, site in enumerate(trace.adapters.sites):
        layer, tap = trace.layers.index(site.label), sites[site.label].tap
        rows = (trace.adapter_index.values[:, number] >= 0).nonzero()[0]
        (hidden, *_), added = seen[f"{site.module}.hyper_expert"]
        assert len(rows) == len(hidden)
        ids = torch.from_numpy(trace.experts.values[rows, layer, : trace.layer_facts[layer].top_k].astype(np.int64))
        weights = torch.from_numpy(trace.weights.values[rows, layer].astype(np.float32))
        (came_in, *_), came_out = seen[site.module]
        for place, row in enumerate(rows):
            own = parameters[trace.adapter_index.values[row, number]]
            replayed = literal_adapter(own, hidden[place], hidden=site.hidden, width=site.width)
            torch.testing.assert_close(replayed, added[place], rtol=1e-4, atol=1e-6)
            branch = sum(
                weight * tap.one_expert(hidden[place : place + 1], expert[None], torch.float32)[0]
                for weight, expert in zip(weights[place], ids[place], strict=True)
            )
            if trace.dropped is not None and trace.dropped.values[row, layer, 0]:
                n_dropped += 1
                if changes.get("dropped_tokens") == "scaled_input":
                    logits = torch.from_numpy(trace.logits.values[row, layer].astype(np.float32))
                    branch = branch + logits.softmax(-1).max() * came_in.flatten(0, 1)[place]
            whole = came_out.flatten(0, 1)[place]
            # Weights and logits were stored in float16.
            torch.testing.assert_close(branch + replayed, whole, rtol=1e-2, atol=3e-3 * float(whole.abs().max()))
            ratio = float(trace.adapter_ratio.values[row, number])
            if branch.any():
                assert ratio == pytest.approx(float(added[place].norm() / branch.norm()), rel=5e-3)
            else:
                assert np.isnan(ratio)
    assert (n_dropped > 0) == ("expert_capacity" in changes)


@pytest.mark.parametrize("system", BACKBONES)
def test_each_selected_set_is_there_once(system: str, tmp_path: Path) -> None:
    model = tiny_system(system)
    trace = recorded(model, tmp_path / "trace")
    table = trace.adapters.table
    assert not table.duplicated(["site", "key"]).any()
    assert {site.made_from for site in trace.adapters.sites} == {"selected_set"}
    assert table["n_uses"].sum() == (trace.adapter_index.values >= 0).sum()
    assert (table["n_uses"] > 0).all()
    named = keys(trace)
    for number, site in enumerate(trace.adapters.sites):
        layer = trace.layers.index(site.label)
        selected = trace.experts.values[:, layer, : trace.layer_facts[layer].top_k]
        for own, chosen in zip(named[:, number], selected, strict=True):
            there = chosen[0] != trace.absent
            assert own == (" ".join(map(str, sorted(chosen.tolist()))) if there else "")


@pytest.mark.parametrize("system", BACKBONES)
def test_embeddings_and_inputs_are_those_of_the_model(system: str, tmp_path: Path) -> None:
    model = tiny_system(system)
    trace = recorded(model, tmp_path / "trace")
    made_from = trace.adapters.conditioning
    for number, row in trace.adapters.table.iterrows():
        part = model.get_submodule(next(s.module for s in trace.adapters.sites if s.label == row["site"])).hyper_expert
        table = part.selection.expert_embedding.weight.detach()
        chosen = [int(each) for each in row["key"].split()]
        unselected = sum(table[n] for n in range(len(table)) if n not in chosen)
        np.testing.assert_allclose(made_from["selection_embedding"].values[number], unselected, rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            q = part.selection.process(unselected)
        np.testing.assert_allclose(made_from["hypernetwork_input"].values[number], q, rtol=1e-4, atol=1e-5)
        layer = trace.vectors["expert_embedding"].sel(layer=row["site"])
        np.testing.assert_array_equal(layer.values, table.numpy())


def test_similar_weights_are_the_cosines_of_the_experts(tmp_path: Path) -> None:
    for system in BACKBONES:
        model = tiny_system(system)
        found = recorded(model, tmp_path / system).vectors["expert_weight_similarity"]
        site = find_sites(model)[1]
        experts = site.tap.experts
        if system == "hypermoe":
            flat = torch.cat([each.detach().flatten(1) for each in experts.parameters()], dim=1)
        else:
            each_alone = [torch.cat([part.detach().flatten() for part in e.parameters()]) for e in experts.values()]
            flat = torch.stack(each_alone)
        cosines = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], -1)
        np.testing.assert_allclose(found.sel(layer=site.facts.label).values, cosines.numpy(), atol=1e-5)


@pytest.mark.parametrize("conditioning", ["none", "adapter"])
@pytest.mark.parametrize("system", BACKBONES)
def test_controls_that_generate_nothing_say_so(system: str, conditioning: str, tmp_path: Path) -> None:
    trace = recorded(tiny_system(system, conditioning=conditioning), tmp_path / "trace")
    assert trace.adapters is None
    assert "none is generated" in trace.layer_facts[0].note or "no adapter is generated" in trace.layer_facts[0].note
    assert {facts.proof for facts in trace.layer_facts} == {"replay"}


@pytest.mark.parametrize("system", BACKBONES)
def test_padding_on_either_side_gives_the_same_adapters(system: str, tmp_path: Path) -> None:
    model, found = tiny_system(system), {}
    for side in ("left", "right"):
        trace = recorded(model, tmp_path / side, side=side)
        order = trace.tokens.sort_values(["prompt", "stack", "position"]).index
        found[side] = keys(trace)[order], trace.adapter_ratio.values[order].astype(np.float32)
    if system == "hypermoe":  # relative positions in T5's family see left padding
        np.testing.assert_array_equal(found["left"][0], found["right"][0])
        np.testing.assert_allclose(found["left"][1], found["right"][1], rtol=5e-3)
    assert len(found["left"][0]) == len(found["right"][0])


@pytest.mark.parametrize("system", BACKBONES)
def test_generation_with_a_cache_uses_the_adapters_of_teacher_forcing(system: str, tmp_path: Path) -> None:
    model, text = tiny_system(system), TEXTS[:1]
    given = {name: value for name, value in batch_of(model, text).items() if name in ("input_ids", "attention_mask")}
    with Recorder(model, out=tmp_path / "generated") as recorder, recorder.labelled(prompts_of(text)):
        written = model.generate(**given, max_new_tokens=6, do_sample=False, use_cache=True)[0].tolist()
    generated = open_trace(tmp_path / "generated")
    start = len(ids_of(text[0])) if system == "hypermoe" else 0
    kept = written[: written.index(EOS)] if EOS in written else written[:-1]
    forced_input = (
        {"decoder_input_ids": torch.tensor([kept])} | given if start == 0 else {"input_ids": torch.tensor([kept])}
    )
    with torch.no_grad(), Recorder(model, out=tmp_path / "forced") as recorder, recorder.labelled(prompts_of(text)):
        model(**forced_input)
    forced = open_trace(tmp_path / "forced")
    orders = [each.tokens.sort_values(["stack", "position"]).index for each in (generated, forced)]
    np.testing.assert_array_equal(keys(generated)[orders[0]], keys(forced)[orders[1]])


@pytest.mark.parametrize("level", ["assignments", "counts"])
@pytest.mark.parametrize("system", BACKBONES)
def test_levels(system: str, level: str, tmp_path: Path) -> None:
    model = tiny_system(system)
    full, less = recorded(model, tmp_path / "full"), recorded(model, tmp_path / level, level=level)
    assert verify_trace(less.path) == []
    np.testing.assert_array_equal(less.vectors["expert_embedding"], full.vectors["expert_embedding"])
    if level == "counts":
        assert less.adapters is None
        assert int(less.counts.sum()) == int((full.experts.values[:, :, : full.top_k] != full.absent).sum())
    else:
        assert less.logits is None
        np.testing.assert_array_equal(keys(less), keys(full))


@pytest.mark.parametrize("system", BACKBONES)
def test_a_wrong_entry_of_the_dictionary_is_caught(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = HyperMoeTap.generated

    def swapped(self: HyperMoeTap, sets: torch.Tensor) -> Any:
        made = right(self, sets)
        parameters = made.parameters.copy()
        parameters[[0, 1]] = parameters[[1, 0]]
        return replace(made, parameters=parameters)

    monkeypatch.setattr(HyperMoeTap, "generated", swapped)
    with pytest.raises(RecordingError, match="does not explain its experts'"):
        recorded(tiny_system(system), tmp_path / "trace")


@pytest.mark.parametrize("system", BACKBONES)
def test_a_swapped_route_is_caught(system: str) -> None:
    model = tiny_system(system)
    batch, sites = batch_of(model), find_sites(model)
    decode, n_experts = sites[0].tap.decode, sites[0].facts.n_experts
    sites[0].tap.decode = lambda *given: replace(reading := decode(*given), ids=(reading.ids + 1) % n_experts)
    with pytest.raises(RecordingError, match=f"read from {sites[0].facts.label} .* does not explain"):
        prove_sites(model, sites, lambda: model(**batch))


@pytest.mark.parametrize("system", BACKBONES)
def test_recording_changes_nothing_and_leaves_nothing(system: str, tmp_path: Path) -> None:
    broken = require_untouched(tiny_system(system), tmp_path)
    assert not broken.provenance.complete
    assert (keys(broken) != "").any()


@pytest.mark.parametrize("system", BACKBONES)
def test_a_killed_run_leaves_every_row_with_its_adapter_or_without_a_name(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECONDS_BETWEEN_TABLES", "TIMES_ITS_OWN"):
        monkeypatch.setattr(f"hooks.sinks.{name}", 0)
    model = tiny_system(system)
    recorder = Recorder(model, out=tmp_path / "trace").__enter__()
    with torch.no_grad():
        for _ in range(2):
            model(**batch_of(model))
            recorder._pipeline.deliver()
    recorder._courier.close()  # what was handed over is on the disk; nothing is closed, as after a kill
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens == recorder.n_tokens > 0
    assert trace.adapter_index.values.min() >= -2
    assert trace.adapter_index.values.max() < len(trace.adapters)
    recorder._open.close()


def test_half_precision_is_proven_as_well() -> None:
    for system in BACKBONES:
        model = tiny_system(system).to(torch.bfloat16)
        sites = prove_sites(model, find_sites(model), lambda model=model: model(**batch_of(model)))
        assert {site.facts.proof for site in sites} == {"replay"}


def test_an_overridden_selection_embedding_is_refused(tmp_path: Path) -> None:
    model = tiny_system("hypermoe")
    with overridden_selection(model, "zero"), pytest.raises(RecordingError, match="overridden"):
        recorded(model, tmp_path / "trace")


def test_weights_that_change_while_they_are_recorded_are_refused(tmp_path: Path) -> None:
    model = tiny_system("hypermoe")
    with pytest.raises(RecordingError, match="weights that generate adapters changed"), torch.no_grad():
        with Recorder(model, byte_tokenizer(), out=tmp_path / "trace"):
            model(**batch_of(model))
            model.model.hypernetwork.trunk.weight.mul_(1.5)


def test_a_dictionary_that_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.adapter_books.N_ADAPTERS_A_SITE", 3)
    trace = recorded(tiny_system("hypermoe"), tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert len(trace.adapters) == 3 * len(trace.adapters.sites)
    assert (trace.adapter_index.values == MISSING_ADAPTER).any()
    assert "Only the first 3 distinct adapters of L00, L01, L02 were kept" in trace.provenance.note
