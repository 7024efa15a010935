"""PHA recorded: retrieval as routing, one row a prompt; the adapters that ran, and how much they added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from hooks import Recorder, find_sites
from hooks.proof import prove_sites
from hooks.taps.task_adapters import TaskAdapterTap
from routing import Prompt, RecordingError, RoutingTrace, Task, TaskSet, open_trace, verify_trace
from tests.hooks.system_runs import (
    TEXTS,
    batch_of,
    literal_adapter,
    outputs_of,
    prompts_of,
    recorded,
    require_nll_of_answers,
    require_untouched,
    told,
)
from tests.tiny import byte_tokenizer
from tests.tiny_systems import TASKS, tiny_system

SOURCES = ("prototype", "instance")


def applied_keys(trace: RoutingTrace) -> list[list[str]]:
    """(prompt) (site) · key of the adapter that was applied."""
    names = trace.adapters.table["key"].tolist()
    return [[names[each] for each in row] for row in trace.adapter_index.values]


def adapted(model: PreTrainedModel) -> Any:
    """The parts of the decoder's adapted feed-forwards, watched."""
    parts = ("adapter", "DenseReluDense")
    wanted = {
        id(module)
        for path, module in model.named_modules()
        if path.startswith("decoder") and (path.rsplit(".", 1)[-1] in parts)
    }
    return outputs_of(model, lambda module: id(module) in wanted or module is model.retriever)


@torch.no_grad()
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_on_the_disk_reproduces_retrieval_and_adapters(source: str, tmp_path: Path) -> None:
    model = tiny_system("pha", adapter_source=source)
    with adapted(model) as seen:
        trace = recorded(model, tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert (trace.unit, trace.n_tokens, trace.layers) == ("prompt", len(TEXTS), ("retriever",))
    assert trace.prompts["prompt"].tolist() == list(TEXTS)
    assert trace.expert_names["retriever"] == TASKS
    # The stored vectors and prototypes, and nothing else, say what was retrieved.
    z, prototypes = trace.vectors["instance"], trace.vectors["prototype"]
    assert z["prompt"].values.tolist() == list(TEXTS)
    np.testing.assert_allclose(z.values, seen["retriever"][1].numpy(), rtol=1e-6)
    unit = z.values / np.linalg.norm(z.values, axis=1, keepdims=True)
    cosines = unit @ (prototypes.values / np.linalg.norm(prototypes.values, axis=1, keepdims=True)).T
    np.testing.assert_allclose(trace.logits.values[:, 0], cosines, atol=2e-3)
    order = np.argsort(-cosines, axis=1)
    np.testing.assert_array_equal(trace.experts.values[:, 0, :3], order[:, : trace.n_ranks])
    # The stored adapters reproduce what each feed-forward was given beside its own output.
    batch, parameters = batch_of(model), torch.tensor(trace.adapters.parameters.values)
    real = batch["decoder_attention_mask"].bool()
    for number, site in enumerate(trace.adapters.sites):
        (hidden, *_), added = seen[f"{site.module}.adapter"]
        _, branch = seen[f"{site.module}.DenseReluDense"]
        for row in range(len(TEXTS)):
            own = parameters[trace.adapter_index.values[row, number]]
            replayed = literal_adapter(own, hidden[row], hidden=site.hidden, width=site.width)
            torch.testing.assert_close(replayed, added[row], rtol=1e-4, atol=1e-6)
            ratio = added[row][real[row]].norm() / branch[row][real[row]].norm()
            assert float(trace.adapter_ratio.values[row, number]) == pytest.approx(float(ratio), rel=5e-3)
    keys = applied_keys(trace)
    wanted = [prompt.task for prompt in prompts_of()] if source == "prototype" else list(TEXTS)
    assert keys == [[each] * 2 for each in wanted]
    vectors = trace.adapters.conditioning["conditioning_vector"].values[trace.adapter_index.values[:, 0]]
    made_from = model.prototypes(told(model)["task_ids"]).numpy() if source == "prototype" else z.values
    np.testing.assert_allclose(vectors, made_from, rtol=1e-6)


@torch.no_grad()
def test_every_task_has_its_adapter_in_every_layer(tmp_path: Path) -> None:
    model = tiny_system("pha")
    trace = recorded(model, tmp_path / "trace", texts=TEXTS[:1])
    table = trace.adapters.table
    assert len(table) == len(TASKS) * 2
    assert table["n_uses"].sum() == 2
    for number, weights in enumerate(model.task_adapters()):
        for row, task in enumerate(TASKS):
            (place,) = table.index[(table["site"] == f"dec{number:02d}") & (table["key"] == task)]
            flat = torch.cat([weights.down[row].flatten(), weights.up[row].flatten(), weights.bias_down[row]])
            stored = trace.adapters.parameters.values[place]
            np.testing.assert_allclose(stored, torch.cat([flat, weights.bias_up[row]]).numpy(), rtol=1e-6)


def test_likelihoods_are_those_of_the_answers(tmp_path: Path) -> None:
    model = tiny_system("pha")
    require_nll_of_answers(model, recorded(model, tmp_path / "trace"))


def test_a_shared_adapter_is_not_generated(tmp_path: Path) -> None:
    trace = recorded(tiny_system("pha", adapter_source="shared"), tmp_path / "trace")
    assert trace.adapters is None
    assert "none is generated" in trace.layer_facts[0].note
    assert trace.n_tokens == len(TEXTS)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_generate_gives_one_row_a_prompt(source: str, side: str, tmp_path: Path) -> None:
    """With its cache, and with texts that end at different steps; alone or in company."""
    model = tiny_system("pha", adapter_source=source)
    given = {name: each for name, each in batch_of(model, side=side).items() if not name.startswith("decoder")}
    asked = {"max_new_tokens": 6, "do_sample": False}
    free = model.generate(**given, **asked)
    stop = int(free[0, 2])
    with Recorder(model, out=tmp_path / "together") as recorder, recorder.labelled(prompts_of()):
        model.generate(**given, **asked, eos_token_id=stop)
    together = open_trace(tmp_path / "together")
    assert verify_trace(together.path) == []
    assert together.tokens["nll"].isna().all()
    with Recorder(model, out=tmp_path / "alone") as recorder:
        for row in range(len(TEXTS)):
            one = {name: value[row : row + 1] for name, value in given.items()}
            with recorder.labelled(prompts_of()[row : row + 1]):
                model.generate(**one, **asked, eos_token_id=stop)
    alone = open_trace(tmp_path / "alone")
    assert applied_keys(together) == applied_keys(alone)
    np.testing.assert_array_equal(together.experts.values, alone.experts.values)
    np.testing.assert_allclose(
        together.adapter_ratio.values.astype(float), alone.adapter_ratio.values.astype(float), rtol=2e-3
    )


def test_a_task_that_the_model_does_not_know_runs_with_the_prototype_it_retrieves(tmp_path: Path) -> None:
    model = tiny_system("pha")
    tasks = TaskSet(
        tasks=(Task(name="riddle", metric="exact_match", max_new_tokens=3), Task(name="span", max_new_tokens=0)),
        prompts=(
            *(Prompt(id=text, text=text, task="riddle", target=" yes") for text in TEXTS),
            Prompt(id="known", text="where is it", task="span", target=" here"),
        ),
    )
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run(tasks, batch_size=2)
    trace = open_trace(tmp_path / "trace")
    assert "knows no task riddle" in trace.provenance.note
    retrieved = [TASKS[each] for each in trace.experts.values[:, 0, 0]]
    tasks_of = trace.prompts["task"].tolist()
    for row, prompt in enumerate(trace.tokens["prompt"]):
        wanted = "span" if tasks_of[prompt] == "span" else retrieved[row]
        assert applied_keys(trace)[row] == [wanted] * 2


@torch.no_grad()
def test_a_vector_of_ones_own_is_stored_under_the_prompt(tmp_path: Path) -> None:
    model = tiny_system("pha")
    batch = batch_of(model)
    del batch["task_ids"]
    own = torch.randn(len(TEXTS), 5)
    with Recorder(model, out=tmp_path / "trace") as recorder, recorder.labelled(prompts_of()):
        with model.adapted(own):
            model(**batch)
    trace = open_trace(tmp_path / "trace")
    assert applied_keys(trace) == [[text] * 2 for text in TEXTS]
    stored = trace.adapters.conditioning["conditioning_vector"].values[trace.adapter_index.values[:, 0]]
    np.testing.assert_array_equal(stored, own.numpy())


@pytest.mark.parametrize("level", ["assignments", "counts"])
def test_levels(level: str, tmp_path: Path) -> None:
    model = tiny_system("pha")
    full, less = recorded(model, tmp_path / "full"), recorded(model, tmp_path / level, level=level)
    assert verify_trace(less.path) == []
    np.testing.assert_array_equal(less.vectors["instance"], full.vectors["instance"])
    if level == "counts":
        assert (int(less.counts.sum()), less.adapters) == (len(TEXTS), None)
    else:
        assert less.logits is None
        assert applied_keys(less) == applied_keys(full)


def test_a_wrong_entry_of_the_dictionary_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = TaskAdapterTap.generated

    def rotated(self: TaskAdapterTap, vectors: torch.Tensor) -> Any:
        made = right(self, vectors)
        return replace(made, parameters=np.roll(made.parameters, 1, axis=0))

    monkeypatch.setattr(TaskAdapterTap, "generated", rotated)
    with pytest.raises(RecordingError, match="do not explain what it added"):
        recorded(tiny_system("pha"), tmp_path / "trace")


@torch.no_grad()
def test_another_tasks_adapter_in_the_layer_is_caught(tmp_path: Path) -> None:
    """The layer runs with other adapters than those that the model's call named."""
    model = tiny_system("pha")
    place = model.decoder.block[1].layer[-1].adapter

    def tamper(module: torch.nn.Module, args: Any) -> None:
        module.current = module.current[torch.tensor([1, 0, 2, 3])]

    handle = place.register_forward_pre_hook(tamper)
    with pytest.raises(RecordingError, match=r"decoder.block.1.layer.2 was given do not explain"):
        recorded(model, tmp_path / "trace")
    handle.remove()


def test_a_wrong_vector_and_a_wrong_prototype_are_caught() -> None:
    model = tiny_system("pha")
    for change in (
        lambda seen: replace(seen, vector=seen.vector.roll(1, 0)),
        lambda seen: replace(seen, ids=(seen.ids + 1) % 3),
        lambda seen: replace(seen, logits=seen.logits.roll(1, 0)),
    ):
        (site,) = find_sites(model)
        deliver = site.tap.deliver
        site.tap.deliver = lambda emit, seen, deliver=deliver, change=change: deliver(emit, change(seen))
        with pytest.raises(RecordingError, match="read from retriever .* does not explain"):
            prove_sites(model, [site], lambda: model(**batch_of(model)))


@pytest.mark.parametrize("source", [*SOURCES, "shared"])
def test_recording_changes_nothing_and_leaves_nothing(source: str, tmp_path: Path) -> None:
    broken = require_untouched(tiny_system("pha", adapter_source=source), tmp_path)
    assert broken.n_tokens == len(TEXTS)


def test_weights_that_change_while_they_are_recorded_are_refused(tmp_path: Path) -> None:
    model = tiny_system("pha")
    with pytest.raises(RecordingError, match="weights that generate adapters changed"), torch.no_grad():
        with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
            for _ in range(2):
                model(**batch_of(model))
                recorder._pipeline.deliver()
                model.prototypes.weight.mul_(1.5)
