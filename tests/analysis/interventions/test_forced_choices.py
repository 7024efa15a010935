"""Single decisions changed: exactly one, exactly so, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.interventions import forced_choice, runner_up_regret
from hooks import find_sites
from hooks.forced_choice import Barred, experts_barred
from hooks.proof import prove_sites
from routing import RecordingError, SelectionError
from tests.analysis.interventions.makers import bench_of, own_words
from tests.hooks.forwards import n_hooks, recorded
from tests.tiny import tiny_model
from tests.tiny_systems import tiny_system


@torch.no_grad()
@pytest.mark.parametrize("family", ["olmoe", "gpt_oss"])
def test_one_row_of_one_layer_chooses_otherwise(family: str) -> None:
    model = tiny_model(family)
    ids = torch.randint(2, 250, (2, 7), generator=torch.Generator().manual_seed(0))
    sites = prove_sites(model, find_sites(model), lambda: model(ids))
    before, hooks = recorded(model, sites, lambda: model(ids)), n_hooks(model)
    row, layer = 9, 1
    reading = before[layer][0]
    worst = int(reading.ids[row][reading.weights[row].argmin()])
    with experts_barred(model, sites, [Barred(layer=sites[layer].facts.label, row=row, expert=worst)]):
        after = recorded(model, sites, lambda: model(ids))
    assert n_hooks(model) == hooks
    for number in range(len(sites)):
        same = (before[number][0].ids.sort(-1).values == after[number][0].ids.sort(-1).values).all(-1)
        if number == layer:
            assert same.nonzero().flatten().tolist() == [each for each in range(14) if each != row]
    changed = set(after[layer][0].ids[row].tolist()) - set(reading.ids[row].tolist())
    scores = sites[layer].selection_scores(reading.logits)[row].scatter(0, reading.ids[row], -torch.inf)
    assert changed == {int(scores.argmax())}


def test_the_runner_up_comes_in_with_its_own_weight() -> None:
    model = tiny_model("olmoe", num_hidden_layers=1, norm_topk_prob=True)
    tasks = own_words(model, {"a": "x"}, n_prompts=1)
    bench = bench_of(model, tasks)
    (text,) = bench.texts()
    found = forced_choice(bench, prompt="a-0", layer="L00", position=3)
    # The literal version: the last layer's experts, with the runner-up's renormalized share.
    seen: dict[str, torch.Tensor] = {}
    block = model.model.layers[0].mlp
    handle = block.register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0].clone()))
    with torch.no_grad():
        model(torch.tensor([text.ids]))
        handle.remove()
        hidden = seen["hidden"][0]
        shares = torch.nn.functional.linear(hidden, block.gate.weight).softmax(-1)
        first, last, next_best = shares[3].argsort(descending=True)[:3].tolist()
        pair = torch.tensor([[first, next_best]])
        weights = shares[3][pair] / shares[3][pair].sum()
        instead = block.experts(hidden[3:4], pair, weights)[0]
        handle = block.register_forward_hook(
            lambda _, args, output: torch.cat([output[:, :3], instead[None, None], output[:, 4:]], dim=1)
        )
        literal = model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
        handle.remove()
        plain = model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
    assert (found.taken_out, found.put_in) == (last, next_best)
    assert found.nll_before == pytest.approx(-float(plain[3, text.ids[4]]), rel=1e-4)
    assert found.nll_after == pytest.approx(-float(literal[3, text.ids[4]]), rel=1e-4)
    expected = float((plain[3].exp() * (plain[3] - literal[3])).sum())
    assert found.divergence == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found.likeliest["before"].max() == pytest.approx(float(plain[3].max().exp()), rel=1e-4)


def test_an_expert_is_forced_by_keeping_out_those_before_it() -> None:
    model = tiny_model("olmoe")
    bench = bench_of(model, own_words(model, {"a": "x"}, n_prompts=1))
    found = [forced_choice(bench, prompt="a-0", layer="L01", position=2, expert=None)]
    others = set(range(8)) - {found[0].taken_out, found[0].put_in}
    forced = []
    for expert in sorted(others):
        try:
            forced.append(forced_choice(bench, prompt="a-0", layer="L01", position=2, expert=expert))
        except SelectionError as error:
            assert "is selected there already" in str(error)  # noqa: PT017
    assert len(forced) == 5
    assert all(each.put_in not in (each.taken_out, found[0].put_in) for each in forced)


def test_regret_over_a_sample(tmp_path: Path) -> None:
    model = tiny_model("olmoe")
    bench = bench_of(model, own_words(model, {"a": "x", "b": "y"}, n_prompts=3))
    seen: list[int] = []
    found = runner_up_regret(
        bench, beside=tmp_path, n_choices_a_text=6, progress=lambda done: seen.append(done.n_total)
    )
    assert len(found.choices) == 6 * 6
    assert (found.choices["margin"] >= 0).all()
    assert (found.choices["divergence"] >= -1e-6).all()
    assert found.layers["n_choices"].sum() == 36
    one = found.choices.iloc[7]
    alone = forced_choice(bench, prompt=one["prompt"], layer=one["layer"], position=int(one["position"]))
    assert (alone.taken_out, alone.put_in) == (one["taken_out"], one["put_in"])
    assert alone.nll_after - alone.nll_before == pytest.approx(one["nll_change"], abs=1e-4)
    again = runner_up_regret(bench, beside=tmp_path, n_choices_a_text=6)
    np.testing.assert_array_equal(again.choices["nll_change"], found.choices["nll_change"])


def test_experts_that_are_all_alike_leave_nothing_to_regret(tmp_path: Path) -> None:
    model = tiny_model("olmoe", norm_topk_prob=True)
    with torch.no_grad():
        for layer in model.model.layers:
            for parameter in layer.mlp.experts.parameters():
                parameter.copy_(parameter[:1].expand_as(parameter))
    bench = bench_of(model, own_words(model, {"a": "x"}, n_prompts=2))
    found = runner_up_regret(bench, beside=tmp_path)
    assert found.choices["nll_change"].abs().max() < 1e-4
    assert found.choices["divergence"].abs().max() < 1e-4


def test_what_cannot_be_changed_is_refused(tmp_path: Path) -> None:
    model = tiny_system("task_moe")
    bench = bench_of(model, own_words(model, {"choice": "x"}, n_prompts=1))
    with pytest.raises(RecordingError, match="decides once for a whole text"):
        runner_up_regret(bench, beside=tmp_path)
    bench = bench_of(tiny_model("olmoe"), own_words(tiny_model("olmoe"), {"a": "x"}, n_prompts=1))
    with pytest.raises(SelectionError, match="no router 'L07'"):
        runner_up_regret(bench, beside=tmp_path, layers=["L07"])
    with pytest.raises(SelectionError, match="no position 99"):
        forced_choice(bench, prompt="a-0", layer="L00", position=99)
