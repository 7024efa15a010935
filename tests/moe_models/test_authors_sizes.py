"""Our parts at the authors' default sizes hold as many numbers as were counted in instances of their code."""

import torch

from moe_models.adapters import Adapter
from moe_models.hypermoe import HyperNetwork
from moe_models.hypermoe.hyper_expert import HyperExpertSizes
from moe_models.pha import PrototypicalHypernetwork, Retriever
from moe_models.task_moe import TaskRouter


def n_numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parts_are_as_large_as_the_authors():
    with torch.device("meta"):
        pha = PrototypicalHypernetwork(n_layers=12, prototype=64, hidden=768, width=64, bias=True)
        assert n_numbers(pha) == 6_469_504
        assert n_numbers(Retriever(768, 128, 64)) == 106_688
        assert 12 * n_numbers(Adapter(768, 64)) == 1_189_632
        router = TaskRouter(
            n_layers=12, n_experts=3, task_embedding=128, hidden=64, selection="softmax", temperature=1.0
        )
        assert n_numbers(router) == 101_412
        sizes = HyperExpertSizes(
            n_experts=8, hidden=768, expert_embedding=128, process=128, hypernetwork_input=128, layer_embedding=10,
            bottleneck=128, adapter=64,
        )  # fmt: skip
        assert round(n_numbers(HyperNetwork(sizes, 12)) / 1e6, 2) == 12.81
