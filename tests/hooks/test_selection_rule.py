"""Rules are learned from choices: the right one is found, and none is made up."""

from __future__ import annotations

import pytest
import torch

from hooks.selection_rule import ACTIVATIONS, Grouping, SelectionRule, learn_selection_rule, learn_weight_rule

LOGITS = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
BIAS = torch.tensor([0.1, -0.3, 0.4, -0.1, 0.2, 0.0, -0.2, 0.3])
GROUPS = Grouping(n_groups=2, top_groups=1)


def choose(scores: torch.Tensor, k: int = 2) -> torch.Tensor:
    return scores.topk(k, dim=-1, sorted=False).indices


def test_scores_by_hand() -> None:
    # sigmoid(0) = 0.5 for all; the bias makes expert 3 first, and group {0, 1} loses with 0.5 + 0.6 to 0.7 + 0.9.
    rule = SelectionRule("sigmoid", torch.tensor([0.0, 0.1, 0.2, 0.4]), Grouping(n_groups=2, top_groups=1))
    scores = rule.scores(torch.zeros(1, 4))
    assert scores.tolist() == [[float("-inf"), float("-inf"), pytest.approx(0.7), pytest.approx(0.9)]]


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "sqrt_softplus", "logits"])
@pytest.mark.parametrize("grouping", [None, GROUPS, Grouping(2, 1, group_score=1)])
def test_the_rule_that_chose_is_found(name: str, grouping: Grouping | None) -> None:
    ids = choose(SelectionRule(name, BIAS, grouping).scores(LOGITS))
    candidates = [GROUPS, Grouping(2, 1, group_score=1)]
    rule = learn_selection_rule(LOGITS, ids, biases=[torch.zeros(8), BIAS], groupings=candidates)
    assert rule is not None
    assert (rule.score_function, rule.grouping) == (name, grouping)
    assert rule.bias is BIAS


def test_no_rule_is_made_up_for_choices_that_follow_none() -> None:
    table = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(row))[:2] for row in range(200)])
    assert learn_selection_rule(LOGITS, table, biases=[BIAS], groupings=[GROUPS]) is None


def test_a_bias_that_the_router_ignores_is_not_believed() -> None:
    rule = learn_selection_rule(LOGITS, choose(LOGITS), biases=[BIAS], groupings=[GROUPS])
    assert rule is not None
    assert (rule.bias, rule.grouping) == (None, None)


def test_ties_of_half_precision_do_not_hide_the_rule() -> None:
    logits = LOGITS.to(torch.bfloat16)
    ids = choose(logits.sigmoid() + BIAS.to(torch.bfloat16))
    rule = learn_selection_rule(logits, ids, biases=[BIAS], groupings=[])
    assert rule is not None
    assert rule.score_function == "sigmoid"


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sqrt_softplus"])
@pytest.mark.parametrize(("normalized", "scale"), [(False, 1.0), (True, 1.0), (True, 2.5), (False, 0.125)])
def test_weights_tell_activation_normalization_and_scale(name: str, normalized: bool, scale: float) -> None:
    ids = choose(LOGITS)
    weights = ACTIVATIONS[name](LOGITS).gather(-1, ids)
    weights = weights / weights.sum(-1, keepdim=True) if normalized else weights
    rule = learn_weight_rule(LOGITS, ids, weights * scale)
    assert rule is not None
    assert (rule.score_function, rule.normalized, rule.scale) == (name, normalized, scale)


def test_a_softmax_over_the_chosen_alone_is_a_normalized_softmax() -> None:
    ids = choose(LOGITS)
    rule = learn_weight_rule(LOGITS, ids, LOGITS.gather(-1, ids).softmax(-1))
    assert rule is not None
    assert (rule.score_function, rule.normalized, rule.scale) == ("softmax", True, 1.0)


def test_a_factor_for_each_expert_has_no_scale() -> None:
    ids = choose(LOGITS)
    rule = learn_weight_rule(LOGITS, ids, LOGITS.sigmoid().gather(-1, ids) * torch.linspace(1, 2, 8)[ids])
    assert rule is not None
    assert (rule.score_function, rule.normalized, rule.scale) == ("sigmoid", False, None)


def test_weights_of_no_rule_have_none() -> None:
    weights = torch.rand(200, 2, generator=torch.Generator().manual_seed(3))
    assert learn_weight_rule(LOGITS, choose(LOGITS), weights) is None


def test_an_excluded_group_may_win_with_a_zero_where_the_library_compares_it() -> None:
    """A mask of 0 instead of -inf lets an unselected group's expert beat a negative score of the selected one."""
    bias = torch.tensor([-2.0, 0.3, -2.0, -2.0, -2.0, -2.0, -2.0, -2.0])
    masked = Grouping(2, 1, excluded_score=0.0)
    ids = choose(SelectionRule("sigmoid", bias, masked).scores(LOGITS))
    rule = learn_selection_rule(LOGITS, ids, biases=[bias], groupings=[GROUPS, masked])
    assert rule is not None
    assert rule.grouping == masked
