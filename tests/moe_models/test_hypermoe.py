"""HyperMoE against a slow, literal version of its equations."""

import itertools

import pytest
import torch

from moe_models.hypermoe import (
    HyperExpert,
    HyperMoeConfig,
    HyperMoeForCausalLM,
    HyperMoeSwitchConfig,
    HyperMoeSwitchForConditionalGeneration,
    overridden_selection,
)

SMALL = {"vocab_size": 48, "num_experts": 5, "adapter_dim": 4, "expert_embedding_dim": 6, "process_dim": 7}
SMALL |= {
    "hypernetwork_input_dim": 8,
    "layer_embedding_dim": 3,
    "hypernetwork_bottleneck": 9,
    "pad_token_id": 0,
}


def decoder(conditioning="unselected", **changes):
    torch.manual_seed(0)
    config = HyperMoeConfig(
        **SMALL | {"num_experts_per_tok": 2} | changes, conditioning=conditioning, hidden_size=16, intermediate_size=8,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32, eos_token_id=1,
    )  # fmt: skip
    return waken(HyperMoeForCausalLM(config)).eval()


def switch(conditioning="unselected", **changes):
    torch.manual_seed(0)
    config = HyperMoeSwitchConfig(
        **SMALL | changes, conditioning=conditioning, d_model=16, d_kv=8, d_ff=12, num_layers=2, num_decoder_layers=2,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return waken(HyperMoeSwitchForConditionalGeneration(config)).eval()


def waken(model):
    """Generator heads start near zero; a test of what they do needs them to do something."""
    for name, parameter in model.named_parameters():
        if "hypernetwork" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def literal_hyper_expert(part: HyperExpert, x: torch.Tensor, selected: list[int]) -> torch.Tensor:
    """Equations (A) to (C), for one token."""
    table = part.selection.expert_embedding.weight
    s = sum((table[n] for n in range(len(table)) if n not in selected), torch.zeros(table.shape[1]))
    w1, w2 = part.selection.process[0], part.selection.process[2]
    q = w2.weight @ torch.relu(w1.weight @ s + w1.bias) + w2.bias
    network = part.hypernetwork
    c = torch.cat([q, network.layer_embedding.weight[part.layer]])
    g = torch.relu(network.trunk.weight @ c + network.trunk.bias)
    heads = network.heads
    down = (heads.down.weight @ g + heads.down.bias).reshape(heads.hidden, heads.width)
    up = (heads.up.weight @ g + heads.up.bias).reshape(heads.width, heads.hidden)
    bias_down = heads.bias_down.weight @ g + heads.bias_down.bias
    bias_up = heads.bias_up.weight @ g + heads.bias_up.bias
    return torch.relu(x @ down + bias_down) @ up + bias_up


def parts(model):
    return [module for module in model.modules() if isinstance(module, HyperExpert)]


def test_the_hyper_expert_is_its_equations_token_by_token():
    part = parts(decoder())[1]
    x, index = torch.randn(6, 16), torch.tensor([[0, 1], [1, 0], [2, 4], [4, 3], [0, 1], [3, 2]])
    want = torch.stack([literal_hyper_expert(part, x[t], index[t].tolist()) for t in range(6)])
    torch.testing.assert_close(part(x, index), want)


def test_the_order_of_the_selected_experts_does_not_matter_and_each_set_is_generated_once():
    part = parts(decoder())[0]
    sets, which = part.distinct_sets(torch.tensor([[3, 1], [1, 3], [0, 4]]))
    assert sorted(map(tuple, sets.tolist())) == [(0, 4), (1, 3)]
    assert which[0] == which[1] != which[2]


def test_masking_all_sets_adds_what_copying_each_token_its_adapter_adds():
    part = parts(decoder())[1]
    index = torch.stack([torch.randperm(5)[:2] for _ in range(40)])
    x = torch.randn(40, 16, requires_grad=True)
    masked = part(x, index)
    wanted = torch.autograd.grad(masked.square().sum(), [x, *part.hypernetwork.parameters()])
    del part.every_set[2]  # as with so many experts that sets are not listed
    copied = part(x, index)
    torch.testing.assert_close(masked, copied)
    got = torch.autograd.grad(copied.square().sum(), [x, *part.hypernetwork.parameters()])
    torch.testing.assert_close(wanted, got)


def test_the_hyper_expert_is_one_graph_whatever_sets_there_are():
    part = parts(decoder())[0]
    whole = torch.compile(part, fullgraph=True, dynamic=False, backend="eager")
    for index in (torch.tensor([[0, 1], [1, 0], [2, 4]]), torch.tensor([[3, 4], [3, 4], [4, 3]])):
        x = torch.randn(3, 16)
        torch.testing.assert_close(whole(x, index), part(x, index))


def test_experts_may_run_as_one_grouped_product():
    assert decoder().model.layers[0].mlp.experts.config._experts_implementation == "grouped_mm"


@pytest.mark.parametrize("conditioning", ["selected", "constant", "random"])
def test_what_the_controls_are_made_from(conditioning):
    """c3: nothing, so a layer has one adapter; c4: the selected experts; c5: a table that stays as drawn."""
    model = decoder(conditioning).train()
    part, sets = parts(model)[0], torch.tensor([[0, 3], [1, 2], [2, 4]])
    table = part.selection.expert_embedding.weight
    want = {
        "selected": torch.stack([table[0] + table[3], table[1] + table[2], table[2] + table[4]]),
        "constant": torch.zeros(3, 6),
        "random": torch.stack([table[[1, 2, 4]].sum(0), table[[0, 3, 4]].sum(0), table[[0, 1, 3]].sum(0)]),
    }[conditioning]
    torch.testing.assert_close(part.selection.raw(sets), want)
    flat = part.generate(sets).flat()
    assert torch.allclose(flat[0], flat[1], atol=1e-5) == (conditioning == "constant")
    # What tells layers apart in every control is the layer embedding.
    assert not torch.allclose(flat, parts(model)[1].generate(sets).flat())
    drawn, ids = table.detach().clone(), torch.randint(2, 48, (2, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert torch.equal(table, drawn) == (conditioning != "selected")


def test_one_more_expert_and_one_adapter_are_the_other_controls():
    """c1: top-(k+1) of the plain model; c2: one learned adapter a layer, whatever was selected."""
    more = decoder("none", num_experts_per_tok=3).model.layers[0].mlp
    x = torch.randn(1, 4, 16)
    _, weights, index = more.gate(x.view(4, 16))
    assert index.shape == (4, 3)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(4))
    assert more.hyper_expert is None
    adapter = decoder("adapter").model.layers[0].mlp.hyper_expert
    down, up = adapter.down, adapter.up
    want = torch.relu(x[0] @ down.weight.T + down.bias) @ up.weight.T + up.bias
    for selected in ([[0, 1]] * 4, [[2, 3]] * 4):
        torch.testing.assert_close(adapter(x[0], torch.tensor(selected)), want)


def test_a_sparse_block_adds_the_hyper_expert_without_a_weight():
    block = decoder().model.layers[0].mlp
    x = torch.randn(1, 5, 16)
    _, weights, index = block.gate(x.view(5, 16))
    want = block.experts(x.view(5, 16), index, weights) + block.hyper_expert(x.view(5, 16), index)
    torch.testing.assert_close(block(x), want.view_as(x))


def test_switch_scales_only_the_expert_by_the_probability():
    mlp = switch().encoder.block[1].layer[-1].mlp
    x = torch.randn(1, 4, 16)
    probabilities = torch.softmax(x[0] @ mlp.router.classifier.weight.T, dim=-1)
    want = torch.stack([
        probabilities[t].max() * mlp.experts[f"expert_{int(probabilities[t].argmax())}"](x[0, t])
        + literal_hyper_expert(mlp.hyper_expert, x[0, t], [int(probabilities[t].argmax())])
        for t in range(4)
    ])  # fmt: skip
    torch.testing.assert_close(mlp(x)[0], want)


def test_a_token_over_capacity_keeps_its_hyper_expert():
    mlp = switch(expert_capacity=1).encoder.block[1].layer[-1].mlp
    x = torch.randn(1, 1, 16).expand(1, 3, 16).contiguous()  # three equal tokens want the same expert
    expert = int((x[0, 0] @ mlp.router.classifier.weight.T).argmax())
    out = mlp(x)[0]
    only_hyper = literal_hyper_expert(mlp.hyper_expert, x[0, 1], [expert])
    torch.testing.assert_close(out[1], only_hyper)
    torch.testing.assert_close(out[2], only_hyper)
    assert not torch.allclose(out[0], only_hyper)


def test_a_token_over_capacity_may_pass_through_scaled():
    mlp = switch(expert_capacity=1, dropped_tokens="scaled_input").encoder.block[1].layer[-1].mlp
    x = torch.randn(1, 1, 16).expand(1, 2, 16).contiguous()
    probabilities = torch.softmax(x[0, 0] @ mlp.router.classifier.weight.T, dim=-1)
    hyper = literal_hyper_expert(mlp.hyper_expert, x[0, 1], [int(probabilities.argmax())])
    torch.testing.assert_close(mlp(x)[0, 1], probabilities.max() * x[0, 1] + hyper)
    with pytest.raises(ValueError, match="treated as 'lost'. Choose one of zero, scaled_input"):
        switch(dropped_tokens="lost")


def test_switch_learns_from_balance_and_z_loss_of_its_logits_before_capacity():
    model, seen = switch(expert_capacity=1), []
    router = model.encoder.block[1].layer[-1].mlp.router
    router.register_forward_hook(lambda _, args, output: seen.append(output[2]))
    ids = torch.randint(2, 48, (2, 6))
    out = model(input_ids=ids, labels=ids, output_router_logits=True)
    torch.testing.assert_close(out.encoder_z_loss, seen[0].logsumexp(dim=-1).square().mean())
    balance = [
        5 * (torch.bincount(text.argmax(dim=-1), minlength=5) / len(text) * text.softmax(dim=-1).mean(dim=0)).sum()
        for text in seen[0]
    ]
    torch.testing.assert_close(out.encoder_aux_loss, torch.stack(balance).mean())


def test_the_routers_jitter_is_of_training_alone_and_touches_nothing_but_the_router():
    mlp = switch(router_jitter_noise=0.5).encoder.block[1].layer[-1].mlp
    x = torch.randn(1, 4, 16)
    still, logits = mlp(x), mlp.router(x)[2]
    torch.testing.assert_close(mlp(x), still, rtol=0, atol=0)
    mlp.router.train()
    kept = x.clone()
    assert not torch.allclose(mlp.router(x)[2], logits)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)


def test_a_router_bias_has_its_part():
    mlp = switch(router_bias=True).encoder.block[1].layer[-1].mlp
    with torch.no_grad():
        mlp.router.classifier.bias.copy_(torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0]))
    mask, probability, _ = mlp.router(torch.randn(1, 3, 16))
    assert mask.argmax(dim=-1).tolist() == [[2, 2, 2]]
    torch.testing.assert_close(probability, torch.ones(1, 3, 1))


def test_at_top_1_selection_embeddings_and_selected_experts_are_one_to_one():
    # With k = 1 the embedding is (sum of all) - (the selected): N distinct ones a layer, whatever the data.
    part = parts(switch())[0]
    raw = part.selection.raw(torch.arange(5)[:, None])
    total = part.selection.expert_embedding.weight.sum(dim=0)
    torch.testing.assert_close(total - raw, part.selection.expert_embedding.weight)


def test_adapters_from_weights_alone_are_those_of_a_run():
    model = decoder()
    part, seen = parts(model)[0], []
    keep = part.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(torch.randint(2, 48, (2, 9)))
    keep.remove()
    sets, _ = part.distinct_sets(torch.cat(seen))
    every = torch.tensor(list(itertools.combinations(range(5), 2)))
    table = {tuple(s.tolist()): row for s, row in zip(every, part.generate(every).flat(), strict=True)}
    torch.testing.assert_close(part.generate(sets).flat(), torch.stack([table[tuple(s.tolist())] for s in sets]))


@pytest.mark.parametrize("make", [decoder, switch])
def test_training_starts_from_the_plain_model(make):
    torch.manual_seed(0)
    config = make().config
    fresh = type(make())(config).eval()
    inputs = {"input_ids": torch.randint(2, 48, (2, 6))}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with overridden_selection(fresh, "skip"):
        plain = fresh(**inputs).logits
    assert (fresh(**inputs).logits - plain).abs().max() < 0.05 * plain.abs().max()


@pytest.mark.parametrize("make", [decoder, switch])
def test_saving_and_loading_changes_nothing(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    ids = torch.randint(2, 48, (2, 6))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)
    assert again.generate(ids, max_new_tokens=3, do_sample=False).shape[0] == 2


@pytest.mark.parametrize("override", ["shifted", "mean", "zero", "skip"])
def test_an_overridden_selection_changes_the_output_and_leaves_again(override):
    model, ids = decoder(), torch.randint(2, 48, (1, 8))
    before = model(ids).logits
    with pytest.raises(KeyError), overridden_selection(model, override):
        assert not torch.allclose(model(ids).logits, before)
        raise KeyError
    torch.testing.assert_close(model(ids).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("conditioning", ["selected", "constant", "random", "adapter", "none"])
@pytest.mark.parametrize("make", [decoder, switch])
def test_the_controls_train(make, conditioning):
    model, ids = make(conditioning).train(), torch.randint(2, 48, (2, 6))
    model(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("hyper_expert" in name or "hypernetwork" in name for name in trained) == (conditioning != "none")
    assert not any("expert_embedding" in name for name in trained) or conditioning == "selected"


def test_an_unknown_conditioning_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="no conditioning 'best'. Choose one of unselected"):
        decoder("best")
