"""Evaluations of models that are told tasks: options, generation and likelihoods, with the task of each prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hooks import Recorder
from hooks.encoding import encoded_prompts, tokens_alone
from hooks.options import option_scores
from routing import Prompt, Task, TaskError, TaskSet, open_trace, verify_trace
from tests.tiny import PAD, byte_tokenizer
from tests.tiny_systems import SYSTEMS, tiny_system

OPTIONS = (" yes", " no", " it may well be")
TOLD = ("pha", "task_moe")
TOLD_OTHERWISE = [*((system, {}) for system in TOLD), ("pha", {"adapter_source": "task"})]
TASKS = TaskSet(
    tasks=(
        Task(name="choice", task_type="classification", metric="accuracy", instruction="Choose."),
        Task(name="span", task_type="extractive", metric="token_f1", max_new_tokens=4),
        Task(name="text", max_new_tokens=0),
    ),
    prompts=(
        *(
            Prompt(id=f"choice-{n}", text="Choose.\n" + "so " * n, task="choice", options=OPTIONS, target=" no")
            for n in (1, 3)
        ),
        *(Prompt(id=f"span-{n}", text="where " * n, task="span", target=" over there") for n in (1, 2, 3)),
        Prompt(id="text-1", text="only read", task="text"),
    ),
)


@pytest.mark.parametrize("system", SYSTEMS)
def test_predictions_and_scores_stand_beside_the_routing(system: str, tmp_path: Path) -> None:
    model = tiny_system(system)
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        result = recorder.run(TASKS, batch_size=2)
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(trace.path) == []
    prompts = trace.prompts.set_index("prompt")
    assert prompts.index.tolist() == [prompt.id for prompt in TASKS.prompts]
    assert set(prompts["prediction"].iloc[:2]) <= set(OPTIONS)
    assert result.table["prediction"].tolist() == prompts["prediction"].fillna("").tolist()
    assert set(trace.tokens["prompt"]) == set(range(len(TASKS)))
    assert trace.n_tokens == len(TASKS) if trace.unit == "prompt" else trace.n_tokens > len(TASKS)


@pytest.mark.parametrize("system, changes", TOLD_OTHERWISE)
def test_options_are_scored_with_the_task_of_their_prompt(system: str, changes: dict[str, str]) -> None:
    model, tokenizer = tiny_system(system, **changes), byte_tokenizer()
    batch = encoded_prompts(
        TASKS.prompts[:2], tokenizer=tokenizer, limit=None, n_new_tokens=[0] * 2, too_long="error", apart=True
    )
    found = option_scores(model, batch, pad_id=PAD, device=torch.device("cpu"), norm="sum", n_rows=4)
    start = model.config.decoder_start_token_id
    for each, scores in zip(batch, found, strict=True):
        for option, score in zip(each.options, scores, strict=True):
            with torch.no_grad():
                likely = model(
                    input_ids=torch.tensor([each.ids]),
                    decoder_input_ids=torch.tensor([[start, *option]]),
                    task_ids=model.task_ids(["choice"]),
                ).logits.log_softmax(-1)
            assert score == pytest.approx(sum(float(likely[0, p, t]) for p, t in enumerate(option)), rel=1e-4)
    other = [replace(each, prompt=replace(each.prompt, task="text")) for each in batch]
    elsewhere = option_scores(model, other, pad_id=PAD, device=torch.device("cpu"), norm="sum", n_rows=4)
    assert not np.allclose(found, elsewhere)


@pytest.mark.parametrize("system", TOLD)
def test_generation_and_likelihood_are_those_of_the_prompt_alone(system: str, tmp_path: Path) -> None:
    model, tokenizer = tiny_system(system), byte_tokenizer()
    with Recorder(model, tokenizer, out=tmp_path / "trace") as recorder:
        table = recorder.run(TASKS, batch_size=3).table.set_index("prompt")
    trace = open_trace(tmp_path / "trace")
    names, nll = trace.prompts["prompt"].tolist(), trace.tokens["nll"].to_numpy()
    start, recorded = model.config.decoder_start_token_id, dict(zip(trace.tokens["prompt"], nll, strict=True))
    for prompt in TASKS.prompts:
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
        told = {"task_ids": model.task_ids([prompt.task])}
        if prompt.task == "span":
            written = model.generate(input_ids=ids, **told, max_new_tokens=4, do_sample=False)[0, 1:]
            text = tokenizer.decode(written, skip_special_tokens=True).strip().split("\n")[0].strip()
            assert table.loc[prompt.id, "prediction"] == text
        value = recorded[names.index(prompt.id)]
        if prompt.target is None:
            assert np.isnan(value)
            continue
        target = tokens_alone(tokenizer, prompt.target)
        with torch.no_grad():
            likely = model(input_ids=ids, decoder_input_ids=torch.tensor([[start, *target[:-1]]]), **told).logits[0]
        # The last token of the target is fed, too; it is predicted by the place before it.
        expected = -likely.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)].mean()
        assert float(value) == pytest.approx(float(expected), rel=1e-4)


def test_a_model_that_must_not_be_told_the_task_reads_no_instruction(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    model.config.reads_instruction = False
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run(TASKS)
    texts = open_trace(tmp_path / "trace").prompts["text"].tolist()
    assert texts[:3] == ["so ", "so so so ", "where "]


def test_a_source_beyond_the_positions_of_the_model_is_an_error(tmp_path: Path) -> None:
    long = TaskSet(tasks=TASKS.tasks[:1], prompts=(replace(TASKS.prompts[0], text="x" * 120),))
    with pytest.raises(TaskError, match="context of 96 tokens"):
        with Recorder(tiny_system("task_moe"), byte_tokenizer(), out=tmp_path / "trace") as recorder:
            recorder.run(long)


@pytest.mark.parametrize("system", TOLD)
def test_rows_of_the_model_are_called_by_the_names_of_the_run(system: str, tmp_path: Path) -> None:
    aliases = {"riddle": "choice", "where": "span", "there": "span"}
    model = tiny_system(system, task_aliases=aliases)
    prompts = [
        Prompt(id=name, text=f"{name}?", task=name, target=" yes") for name in ("riddle", "where", "there", "text")
    ]
    tasks = TaskSet(tasks=tuple(Task(name=each.task, max_new_tokens=0) for each in prompts), prompts=tuple(prompts))
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run(tasks)
    trace = open_trace(tmp_path / "trace")
    # Two tasks of the run are the model's "span": the row keeps the model's own name.
    names = ["riddle", "span", "text"]
    if system == "task_moe":
        assert trace.vectors["route"]["task_row"].values.tolist() == names
    else:
        assert list(trace.expert_names["retriever"]) == names
        assert trace.vectors["prototype"]["prototype"].values.tolist() == names
        assert set(trace.adapters.table["key"]) == set(names)


def test_a_control_whose_encoder_belongs_to_tasks_refuses_others(tmp_path: Path) -> None:
    model = tiny_system("pha", adapter_source="task")
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run(TASKS)
    trace = open_trace(tmp_path / "trace")
    assert trace.adapters is None
    assert "learned adapters of its own" in trace.layer_facts[0].note
    strange = [Prompt(id="a", text="a", task="riddle", target=" b")]
    with pytest.raises(TaskError, match="no row for the tasks riddle"):
        with Recorder(model, byte_tokenizer(), out=tmp_path / "other") as recorder:
            recorder.run(strange)


def test_the_retriever_is_asked_once_a_batch_and_only_about_strange_tasks(tmp_path: Path) -> None:
    model, read = tiny_system("pha"), []
    model.encoder.register_forward_hook(lambda _, args, kwargs, output: read.append(len(output[0])), with_kwargs=True)
    known, strange = TASKS.prompts[0], replace(TASKS.prompts[1], task="riddle")
    tasks = TaskSet(tasks=(TASKS.tasks[0], replace(TASKS.tasks[0], name="riddle")), prompts=(known, strange))
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run(tasks, batch_size=2)
    # Strange texts for their prototype, all of them before their options, and all of them to be recorded.
    assert read == [1, 2, 2]
