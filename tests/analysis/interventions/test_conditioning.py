"""What adapters are made from, exchanged: HyperMoE's selection embedding, PHA's prototypes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from analysis.interventions import prototype_exchange, selection_embedding_effects
from analysis.interventions.prototypes import diagonal_dominance
from routing import RecordingError, Task, TaskError, TaskSet
from tests.analysis.interventions.makers import bench_of, own_words
from tests.tiny_systems import tiny_system

TASKS = tuple(f"t{number}" for number in range(5))


def test_an_embedding_that_is_used_costs_when_it_is_another_and_one_that_is_not_does_not(tmp_path: Path) -> None:
    model = tiny_system("hypermoe")
    tasks = own_words(model, {"a": "x", "b": "y"})
    used = selection_embedding_effects(bench_of(model, tasks), beside=tmp_path).set_index(["override", "group"])
    assert used.loc[("skip", "all"), "nll_change"] > 0.1
    assert used.loc[("skip", "all"), "low"] > 0
    assert abs(used.loc[("shifted", "all"), "nll_change"]) > 1e-3
    # A hypernetwork that looks at the layer alone makes the same adapters from any embedding.
    with torch.no_grad():
        model.model.hypernetwork.trunk.weight[:, :5] = 0
    unused = selection_embedding_effects(bench_of(model, tasks), beside=tmp_path).set_index(["override", "group"])
    for override in ("shifted", "mean", "zero"):
        assert abs(unused.loc[(override, "all"), "nll_change"]) < 1e-6
    assert abs(unused.loc[("skip", "all"), "nll_change"]) > 1e-3
    assert all(part.override is None for part in model.modules() if hasattr(part, "override"))


def test_a_model_without_selection_embeddings_is_refused(tmp_path: Path) -> None:
    model = tiny_system("hypermoe", conditioning="adapter")
    with pytest.raises(RecordingError, match="no adapters from a selection embedding"):
        selection_embedding_effects(bench_of(model, own_words(model, {"a": "x"}, n_prompts=1)), beside=tmp_path)


def loud() -> PreTrainedModel:
    """A PHA model of five tasks whose adapters say much and differ much."""
    model = tiny_system("pha", tasks=list(TASKS), seed=2)
    with torch.no_grad():
        for name, parameter in model.hypernetwork.named_parameters():
            if ".heads." in f".{name}":
                parameter.mul_(8)
    return model


def test_prototypes_that_make_the_answers_dominate(tmp_path: Path) -> None:
    model = loud()
    tasks = own_words(model, dict.fromkeys(TASKS, "x"), n_prompts=3)
    found = prototype_exchange(bench_of(model, tasks), beside=tmp_path, n_permutations=2000)
    assert found.nll.dims == ("task", "prototype")
    assert found.dominance > 0.05
    assert found.p_value < 0.05
    assert (found.tasks["advantage"] > 0).sum() >= 4
    # What stands in the matrix is the model told another task.
    other = bench_of(model, tasks).measured(as_task="t3")
    mean = other.groupby("task")["nll"].mean()
    np.testing.assert_allclose(found.nll.sel(prototype="t3"), mean[list(TASKS)], rtol=1e-6)
    again = prototype_exchange(bench_of(model, tasks), beside=tmp_path, n_permutations=2000)
    assert again.p_value == found.p_value


def test_tasks_without_a_prototype_are_left_out(tmp_path: Path) -> None:
    model = tiny_system("pha")
    known = own_words(model, {"choice": "x", "span": "y"}, n_prompts=1)
    strange = replace(known.prompts[0], id="strange", task="riddle")
    tasks = TaskSet(tasks=(*known.tasks, Task(name="riddle")), prompts=(*known.prompts, strange))
    found = prototype_exchange(bench_of(model, tasks), beside=tmp_path)
    assert found.left_out == ("riddle",)
    assert found.nll["prototype"].values.tolist() == ["choice", "span"]


def test_prototypes_that_are_all_the_same_do_not(tmp_path: Path) -> None:
    model = loud()
    with torch.no_grad():
        model.prototypes.weight.copy_(model.prototypes.weight[:1].expand_as(model.prototypes.weight))
    tasks = own_words(model, dict.fromkeys(TASKS, "x"), n_prompts=1)
    found = prototype_exchange(bench_of(model, tasks), beside=tmp_path, n_permutations=500)
    assert abs(found.dominance) < 1e-5
    assert found.p_value > 0.05


def test_chance_dominates_as_often_as_the_p_value_says() -> None:
    rng = np.random.default_rng(0)
    p = [diagonal_dominance(rng.normal(size=(6, 6)), n_permutations=200, seed=s)[1] for s in range(200)]
    assert 0.01 < np.mean(np.array(p) <= 0.05) < 0.1


def test_what_cannot_be_exchanged_is_refused(tmp_path: Path) -> None:
    model = tiny_system("pha", adapter_source="instance")
    tasks = own_words(model, {"choice": "x", "span": "y"}, n_prompts=1)
    with pytest.raises(RecordingError, match="no adapters from prototypes"):
        prototype_exchange(bench_of(model, tasks), beside=tmp_path)
    model = tiny_system("pha")
    with pytest.raises(TaskError, match="two tasks or more"):
        prototype_exchange(bench_of(model, own_words(model, {"choice": "x"}, n_prompts=1)), beside=tmp_path)
