"""PHA against a slow, literal version of its equations."""

import math

import pytest
import torch
from transformers import T5ForConditionalGeneration

from moe_models.pha import (
    PhaConfig,
    PhaForConditionalGeneration,
    backbone_loaded,
    instance_contrast,
    prototype_contrast,
)

SIZES = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
TASKS = ["squad", "sst2", "capitals"]


def pha(**changes):
    torch.manual_seed(0)
    options = SIZES | {"tasks": TASKS, "adapter_dim": 4, "prototype_dim": 6, "retriever_dim": 7} | changes
    model = PhaForConditionalGeneration(PhaConfig(**options, decoder_start_token_id=0)).eval()
    for name, parameter in model.named_parameters():  # heads start near zero; here they have to do something
        if "hypernetwork" in name or "adapter" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(n=4, length=7):
    torch.manual_seed(1)
    ids = torch.randint(2, 40, (n, length))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids[:, :3].clone()}


def cosine(u, v):
    return float(u @ v / (u.norm() * v.norm()))


def test_instance_contrast_is_its_formula():
    torch.manual_seed(2)
    z, tasks, tau = torch.randn(5, 6), [0, 0, 1, 0, 2], 0.5
    losses = []
    for i in range(5):
        partners = [j for j in range(5) if j != i and tasks[j] == tasks[i]]
        log_all = math.log(sum(math.exp(cosine(z[i], z[x]) / tau) for x in range(5) if x != i))
        if partners:
            losses.append(-sum(cosine(z[i], z[j]) / tau - log_all for j in partners) / len(partners))
    got = instance_contrast(z, torch.tensor(tasks), temperature=tau)
    assert float(got) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_instance_contrast_of_strangers_is_zero_and_has_a_gradient():
    z = torch.randn(3, 6, requires_grad=True)
    loss = instance_contrast(z, torch.arange(3), temperature=0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(z.grad).all()


def test_prototype_contrast_leaves_the_positive_out_of_the_denominator():
    torch.manual_seed(3)
    z, k, tasks, tau = torch.randn(4, 6), torch.randn(3, 6), [2, 0, 1, 2], 0.5
    losses = [
        -cosine(z[i], k[t]) / tau + math.log(sum(math.exp(cosine(z[i], k[s]) / tau) for s in range(3) if s != t))
        for i, t in enumerate(tasks)
    ]
    got = prototype_contrast(z, torch.tensor(tasks), k, temperature=tau)
    assert float(got) == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_adapters_are_generated_from_the_task_prototype_and_the_layer():
    model = pha()
    network, k = model.hypernetwork, model.prototypes.weight[1]
    for layer, adapters in enumerate(model.task_adapters()):
        u = torch.cat([k, network.layer_embedding.weight[layer]])
        v = network.norm(network.narrow.weight @ torch.relu(network.widen.weight @ u))
        head = network.heads.down
        torch.testing.assert_close(adapters.down[1], (head.weight @ v + head.bias).reshape(16, 4))


def test_each_example_runs_with_the_adapter_of_its_own_task():
    model, inputs = pha(), batch()
    together = model(**inputs, task_ids=torch.tensor([0, 1, 2, 0])).logits
    for i, task in enumerate([0, 1, 2, 0]):
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        alone = model(**one, task_ids=torch.tensor([task])).logits[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(**inputs, task_ids=torch.tensor([1, 1, 2, 0])).logits[0], together[0])


def test_a_decoder_layer_adds_its_adapter_beside_the_feed_forward():
    model = pha()
    layer, x = model.decoder.block[0].layer[-1], torch.randn(2, 3, 16)
    vectors = model.prototypes(torch.tensor([2, 0]))
    with model.adapted(vectors):
        adapters = layer.adapter.current
        got = layer(x)
    normed = layer.layer_norm(x)
    added = torch.relu(normed[0] @ adapters.down[0] + adapters.bias_down[0]) @ adapters.up[0] + adapters.bias_up[0]
    torch.testing.assert_close(got[0], (x + layer.DenseReluDense(normed))[0] + added)
    assert layer.adapter.current is None


def test_the_options_of_the_authors_code_are_their_formulas():
    model = pha(
        generator_bias=True, generator_norm_epsilon=0.1, encoder_adapter_dim=3, adapter_normed_input=False
    )  # an epsilon large enough to be seen
    network, k = model.hypernetwork, model.prototypes.weight[2]
    u = torch.cat([k, network.layer_embedding.weight[1]])
    widened = torch.relu(network.widen.weight @ u + network.widen.bias)
    r = network.narrow.weight @ widened + network.narrow.bias
    v = (r - r.mean()) / (r.var(correction=0) + 0.1).sqrt() * network.norm.weight + network.norm.bias
    head = network.heads.bias_up
    torch.testing.assert_close(model.task_adapters()[1].bias_up[2], head.weight @ v + head.bias)
    layer, x = model.encoder.block[0].layer[-1], torch.randn(2, 3, 16)
    assert layer.adapter.down.weight.shape == (3, 16)
    torch.testing.assert_close(layer(x), x + layer.DenseReluDense(layer.layer_norm(x)) + layer.adapter(x))


def test_padding_has_no_part_in_the_instance_vector():
    model, inputs = pha(), batch()
    changed = inputs["input_ids"].clone()
    changed[0, 5:] = 3
    tasks = torch.tensor([0, 1, 2, 0])
    before = model(**inputs, task_ids=tasks).instance_vectors
    torch.testing.assert_close(model(**inputs | {"input_ids": changed}, task_ids=tasks).instance_vectors, before)


def test_the_language_loss_gives_the_retriever_no_gradient_and_the_contrast_does():
    for weight, expected in ((0.0, False), (0.1, True)):
        model = pha(contrast_weight=weight).train()
        model.freeze_backbone()
        model(**batch(), task_ids=torch.tensor([0, 1, 2, 0])).loss.backward()
        gradient = model.retriever.process[0].weight.grad
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == expected
        assert model.prototypes.weight.grad.abs().sum() > 0
        assert model.shared.weight.grad is None


def test_the_loss_is_the_weighted_sum_of_its_parts():
    out = pha()(**batch(), task_ids=torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(out.loss, out.language_loss + 0.1 * (out.instance_loss + out.prototype_loss))


@pytest.mark.parametrize("source", ["prototype", "instance", "shared"])
def test_generation_follows_the_forward(source):
    model, inputs = pha(adapter_source=source), batch()
    tasks = torch.tensor([0, 1, 2, 0])
    told = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    made = model.generate(**told, task_ids=tasks, max_new_tokens=4, do_sample=False, eos_token_id=None)
    logits = model(**told, task_ids=tasks, decoder_input_ids=made[:, :-1]).logits
    assert (logits.argmax(dim=-1) == made[:, 1:]).all()
    beams = model.generate(**told, task_ids=tasks, num_beams=2, max_new_tokens=3, do_sample=False)
    assert beams.shape[0] == 4


def test_saving_keeps_the_map_from_rows_to_tasks(tmp_path):
    model = pha()
    model.save_pretrained(tmp_path)
    again = PhaForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert again.config.tasks == TASKS
    assert again.task_ids(["capitals", "squad"]).tolist() == [2, 0]
    tasks = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(again(**batch(), task_ids=tasks).logits, model(**batch(), task_ids=tasks).logits)


def test_a_pretrained_backbone_is_loaded_and_frozen():
    torch.manual_seed(5)
    model = pha()
    backbone = T5ForConditionalGeneration(model.config)
    backbone_loaded(model, backbone)
    torch.testing.assert_close(model.shared.weight, backbone.shared.weight)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"encoder", "retriever", "prototypes", "hypernetwork"}


def test_a_forward_without_a_task_says_what_to_do():
    with pytest.raises(RuntimeError, match="task_ids="):
        pha()(**batch())


def test_an_unknown_task_and_no_tasks_are_refused():
    with pytest.raises(ValueError, match="no row for the tasks \\['mnli'\\]"):
        pha().task_ids(["mnli"])
    with pytest.raises(ValueError, match="was given no tasks"):
        pha(tasks=[])


def test_another_name_of_a_task_is_its_row():
    model = pha(task_aliases={"reviews": "sst2"})
    assert model.task_ids(["reviews", "capitals"]).tolist() == [1, 2]
    assert model.knows_task("reviews")
    assert not model.knows_task("mnli")


def test_adapters_of_tasks_of_their_own_share_nothing():
    model = pha(adapter_source="task", contrast_weight=0.0).train()
    told = batch()
    out = model(**told, task_ids=torch.tensor([1, 1, 1, 1]))
    out.loss.backward()
    tables = [parameter for name, parameter in model.named_parameters() if "adapter.down" in name]
    assert len(tables) == 4
    for table in tables:
        assert table.grad[1].abs().max() > 0
        assert table.grad[[0, 2]].abs().max() == 0


def test_adapters_of_tasks_of_their_own_run_each_example_with_its_own():
    model, told = pha(adapter_source="task"), batch()
    together = model(**told, task_ids=torch.tensor([0, 1, 2, 1])).logits
    for i, task in enumerate([0, 1, 2, 1]):
        one = {name: value[i : i + 1] for name, value in told.items()}
        alone = model(**one, task_ids=torch.tensor([task])).logits[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-4, atol=1e-4)
    with pytest.raises(RuntimeError, match="no tasks were set"):
        model(**told)
    ids = model.generate(told["input_ids"], task_ids=torch.tensor([0, 1, 2, 1]), max_new_tokens=3)
    assert len(ids) == 4
