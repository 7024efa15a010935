"""Evaluations under a recorder: answers, scores, and what is recorded of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hooks import Recorder
from hooks.encoding import encoded_prompts
from hooks.evaluation import Evaluation, Progress
from hooks.options import option_scores
from routing import Prompt, Task, TaskError, TaskSet, open_trace, verify_trace
from tests.tiny import PAD, byte_tokenizer, tiny_model

OPTIONS = (" yes", " no", " it may well be", " n")


def _asked(n: int) -> Prompt:
    words = {"task": "choice", "task_type": "classification", "target": " no", "options": OPTIONS}
    return Prompt(id=f"choice-{n}", text="is it so " * n + "?", **words)


TASKS = TaskSet(
    tasks=(
        Task(name="choice", task_type="classification", metric="accuracy"),
        Task(name="span", task_type="extractive", metric="token_f1", max_new_tokens=5),
        Task(name="text", metric="none", max_new_tokens=0),
    ),
    prompts=(
        *(_asked(n) for n in range(1, 5)),
        *(
            Prompt(id=f"span-{n}", text="where " * n, task="span", task_type="extractive", target=" it")
            for n in (1, 2, 3)
        ),
        Prompt(id="text-1", text="only read, 東京 <b>\x07</b>", task="text"),
    ),
)


def evaluated(out: Path, family: str = "olmoe", tasks: TaskSet = TASKS, **options: object) -> Evaluation:
    with Recorder(tiny_model(family), byte_tokenizer(), out=out) as recorder:
        return recorder.run(tasks, **options)


@pytest.mark.parametrize("family", ["olmoe", "deepseek_v3", "gpt_oss", "switch"])
def test_predictions_and_scores_stand_beside_the_routing(family: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = evaluated(tmp_path / "trace", family, batch_size=3, progress=seen.append)
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert trace.task_types == {"choice": "classification", "span": "extractive", "text": "other"}
    prompts = trace.prompts.set_index("prompt")
    assert prompts.index.tolist() == [prompt.id for prompt in TASKS]
    chosen = prompts.loc[prompts["task"] == "choice"]
    assert set(chosen["prediction"]) <= set(OPTIONS)
    assert (chosen["score"] == (chosen["prediction"] == " no")).all()
    assert prompts.loc[prompts["task"] == "span", "score"].between(0, 1).all()
    assert np.isnan(prompts.loc["text-1", "score"])
    assert prompts.loc["text-1", "text"] == "only read, 東京 <b>\x07</b>"
    assert set(trace.tokens["prompt"]) == set(range(len(TASKS)))
    assert result.scores().loc["choice", "score"] == pytest.approx(chosen["score"].mean())
    assert (seen[-1].n_prompts, seen[-1].n_prompts_total) == (8, 8)
    assert seen[-1].n_tokens >= trace.n_tokens


def test_a_chosen_option_is_recorded_as_if_written(tmp_path: Path) -> None:
    evaluated(tmp_path / "trace")
    trace = open_trace(tmp_path / "trace")
    tokenizer = byte_tokenizer()
    for number, row in trace.prompts[trace.prompts["task"] == "choice"].iterrows():
        tokens = trace.tokens[trace.tokens["prompt"] == number].sort_values("position")
        read, written = (tokens.loc[tokens["phase"] == phase, "token_id"].tolist() for phase in ("prompt", "generated"))
        assert tokenizer.decode(read) == row["text"]
        assert tokenizer.decode(written) == row["prediction"]


def test_the_size_of_batches_changes_nothing(tmp_path: Path) -> None:
    results = {size: evaluated(tmp_path / str(size), batch_size=size) for size in (1, 5)}
    one, other = (results[size].table for size in (1, 5))
    assert one["prediction"].tolist() == other["prediction"].tolist()
    traces = [open_trace(tmp_path / str(size)) for size in (1, 5)]
    keys = ["prompt", "position"]
    orders = [trace.tokens.sort_values(keys).index for trace in traces]
    left, right = (
        trace.experts.values[order][:, :, : trace.top_k] for trace, order in zip(traces, orders, strict=True)
    )
    np.testing.assert_array_equal(left, right)
    a, b = (
        trace.tokens.loc[order, [*keys, "token_id"]].to_numpy() for trace, order in zip(traces, orders, strict=True)
    )
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("norm", ["sum", "tokens", "bytes"])
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss", "switch"])
def test_options_are_scored_by_the_likelihood_of_the_whole_text(family: str, norm: str) -> None:
    model, tokenizer = tiny_model(family), byte_tokenizer()
    prompts = [replace(prompt, options=OPTIONS[: 2 + n]) for n, prompt in enumerate(TASKS.prompts[:3])]
    batch = encoded_prompts(prompts, tokenizer=tokenizer, limit=None, n_new_tokens=[0] * 3, too_long="error")
    found = option_scores(model, batch, pad_id=PAD, device=torch.device("cpu"), norm=norm, n_rows=4)
    for each, scores in zip(batch, found, strict=True):
        for option, score in zip(each.options, scores, strict=True):
            # Slow and obvious: one forward for each option, log-likelihoods of its own tokens.
            with torch.no_grad():
                if family == "switch":
                    logits = model(
                        torch.tensor([each.ids]), decoder_input_ids=torch.tensor([[PAD, *option[:-1]]])
                    ).logits[0]
                else:
                    logits = model(torch.tensor([[*each.ids, *option]])).logits[0, len(each.ids) - 1 : -1]
            expected = float(logits.log_softmax(-1).gather(1, torch.tensor(option)[:, None]).sum())
            assert score == pytest.approx(expected / (1 if norm == "sum" else len(option)), abs=2e-3)


def test_prompts_without_a_task_are_read(tmp_path: Path) -> None:
    prompts = [Prompt(id="a", text="abc"), Prompt(id="b", text="defgh")]
    result = evaluated(tmp_path / "trace", tasks=prompts)
    trace = open_trace(tmp_path / "trace")
    assert trace.n_tokens == 8
    assert (trace.tokens["phase"] == "prompt").all()
    assert result.table["prediction"].tolist() == ["", ""]
    assert trace.tokens["nll"].notna().sum() == 6


def test_generation_can_be_asked_for(tmp_path: Path) -> None:
    evaluated(tmp_path / "trace", tasks=[Prompt(id="a", text="abc")], max_new_tokens=4)
    assert (open_trace(tmp_path / "trace").tokens["phase"] == "generated").sum() <= 3


def test_a_prompt_longer_than_the_context_is_an_error_unless_it_may_be_cut(tmp_path: Path) -> None:
    long = TaskSet(tasks=(TASKS.tasks[0],), prompts=(replace(TASKS.prompts[0], text="x" * 120), TASKS.prompts[1]))
    with pytest.raises(
        TaskError,
        match=r"1 of 2 prompts do not fit the model's context of 96 tokens; the longest, 'choice-1', takes 135",
    ):
        evaluated(tmp_path / "error", tasks=long)
    assert not (tmp_path / "error").exists()
    result = evaluated(tmp_path / "cut", tasks=long, too_long="truncate")
    assert result.n_truncated == 1
    trace = open_trace(tmp_path / "cut")
    assert "beginning of 1 prompts was cut off" in trace.provenance.note
    assert trace.tokens.groupby("prompt").size().max() <= 96


@pytest.mark.parametrize("tasks", [[], TaskSet(tasks=(), prompts=())])
def test_an_empty_task_is_an_error(tasks: object, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no prompts"):
        evaluated(tmp_path / "trace", tasks=tasks)


def test_a_prompt_without_tokens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="'empty' has no tokens"):
        evaluated(tmp_path / "trace", tasks=[Prompt(id="empty", text="")])


def test_the_mode_of_the_model_is_given_back(tmp_path: Path) -> None:
    model = tiny_model().train()
    with Recorder(model, byte_tokenizer(), out=tmp_path / "trace") as recorder:
        recorder.run([Prompt(id="a", text="abc")])
    assert model.training


def test_an_interrupt_leaves_the_answers_so_far(tmp_path: Path) -> None:
    def stop(done: Progress) -> None:
        if done.n_prompts >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "trace", batch_size=1, progress=stop)
    trace = open_trace(tmp_path / "trace")
    assert not trace.provenance.complete
    assert (trace.prompts["prediction"].notna() & (trace.prompts["prediction"] != "")).sum() == 3
    assert len(trace.prompts) == len(TASKS)
