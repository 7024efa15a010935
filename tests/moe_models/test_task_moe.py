"""Task-level MoE against a slow, literal version of its equations."""

import pytest
import torch
from transformers import BartForConditionalGeneration

from moe_models.task_moe import TaskMoeConfig, TaskMoeForConditionalGeneration, experts_from, gumbel_weights

TASKS = ["squad", "sst2", "capitals"]
SIZES = {"vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
SIZES |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}
SIZES |= {"dropout": 0.0, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}


def task_moe(**changes):
    torch.manual_seed(0)
    options = (
        SIZES | {"tasks": TASKS, "task_embedding_dim": 8, "router_hidden_dim": 6, "selection": "softmax"} | changes
    )
    model = TaskMoeForConditionalGeneration(TaskMoeConfig(**options)).eval()
    for name, parameter in model.named_parameters():  # a spread router, and experts that differ
        if "router" in name or "blocks" in name:
            torch.nn.init.normal_(parameter, std=0.5 if "router" in name else 0.2)
    return model


def inputs(n=3):
    torch.manual_seed(1)
    ids = torch.randint(3, 40, (n, 6))
    return {"input_ids": ids, "decoder_input_ids": ids[:, :4]}


def test_a_route_is_the_softmax_of_two_linear_layers_per_layer():
    model = task_moe(temperature=0.7)
    routes = model.routes()
    assert routes.shape == (4, 3, 3)
    for layer, unit in enumerate(model.router.units):
        hidden = torch.nn.functional.gelu(unit.linear1.weight @ model.task_embedding.weight[1] + unit.linear1.bias)
        want = torch.softmax((unit.linear2.weight @ hidden + unit.linear2.bias) / 0.7, dim=0)
        torch.testing.assert_close(routes[layer, 1], want)


def test_a_routed_layer_is_the_weighted_sum_of_its_blocks_for_each_example():
    model = task_moe()
    layer, x = model.model.encoder.layers[1], torch.randn(2, 5, 16)
    routes = model.routes(torch.tensor([0, 2]))
    with model.routed(routes):
        got = layer(x, None)
    for i in range(2):
        want = sum(routes[1, i, j] * layer.blocks[j](x[i : i + 1], None)[0] for j in range(3))
        torch.testing.assert_close(got[i], want)


def test_the_whole_model_in_a_mixed_batch_equals_each_task_alone():
    model, told = task_moe(), inputs()
    together = model(**told, task_ids=torch.tensor([0, 1, 2])).logits
    for i in range(3):
        one = {name: value[i : i + 1] for name, value in told.items()}
        torch.testing.assert_close(model(**one, task_ids=torch.tensor([i])).logits[0], together[i])


def test_the_hard_route_runs_only_the_selected_block():
    model, ran = task_moe(selection="gumbel_hard"), []
    for number, block in enumerate(model.model.encoder.layers[0].blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    route = model(**inputs(1), task_ids=torch.tensor([1])).routes[0, 0]
    assert route.sum() == 1
    assert ran == [int(route.argmax())]


def test_straight_through_is_one_hot_forward_and_soft_backward():
    torch.manual_seed(4)
    logits = torch.randn(2, 3, 3, requires_grad=True)
    weights = gumbel_weights(logits, torch.tensor(0.5), hard=True)
    assert sorted(weights[0, 0].detach().round(decimals=5).tolist()) == [0, 0, 1]
    (weights * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert (logits.grad.abs() > 0).all()


def test_gumbel_choices_follow_the_softmax():
    torch.manual_seed(5)
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(20_000, 3)
    share = gumbel_weights(logits, torch.tensor(1.0), hard=True).mean(dim=0)
    torch.testing.assert_close(share, torch.softmax(logits[0], dim=0), atol=0.02, rtol=0)


def test_a_knocked_out_expert_has_no_weight_and_the_others_take_over():
    model = task_moe()
    before = model.routes()
    with model.knock_out([(2, 0)]):
        routes = model.routes()
        changed = model(**inputs(), task_ids=torch.tensor([0, 1, 2])).logits
    assert (routes[2, :, 0] == 0).all()
    torch.testing.assert_close(routes[2, :, 1:], before[2, :, 1:] / before[2, :, 1:].sum(dim=-1, keepdim=True))
    torch.testing.assert_close(routes[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.allclose(model(**inputs(), task_ids=torch.tensor([0, 1, 2])).logits, changed)
    torch.testing.assert_close(model.routes(), before)


def test_knocking_out_a_whole_layer_is_refused():
    with pytest.raises(ValueError, match="layers \\[1\\]"), task_moe().knock_out([(1, 0), (1, 1), (1, 2)]):
        pass


def test_unrouted_layers_are_ordinary_and_have_no_route():
    model = task_moe(encoder_unrouted_layers=[0], decoder_unrouted_layers=[1])
    assert [hasattr(layer, "blocks") for layer in model.model.encoder.layers] == [False, True]
    assert model.routes().shape == (2, 3, 3)
    backbone = BartForConditionalGeneration(model.config).eval()
    experts_from(model, backbone, noise_share=0.0, seed=0)
    told = inputs()
    got = model(**told, task_ids=torch.tensor([0, 1, 2])).logits
    torch.testing.assert_close(got, backbone(**told).logits)


def test_the_average_control_ignores_the_task():
    model = task_moe(selection="average")
    torch.testing.assert_close(model.routes(), torch.full((4, 3, 3), 1 / 3))
    with model.knock_out([(0, 1)]):
        torch.testing.assert_close(model.routes()[0, 0], torch.tensor([0.5, 0.0, 0.5]))


def test_experts_copied_from_a_backbone_behave_like_it_whatever_the_route():
    torch.manual_seed(6)
    model = task_moe()
    backbone = BartForConditionalGeneration(model.config).eval()
    experts_from(model, backbone, noise_share=0.0, seed=0)
    told = inputs()
    got = model(**told, task_ids=torch.tensor([0, 1, 2])).logits
    torch.testing.assert_close(got, backbone(**told).logits)
    experts_from(model, backbone, noise_share=0.01, seed=0)
    weights = [block.fc1.weight.detach() for block in model.model.encoder.layers[0].blocks]
    spread = float((weights[0] - weights[1]).std() / backbone.model.encoder.layers[0].fc1.weight.detach().std())
    assert spread == pytest.approx(0.01 * 2**0.5, rel=0.15)


def test_equal_experts_give_the_router_no_gradient_and_noisy_ones_do():
    torch.manual_seed(6)
    model = task_moe().train()
    backbone = BartForConditionalGeneration(model.config)
    gradient = {}
    for noise in (0.0, 0.01):
        experts_from(model, backbone, noise_share=noise, seed=0)
        model.zero_grad()
        ids = inputs()["input_ids"]
        model(input_ids=ids, labels=ids, task_ids=torch.tensor([0, 1, 2])).loss.backward()
        gradient[noise] = float(model.router.units[0].linear2.weight.grad.abs().sum())
    assert gradient[0.0] < 1e-4 * gradient[0.01]


def test_generation_follows_the_forward_and_beams_keep_their_route():
    model, told = task_moe(), {"input_ids": inputs()["input_ids"]}
    tasks = torch.tensor([0, 1, 2])
    made = model.generate(
        **told, task_ids=tasks, max_new_tokens=4, do_sample=False, eos_token_id=None, forced_eos_token_id=None
    )
    logits = model(**told, task_ids=tasks, decoder_input_ids=made[:, :-1]).logits
    assert (logits.argmax(dim=-1) == made[:, 1:]).all()
    assert len(model.generate(**told, task_ids=tasks, num_beams=2, max_new_tokens=3, do_sample=False)) == 3


def test_saving_keeps_tasks_and_temperature(tmp_path):
    model = task_moe()
    model.router.temperature.fill_(0.3)
    model.save_pretrained(tmp_path)
    again = TaskMoeForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert float(again.router.temperature) == pytest.approx(0.3)
    assert again.config.tasks == TASKS
    torch.testing.assert_close(again.routes(), model.routes())


def test_what_is_missing_is_said():
    with pytest.raises(RuntimeError, match="task_ids="):
        task_moe()(**inputs())
    with pytest.raises(ValueError, match="no row for the tasks \\['mnli'\\]"):
        task_moe().task_ids(["mnli"])
    with pytest.raises(ValueError, match="no selection 'best'"):
        task_moe(selection="best")
