"""Task-level MoE recorded: one row a prompt, one route a layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hooks import Recorder, find_sites
from hooks.proof import prove_sites
from routing import Prompt, RecordingError, Task, TaskError, TaskSet, open_trace, verify_trace
from tests.hooks.system_runs import (
    TEXTS,
    batch_of,
    prompts_of,
    recorded,
    require_nll_of_answers,
    require_untouched,
)
from tests.tiny import byte_tokenizer
from tests.tiny_systems import TASKS, tiny_system

SELECTIONS = ("gumbel_hard", "gumbel", "softmax", "average")
LABELS = ("enc00", "enc01", "dec00", "dec01")


@torch.no_grad()
@pytest.mark.parametrize("selection", SELECTIONS)
def test_what_is_on_the_disk_reproduces_every_layer(selection: str, tmp_path: Path) -> None:
    model = tiny_system("task_moe", selection=selection)
    calls: dict[int, tuple[Any, Any, torch.Tensor]] = {}
    handles = [
        layer.register_forward_hook(
            lambda _, args, kwargs, output, number=number: (
                calls.update({number: (args, kwargs, output.clone())}) or None
            ),
            with_kwargs=True,
        )
        for number, layer in enumerate(model.routed_layers)
    ]
    trace = recorded(model, tmp_path / "trace")
    for handle in handles:
        handle.remove()
    assert verify_trace(trace.path) == []
    assert (trace.unit, trace.layers, trace.n_tokens) == ("prompt", LABELS, len(TEXTS))
    assert trace.dense_routing == (selection != "gumbel_hard")
    assert {(facts.selection, round(facts.temperature, 6)) for facts in trace.layer_facts} == {(selection, 0.7)}
    assert {facts.proof for facts in trace.layer_facts} == {"replay"}
    for number, layer in enumerate(model.routed_layers):
        args, kwargs, output = calls[number]
        k = trace.layer_facts[number].top_k
        total = torch.zeros_like(output)
        for row in range(len(TEXTS)):
            for expert, weight in zip(
                trace.experts.values[row, number, :k], trace.weights.values[row, number, :k], strict=True
            ):
                total[row] += float(weight) * layer.blocks[int(expert)](*args, **kwargs)[row]
        # Weights were stored in float16.
        torch.testing.assert_close(total, output, rtol=4e-3, atol=4e-3 * float(output.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("selection", SELECTIONS)
def test_routes_and_logits_are_those_of_the_tasks(selection: str, tmp_path: Path) -> None:
    model = tiny_system("task_moe", selection=selection)
    trace = recorded(model, tmp_path / "trace")
    routes, logits = model.routes(), model.router.logits(model.task_embedding.weight)
    np.testing.assert_array_equal(trace.vectors["task_embedding"], model.task_embedding.weight.numpy())
    assert trace.vectors["task_embedding"]["task_row"].values.tolist() == list(TASKS)
    for name, expected in (("route", routes), ("route_softmax_t1", logits.softmax(-1))):
        assert trace.vectors[name].dims == ("task_row", "layer", "expert")
        np.testing.assert_allclose(trace.vectors[name], expected.transpose(0, 1), rtol=1e-5)
    for row, prompt in enumerate(prompts_of()):
        task = TASKS.index(prompt.task)
        np.testing.assert_allclose(trace.logits.values[row], logits[:, task].numpy(), rtol=2e-3, atol=1e-3)
        for layer in range(len(LABELS)):
            k = trace.layer_facts[layer].top_k
            dense = np.zeros(3)
            dense[trace.experts.values[row, layer, :k]] = trace.weights.values[row, layer, :k]
            np.testing.assert_allclose(dense, routes[layer, task].numpy(), atol=1e-3)
            if selection == "gumbel_hard":
                order = logits[layer, task].argsort(descending=True).numpy()
                np.testing.assert_array_equal(trace.experts.values[row, layer, : trace.n_ranks], order)


def test_unrouted_layers_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    model = tiny_system("task_moe", encoder_unrouted_layers=[0], decoder_unrouted_layers=[1])
    trace = recorded(model, tmp_path / "trace")
    assert trace.layers == ("enc01", "dec00")
    assert trace.vectors["route"]["layer"].values.tolist() == ["enc01", "dec00"]


def test_likelihoods_are_those_of_the_answers(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    require_nll_of_answers(model, recorded(model, tmp_path / "trace"))


def test_generate_gives_one_row_a_prompt(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    given = {name: each for name, each in batch_of(model).items() if not name.startswith("decoder")}
    with Recorder(model, out=tmp_path / "generated") as recorder, recorder.labelled(prompts_of()):
        model.generate(**given, max_new_tokens=5, do_sample=False)
    generated, forced = open_trace(tmp_path / "generated"), recorded(model, tmp_path / "forced")
    assert generated.n_tokens == len(TEXTS)
    np.testing.assert_array_equal(generated.experts.values, forced.experts.values)
    assert generated.tokens["nll"].isna().all()


def test_a_prompt_that_is_recorded_twice_has_two_rows(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    with torch.no_grad(), Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        for _ in range(2):
            with recorder.labelled(prompts_of()):
                model(**batch_of(model))
        model(**batch_of(model, TEXTS[:1]))
    trace = open_trace(tmp_path / "trace")
    names = trace.prompts["prompt"].tolist()
    assert [names[each] for each in trace.tokens["prompt"]] == [*TEXTS, *(f"{text}#2" for text in TEXTS), names[-1]]
    assert trace.prompts["text"].iloc[-1] == TEXTS[0]


def test_an_encoder_alone_leaves_no_row(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    batch = batch_of(model)
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        with model.routed(model.routes(batch["task_ids"])):
            model.get_encoder()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        model(**batch)
    assert open_trace(tmp_path / "trace").n_tokens == len(TEXTS)


def test_a_batch_that_does_not_fit_its_labels_is_refused(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    with pytest.raises(RecordingError, match="batch of 4 texts, but 2 prompts"), torch.no_grad():
        with Recorder(model, out=tmp_path / "trace") as recorder, recorder.labelled(prompts_of()[:2]):
            model(**batch_of(model))


def test_a_task_without_a_route_is_refused_before_anything_runs(tmp_path: Path) -> None:
    tasks = TaskSet(
        tasks=(Task(name="span"), Task(name="riddle")),
        prompts=(Prompt(id="a", text="a", task="span"), Prompt(id="b", text="b", task="riddle")),
    )
    with pytest.raises(TaskError, match=r"no row for the tasks riddle; it knows choice, span, text"):
        with Recorder(tiny_system("task_moe"), byte_tokenizer(), out=tmp_path / "trace") as recorder:
            recorder.run(tasks)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("selection", ["gumbel_hard", "softmax"])
def test_what_was_knocked_out_is_never_selected(selection: str, tmp_path: Path) -> None:
    model = tiny_system("task_moe", selection=selection)
    with model.knock_out([(1, 0), (3, 2)]):
        trace = recorded(model, tmp_path / "trace")
    assert verify_trace(trace.path) == []
    for layer, expert in ((1, 0), (3, 2)):
        weights = trace.weights.values[:, layer][trace.experts.values[:, layer, : trace.top_k] == expert]
        assert (weights == 0).all()
        assert (trace.logits.values[:, layer, expert] < -6e4).all()


@pytest.mark.parametrize("level", ["assignments", "counts"])
def test_levels(level: str, tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    full, less = recorded(model, tmp_path / "full"), recorded(model, tmp_path / level, level=level)
    assert verify_trace(less.path) == []
    np.testing.assert_array_equal(less.vectors["route"], full.vectors["route"])
    if level == "counts":
        assert int(less.counts.sum()) == len(TEXTS) * len(LABELS)
    else:
        np.testing.assert_array_equal(less.experts.values, full.experts.values)


def test_a_swapped_route_is_caught() -> None:
    model = tiny_system("task_moe")
    for change in (
        lambda seen: replace(seen, ids=(seen.ids + 1) % 3),
        lambda seen: replace(seen, weights=seen.weights * 0.5),
        lambda seen: replace(seen, ids=seen.ids.roll(1, 0)),
    ):
        sites = find_sites(model)
        decode = sites[2].tap.decode
        sites[2].tap.decode = lambda *given, decode=decode, change=change: change(decode(*given))
        with pytest.raises(RecordingError, match="read from dec00 .* does not explain"), torch.no_grad():
            prove_sites(model, sites, lambda: model(**batch_of(model)))


def test_a_poisoned_block_spoils_exactly_the_prompts_that_took_it() -> None:
    model = tiny_system("task_moe")
    sites = find_sites(model)
    batch = batch_of(model)
    for site in sites[:1]:
        for expert, block in enumerate(site.tap.block.blocks):
            kept = [each.clone() for each in block.parameters()]
            with torch.no_grad():
                nn.utils.vector_to_parameters(
                    torch.full_like(nn.utils.parameters_to_vector(block.parameters()), float("nan")), block.parameters()
                )
                took = (model.routes(batch["task_ids"])[0].argmax(-1) == expert).tolist()
                # NaN × 0 is NaN, so each text is asked alone, where blocks that nobody takes do not run.
                for row in range(len(TEXTS)):
                    one = {name: value[row : row + 1] for name, value in batch.items()}
                    assert bool(model(**one).logits.isnan().any()) == took[row]
                for parameter, value in zip(block.parameters(), kept, strict=True):
                    parameter.copy_(value)


def test_recording_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    for selection in SELECTIONS:
        broken = require_untouched(tiny_system("task_moe", selection=selection), tmp_path / selection)
        assert broken.n_tokens == len(TEXTS)


def test_half_precision_and_training_are_recorded(tmp_path: Path) -> None:
    model = tiny_system("task_moe").to(torch.bfloat16)
    assert {facts.proof for facts in recorded(model, tmp_path / "half").layer_facts} == {"replay"}
    trace = recorded(tiny_system("task_moe").train(), tmp_path / "training")
    assert {facts.proof for facts in trace.layer_facts} == {"counts"}


def test_a_compiled_model_is_refused(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    model.compile(backend="eager")
    with pytest.raises(RecordingError, match="without torch.compile"):
        Recorder(model, out=tmp_path / "trace").__enter__()
