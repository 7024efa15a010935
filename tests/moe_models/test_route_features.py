import numpy as np
import pytest
import torch

from moe_models.recipes.corpus import Row
from moe_models.recipes.dissociation import dissociation, matched_sets, strongest_experts
from moe_models.recipes.examples import IGNORED, Examples
from moe_models.recipes.route_features import correlations, feature_table, permutation_test, untrained_correlations
from moe_models.recipes.routes import sharpness
from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration

TYPES = ["extractive"] * 6 + ["classification"] * 6 + ["knowledge"] * 6


def planted_routes(seed=0, strength=4.0):
    """18 tasks, 3 layers of 3 experts; extractive tasks go to expert 2 of layer 1, the rest at random."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(18, 3, 3))
    logits[:6, 1, 2] += strength
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)


def test_correlations_are_pearsons_over_tasks():
    routes, features = planted_routes(), feature_table(TYPES)
    found = correlations(routes, features)
    assert found.shape == (3, 3, 3)
    want = np.corrcoef(features[1], routes[:, 2, 0])[0, 1]
    assert found[1, 2, 0] == pytest.approx(want)
    level = np.full((18, 1, 2), 0.5)
    assert (correlations(level, features) == 0).all()


def test_the_permutation_test_finds_what_is_planted_and_nothing_else():
    told = permutation_test(planted_routes(), feature_table(TYPES), n_permutations=500, seed=0)
    assert (told[0]["layer"], told[0]["expert"]) == (1, 2)
    assert told[0]["p_value"] < 0.01
    assert told[0]["r"] > told[0]["null_95"]
    null = [
        permutation_test(planted_routes(seed, 0.0), feature_table(TYPES), n_permutations=99, seed=seed)
        for seed in range(20)
    ]
    p_values = np.array([its["p_value"] for one in null for its in one])
    assert 0.3 < p_values.mean() < 0.7
    assert p_values.min() >= 0.01


def test_untrained_routers_give_chance():
    drawn = untrained_correlations(
        feature_table(TYPES), n_layers=3, n_experts=3, embedding=16, hidden=8, n_draws=10, seed=0
    )
    assert drawn.shape == (10, 3)
    assert 0.2 < drawn.mean() < 0.7
    again = untrained_correlations(
        feature_table(TYPES), n_layers=3, n_experts=3, embedding=16, hidden=8, n_draws=10, seed=0
    )
    assert np.array_equal(drawn, again)


def test_sharpness_by_hand():
    # Two tasks, each sure of its own expert: own entropy 0, shared ln 2.
    told = sharpness(np.eye(2)[:, None])
    assert told == {"entropy": 0.0, "mean_route_entropy": 0.6931, "specialization": 0.6931}
    assert sharpness(np.full((2, 1, 2), 0.5))["specialization"] == 0.0


def test_the_strongest_experts_leave_one_in_each_layer():
    table = np.array([[0.9, 0.8, 0.7], [0.1, -0.2, -0.3]])
    assert strongest_experts(table, n=3) == [(0, 0), (0, 1), (1, 0)]
    assert strongest_experts(-np.abs(table), n=3) == []


def test_matched_sets_have_the_same_layers_and_counts_or_the_same_stack():
    chosen = [(0, 0), (2, 1), (3, 2)]
    sets, matched = matched_sets(chosen, n_layers=4, n_encoder_layers=2, n_experts=3, n=20, seed=0)
    assert matched == "layer and count"
    assert len({tuple(one) for one in sets}) == 20
    assert chosen not in sets
    assert all([layer for layer, _ in one] == [0, 2, 3] for one in sets)
    # One layer has two more sets only: layers of the same stack are taken in.
    sets, matched = matched_sets([(0, 0)], n_layers=4, n_encoder_layers=2, n_experts=3, n=20, seed=0)
    assert matched == "stack and count"
    assert sorted(sets) == [[(0, 1)], [(0, 2)], [(1, 0)], [(1, 1)], [(1, 2)]]


@pytest.fixture
def planted_model():
    """Tasks 0 and 1 run through expert 0 of the decoder's layer, tasks 2 and 3 through expert 1; only expert 0 matters.

    Experts 1 and 2 are one and the same, so that tasks 2 and 3 lose nothing when theirs is gone.
    """
    torch.manual_seed(0)
    config = TaskMoeConfig(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16, dropout=0.0,
        tasks=["a", "b", "c", "d"], task_embedding_dim=4, router_hidden_dim=8, selection="softmax", temperature=1.0,
        pad_token_id=1, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    model = TaskMoeForConditionalGeneration(config).eval()
    with torch.no_grad():
        unit = model.router.units[1]
        for parameter in unit.parameters():
            parameter.zero_()
        model.task_embedding.weight.copy_(torch.eye(4))
        unit.linear1.weight[:4] = 5 * torch.eye(4)
        unit.linear2.weight[0, :2] = 4.0
        unit.linear2.weight[1, 2:4] = 4.0
        blocks = model.model.decoder.layers[0].blocks
        for parameter in blocks[0].parameters():
            parameter.normal_(std=0.6)
        blocks[2].load_state_dict(blocks[1].state_dict())
    return model


def examples_written_by(model):
    """Examples whose targets are what the model itself writes: without it they are worse."""
    torch.manual_seed(1)
    source = torch.randint(2, 30, (16, 6))
    task = torch.arange(16) % 4
    with torch.no_grad():
        start = torch.zeros(16, 1, dtype=torch.long)
        first = model(input_ids=source, task_ids=task, decoder_input_ids=start).logits[:, -1].argmax(-1, keepdim=True)
    labels = torch.cat([first, torch.full((16, 1), IGNORED)], dim=1)
    return Examples(
        rows=tuple(Row(task=model.config.tasks[number], input="", output="") for number in task.tolist()),
        tasks=tuple(model.config.tasks),
        source=source.int(),
        source_length=torch.full((16,), 6),
        labels=labels.int(),
        task=task,
    )


def test_knocking_out_a_planted_expert_hurts_its_tasks_alone(planted_model):
    model = planted_model
    has_it = np.array([True, True, False, False])
    correlation = np.zeros((2, 3))
    correlation[1, 0] = 0.9
    told = dissociation(
        model,
        examples_written_by(model),
        correlation,
        has_it,
        n_experts_out=1,
        n_random=2,
        seed=0,
        others={"other": ~has_it},
    )
    assert told["experts"] == [[1, 0]]
    assert told["nll"]["with"] > 0.05
    assert abs(told["nll"]["without"]) < 0.02
    assert told["nll"]["specificity"] > max(told["nll"]["random"])
    assert told["nll"]["p_value"] == pytest.approx(1 / 3)
    assert told["by_feature"]["other"] == pytest.approx(told["nll"]["without"])
