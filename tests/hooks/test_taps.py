"""Taps under wrappers, compilation, checkpointing and accidents."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import MethodType

import accelerate
import pytest
import torch
import torch.distributed as dist
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hooks.proof import prove_sites
from hooks.sites import attach_taps, find_sites
from hooks.taps import Reading
from routing.errors import RecordingError
from tests.hooks.families import text_batch
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import n_hooks, recorded

IDS = text_batch(seed=2)


def build(name: str = "olmoe") -> nn.Module:
    return next(family for family in FAMILIES if family.name == name).build()


@pytest.fixture
def model() -> nn.Module:
    return build()


@pytest.fixture
def process_group(tmp_path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def ids_of(model: nn.Module, forward) -> list[torch.Tensor]:
    sites = prove_sites(model, find_sites(model), forward)
    assert {site.facts.proof for site in sites} == {"replay"}
    return [readings[0].ids for readings in recorded(model, sites, forward)]


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_model_without_routers_is_refused_with_what_was_looked_at() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(RecordingError, match="LlamaForCausalLM has no router that can be read") as caught:
        find_sites(LlamaForCausalLM(config))
    assert "none is named like a mixture of experts" in str(caught.value)


def test_a_mixture_of_a_foreign_shape_is_refused_naming_its_modules() -> None:
    class RouterOfMyOwn(nn.Linear):
        pass

    class ExpertsInAList(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = RouterOfMyOwn(8, 4)
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    with pytest.raises(RecordingError, match=r"RouterOfMyOwn \(×1\), ExpertsInAList \(×1\)|ExpertsInAList"):
        find_sites(nn.Sequential(ExpertsInAList()))


def test_sites_of_another_model_are_refused(model: nn.Module) -> None:
    with pytest.raises(RecordingError, match="Call find_sites on the model"):
        attach_taps(build(), find_sites(model), lambda number, reading: None)


def test_no_forward_proves_nothing(model: nn.Module) -> None:
    with pytest.raises(RecordingError, match="None of the 3 routers"):
        prove_sites(model, find_sites(model), lambda: None)


def test_attaching_to_the_wrong_model_leaves_no_hook(model: nn.Module) -> None:
    sites = find_sites(model)
    other = build()
    other.model.layers[2].mlp = nn.Identity()
    with pytest.raises(RecordingError):
        attach_taps(other, sites, lambda number, reading: None)
    assert n_hooks(other) == 0


def test_a_receiver_that_fails_stops_the_forward_and_leaves_the_handles_to_the_caller(model: nn.Module) -> None:
    def fail(number: int, reading: Reading) -> None:
        raise OSError

    handles = attach_taps(model, find_sites(model), fail)
    with pytest.raises(OSError):
        model(input_ids=IDS)
    for handle in handles:
        handle.remove()
    assert n_hooks(model) == 0
    # What the router said in the broken forward does not leak into the next.
    assert len(recorded(model, find_sites(model), lambda: model(input_ids=IDS[:1]))[0][0].logits) == IDS.shape[1]


def test_data_parallel_wrapper(model: nn.Module, process_group: None) -> None:
    plain = ids_of(model, lambda: model(input_ids=IDS))
    wrapped = nn.parallel.DistributedDataParallel(model)
    assert_same(plain, ids_of(wrapped, lambda: wrapped(input_ids=IDS)))
    assert find_sites(wrapped)[0].facts.module == "model.layers.0.mlp"


def test_adapters_around_the_experts(model: nn.Module) -> None:
    """As PEFT's ParamWrapper does: the experts become the base layer of modules that pass the call on."""

    class Wrapper(nn.Module):
        def __init__(self, base_layer: nn.Module) -> None:
            super().__init__()
            self.base_layer = base_layer

        def forward(self, *args: object, **kwargs: object) -> object:
            return self.base_layer(*args, **kwargs)

    plain = ids_of(model, lambda: model(input_ids=IDS))
    for layer in model.model.layers:
        layer.mlp.experts = Wrapper(Wrapper(layer.mlp.experts))
    assert_same(plain, ids_of(model, lambda: model(input_ids=IDS)))
    assert find_sites(model)[0].facts.module == "model.layers.0.mlp"


@pytest.mark.parametrize("name", ["olmoe", "deepseek_v3", "laguna"])
def test_offloading_to_disk(name: str, tmp_path) -> None:
    """Weights are on no device outside their module's forward; a bias is read all the same."""
    model = build(name)
    plain = ids_of(model, lambda: model(input_ids=IDS))
    accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
    sites = prove_sites(model, find_sites(model), lambda: model(input_ids=IDS))
    assert {site.facts.proof for site in sites} == {"replay"}
    assert all((site.facts.bias is not None) == (name != "olmoe") for site in sites)
    again = [readings[0].ids for readings in recorded(model, sites, lambda: model(input_ids=IDS))]
    assert_same(plain, again)
    accelerate.hooks.remove_hook_from_submodules(model)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_layer_is_read_once(model: nn.Module, reentrant: bool) -> None:
    model.train()
    # Renamed between the two versions of transformers that are supported.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    sites = find_sites(model)
    readings: list[list[Reading]] = [[] for _ in sites]
    handles = attach_taps(model, sites, lambda number, reading: readings[number].append(reading))
    computed = []
    handle = model.model.layers[0].mlp.experts.register_forward_pre_hook(lambda *_: computed.append(1))
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert len(computed) == 2, "the layer was computed again in backward"
    assert [len(each) for each in readings] == [1, 1, 1]
    assert not readings[0][0].weights.requires_grad
    for each in (*handles, handle):
        each.remove()


def test_proving_in_training_leaves_gradients_and_random_numbers_alone(model: nn.Module) -> None:
    model.train()

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        model(input_ids=IDS, labels=IDS).loss.backward()
        return [each.grad.clone() for each in model.parameters()] + [torch.get_rng_state()]

    plain = gradients()
    proven: list[torch.Tensor] = []
    prove_sites(model, find_sites(model), lambda: proven.extend(gradients()))
    assert_same(plain, proven)


def test_experts_implementations_agree() -> None:
    by_name = {}
    for name in ("eager", "grouped_mm", "batched_mm"):
        model = build("deepseek_v3")
        model.set_experts_implementation(name)
        by_name[name] = ids_of(model, lambda model=model: model(input_ids=IDS))
    assert_same(by_name["eager"], by_name["grouped_mm"])
    assert_same(by_name["eager"], by_name["batched_mm"])


def test_a_copy_of_a_model_has_sites_of_its_own(model: nn.Module) -> None:
    one, other = find_sites(model), find_sites(build())
    assert {site.tap.experts for site in one}.isdisjoint({site.tap.experts for site in other})


def test_memory_is_not_held_after_a_forward(model: nn.Module) -> None:
    sites = find_sites(model)
    recorded(model, sites, lambda: model(input_ids=IDS))
    gc.collect()
    assert all(site.tap._outputs is None for site in sites)


def test_a_router_whose_ids_are_renumbered_is_refused(model: nn.Module) -> None:
    """As by expert parallelism in old versions: what the experts are handed is not what they run by."""
    experts = model.model.layers[1].mlp.experts
    original = experts.forward

    def renumbered(self: nn.Module, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # Ids of two ranks, told apart by something that the hook cannot see.
        return original(hidden, (ids + hidden.shape[0]) % 8, weights)

    experts.forward = MethodType(renumbered, experts)
    with pytest.raises(RecordingError, match=r"model\.layers\.1\.mlp"):
        prove_sites(model, find_sites(model), lambda: model(input_ids=text_batch(seed=2, n_columns=70)))
