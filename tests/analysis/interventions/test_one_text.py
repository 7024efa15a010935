"""A text that is read alone: as a recording would have it, and with one decision changed exactly so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.interventions import Change, OneText
from analysis.passages import token_churn
from hooks import Recorder
from routing import RecordingError, RoutingTrace, SelectionError, TaskError, open_trace, read_tasks
from tests.tiny import byte_tokenizer, tiny_model
from tests.tiny_systems import tiny_system

TEXT = "the shop opens at nine 🙂"


def reader(model: Any) -> OneText:
    return OneText(model, byte_tokenizer(), name="tiny")


def same_rows(one: RoutingTrace, other: RoutingTrace) -> None:
    for name in ("experts", "scores", "weights", "logits"):
        np.testing.assert_array_equal(getattr(one, name).values, getattr(other, name).values)
    for column in ("token_id", "position", "nll"):
        np.testing.assert_array_equal(one.tokens[column].to_numpy(), other.tokens[column].to_numpy())
    assert list(one.tokens["phase"]) == list(other.tokens["phase"])


@pytest.mark.parametrize("text", [TEXT, "مرحبا بالعالم", "<script>$x$</script>\n\t"])
def test_the_routing_is_what_a_recording_of_the_same_text_writes(tmp_path: Path, text: str) -> None:
    model = tiny_model("olmoe")
    read = reader(model).read(text, out=tmp_path / "one")
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": text}) + "\n", "utf-8")
    with Recorder(model, byte_tokenizer(), out=tmp_path / "run") as recorder:
        recorder.run(read_tasks([str(tmp_path / "texts.jsonl")]), max_new_tokens=0)
    recorded = open_trace(tmp_path / "run")
    same_rows(read.trace, recorded)
    assert read.trace.layer_facts == recorded.layer_facts


def test_the_likeliest_next_tokens_are_the_models_own(tmp_path: Path) -> None:
    model = tiny_model("olmoe")
    read = reader(model).read(TEXT, out=tmp_path / "one")
    ids = torch.tensor([byte_tokenizer()(TEXT)["input_ids"]])
    with torch.no_grad():
        likely = model(ids).logits[0].softmax(-1)
    at = read.likeliest[read.likeliest["position"] == 4]
    assert at["token_id"].tolist() == likely[4].topk(10).indices.tolist()
    np.testing.assert_allclose(at["probability"], likely[4].topk(10).values, rtol=1e-4)


@pytest.mark.parametrize(("family", "expert"), [("olmoe", None), ("olmoe", "third"), ("hypermoe", None)])
def test_a_forced_decision_equals_a_literal_rerun(tmp_path: Path, family: str, expert: str | None) -> None:
    """The literal version routes the one token by hand in the one layer, and lets the model go on from there."""
    model = tiny_system("hypermoe") if family == "hypermoe" else tiny_model(family)
    ids = byte_tokenizer()(TEXT)["input_ids"]
    layer, position = 1, 5
    block = model.model.layers[layer].mlp
    fed = torch.tensor([ids])
    seen: dict[str, torch.Tensor] = {}
    handle = block.register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0].clone()))
    with torch.no_grad():
        plain = model(fed).logits[0].log_softmax(-1)
        handle.remove()
        shares = torch.nn.functional.linear(seen["hidden"][0], block.gate.weight).softmax(-1)[position]
        first, last, *others = shares.argsort(descending=True).tolist()
        comes = others[1] if expert else others[0]
        # Whoever is kept out has no share, as if it were not there: the softmax is over the others.
        out = [last, *others[: others.index(comes)]]
        shares = shares.index_fill(0, torch.tensor(out), 0.0)
        shares = shares / shares.sum()
        # The router's own forward, with the rows' choices and weights put in by hand.
        router, forward = block.gate, block.gate.forward

        def by_hand(*args: Any, **kwargs: Any) -> Any:
            logits, weights, chosen = forward(*args, **kwargs)
            pair = shares[[first, comes]]
            if model.config.norm_topk_prob:
                pair = pair / pair.sum()
            weights, chosen = weights.clone(), chosen.clone()
            weights[position], chosen[position] = pair, torch.tensor([first, comes])
            return logits, weights, chosen

        router.forward = by_hand
        try:
            literal = model(fed).logits[0].log_softmax(-1)
        finally:
            del router.forward
    kind = "expert" if expert else "runner_up"
    change = Change(kind=kind, layer=f"L{layer:02d}", position=position, expert=comes if expert else None)
    found = reader(model).changed(TEXT, change, out=tmp_path / "changed")
    assert (found.taken_out, found.put_in) == (last, comes)
    following = torch.tensor(ids[1:])[:, None]
    np.testing.assert_allclose(found.tokens["nll_before"][1:], -plain[:-1].gather(1, following)[:, 0], atol=2e-4)
    np.testing.assert_allclose(found.tokens["nll_after"][1:], -literal[:-1].gather(1, following)[:, 0], atol=2e-4)
    divergence = (plain.exp() * (plain - literal)).sum(-1)
    np.testing.assert_allclose(found.tokens["divergence"], divergence, atol=2e-4)
    assert float(divergence[position]) > 1e-3, "the change must be one that can be seen"
    assert (found.tokens["divergence"][:position].abs() < 1e-5).all(), "what was read before cannot change"
    at = found.likeliest[found.likeliest["position"] == position].set_index("token_id")
    np.testing.assert_allclose(at["after"], literal[position].exp()[torch.tensor(at.index.to_numpy())], atol=1e-4)


def test_the_change_is_the_first_thing_that_differs_in_the_routing(tmp_path: Path) -> None:
    one = reader(tiny_model("olmoe"))
    before = one.read(TEXT, out=tmp_path / "one").trace
    after = one.changed(TEXT, Change(kind="runner_up", layer="L01", position=5), out=tmp_path / "two").trace
    churn = token_churn(before, after, prompt="text")["churn"]
    assert not churn.sel(layer="L00").any()
    assert churn.sel(layer="L01").values.nonzero()[0].tolist() == [5]
    assert not churn.sel(layer="L02")[:5].any()


def test_beside_a_change_stands_what_the_runner_up_of_each_layer_would_have_done(tmp_path: Path) -> None:
    one = reader(tiny_model("olmoe"))
    changes = [Change(kind="runner_up", layer=f"L0{layer}", position=5) for layer in range(3)]
    found = [one.changed(TEXT, change, out=tmp_path / change.layer) for change in changes]
    table = found[0].runner_ups
    assert table is not None
    assert table["layer"].tolist() == ["L00", "L01", "L02"]
    for row, each in zip(table.to_dict("records"), found, strict=True):
        moved = (each.tokens["nll_after"] - each.tokens["nll_before"]).to_numpy()
        assert (row["taken_out"], row["put_in"]) == (each.taken_out, each.put_in)
        assert row["nll_change"] == pytest.approx(moved[6], abs=2e-5)
        assert row["later_change"] == pytest.approx(moved[7:].mean(), abs=2e-5)
        assert row["divergence"] == pytest.approx(each.tokens["divergence"][5], abs=2e-5)


def test_an_expert_that_is_knocked_out_is_chosen_by_no_token(tmp_path: Path) -> None:
    one = reader(tiny_model("olmoe"))
    before = one.read(TEXT, out=tmp_path / "one").trace
    expert = int(before.experts.values[3, 1, 0])
    found = one.changed(TEXT, Change(kind="knock_out", layer="L01", expert=expert), out=tmp_path / "two")
    chosen = found.trace.experts.values[:, 1, : found.trace.top_k]
    assert not (chosen == expert).any()
    assert (found.taken_out, found.put_in) == (expert, None)
    assert found.tokens["nll_after"].notna().sum() == len(found.tokens) - 1


def test_after_a_change_the_model_is_what_it_was(tmp_path: Path) -> None:
    one = reader(tiny_model("olmoe"))
    before = one.read(TEXT, out=tmp_path / "one").trace
    one.changed(TEXT, Change(kind="runner_up", layer="L01", position=5), out=tmp_path / "two")
    same_rows(one.read(TEXT, out=tmp_path / "three").trace, before)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (Change(kind="runner_up", layer="L77", position=0), RecordingError, "no router 'L77'"),
        (Change(kind="runner_up", layer="L01", position=99), SelectionError, "no position 99"),
        (Change(kind="expert", layer="L01", position=0, expert=99), SelectionError, "cannot be selected there"),
        (Change(kind="knock_out", layer="L01", expert=99), RecordingError, "experts 0 to 7"),
        (Change(kind="knock_out", layer="L01"), SelectionError, "No expert is named"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, change: Change, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        reader(tiny_model("olmoe")).changed(TEXT, change, out=tmp_path / "one")


def test_a_text_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    one = reader(tiny_model("olmoe"))
    with pytest.raises(TaskError, match="no tokens"):
        one.read("", out=tmp_path / "one")
    with pytest.raises(TaskError, match="200 tokens, and at most 96"):
        one.read("a" * 200, out=tmp_path / "one")


def test_a_router_that_decides_once_a_task_is_read_under_the_task_that_is_named(tmp_path: Path) -> None:
    one = reader(tiny_system("task_moe"))
    routes = [one.read(TEXT, task=task, out=tmp_path / task).trace for task in ("choice", "span")]
    assert [trace.unit for trace in routes] == ["prompt", "prompt"]
    assert len(routes[0].prompts) == 1
    with pytest.raises(RecordingError, match="decides once for a whole text"):
        one.changed(TEXT, Change(kind="runner_up", layer="enc00", position=0), out=tmp_path / "changed")


def test_a_model_with_two_stacks_is_read_and_says_that_single_decisions_stay(tmp_path: Path) -> None:
    one = reader(tiny_model("switch"))
    read = one.read(TEXT, out=tmp_path / "one")
    assert set(read.trace.tokens["stack"]) == {"encoder", "decoder"}
    assert set(read.likeliest["position"]) == {0}
    with pytest.raises(RecordingError, match="has two"):
        one.changed(TEXT, Change(kind="runner_up", layer="enc01", position=0), out=tmp_path / "two")
