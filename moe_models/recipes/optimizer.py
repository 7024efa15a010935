"""Optimizer with float32 master weights: Muon for weight matrices, AdamW for everything else.

Muon moves each matrix along its orthogonalized momentum, so that all directions of a matrix learn at one pace; scaled
as below its steps are as large as AdamW's, and both take the same learning rate.

References:
    Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
    Liu et al. 2025, Muon is scalable for LLM training (the scale 0.2 · sqrt(larger side)).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

_MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MUON_SCALE = 0.2


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """How one parameter is stepped.

    Attributes:
        n_matrices: matrices that its second-last axis stacks, for Muon; 0 for AdamW.
        learning_rate_factor: its learning rate over the run's, under AdamW.
        epsilon: AdamW's; where gradients are far below it, steps are as small as they are, instead of all alike.
        part: which part of the model it belongs to. Gradients under AdamW are clipped part by part, so that one part's
            large gradients do not shorten another's steps.
    """

    n_matrices: int = 0
    learning_rate_factor: float = 1.0
    epsilon: float = 1e-8
    part: str = ""


def moe_treatment(name: str, parameter: torch.nn.Parameter) -> Treatment:
    """Return how a parameter of an OLMoE is stepped: Muon for attention and experts, AdamW for the rest."""
    if ".self_attn." in name and name.endswith("_proj.weight"):
        return Treatment(n_matrices=1)
    if ".experts." in name and parameter.dim() > 1:
        # One slice of gate_up_proj holds two matrices of one expert.
        return Treatment(n_matrices=2 if name.endswith("gate_up_proj") else 1)
    return Treatment()


class MasterWeightOptimizer:
    """Keeps float32 copies of the weights, steps those, and writes them back in the model's own precision.

    Args:
        model: the model; its parameters are the ones trained, except frozen ones.
        weight_decay: share of a matrix, times the learning rate, taken off at each step.
        treatment: how the parameter of a name is stepped.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        weight_decay: float,
        treatment: Callable[[str, torch.nn.Parameter], Treatment] = moe_treatment,
    ) -> None:
        self._weight_decay = weight_decay
        matrices: list[tuple[torch.nn.Parameter, int]] = []
        plain: dict[tuple[Treatment, float], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            its = treatment(name, parameter)
            if its.n_matrices:
                matrices.append((parameter, its.n_matrices))
            else:
                decay = 0.1 * weight_decay if parameter.dim() > 1 else 0.0
                plain.setdefault((its, decay), []).append(parameter)
        self._groups = _same_shape_groups(matrices)
        self._masters = [_stacked(group).float() for group in self._groups]
        self._momenta = [torch.zeros_like(master) for master in self._masters]
        self._plain = [parameter for group in plain.values() for parameter in group]
        masters = {key: [parameter.detach().float().clone() for parameter in group] for key, group in plain.items()}
        self._plain_masters = [master for group in masters.values() for master in group]
        self._factors = [its.learning_rate_factor for its, _ in masters]
        self._parts: dict[str, list[torch.Tensor]] = {}
        for (its, _), group in masters.items():
            self._parts.setdefault(its.part, []).extend(group)
        self._adam = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay, "eps": its.epsilon} for (its, decay), group in masters.items()],
            betas=(0.9, 0.98),
            fused=all(master.is_cuda for master in self._plain_masters),
        )

    @torch.no_grad()
    def step(self, *, learning_rate: float) -> None:
        """Take one step along the gradients the model holds, and clear them."""
        for group, master, momentum in zip(self._groups, self._masters, self._momenta, strict=True):
            gradient = _stacked_gradients(group).float()
            momentum.mul_(_MOMENTUM).add_(gradient)
            update = _orthogonalized(gradient.add_(momentum, alpha=_MOMENTUM))
            scale = _MUON_SCALE * max(master.shape[-2:]) ** 0.5
            master.mul_(1.0 - learning_rate * self._weight_decay).add_(update, alpha=-learning_rate * scale)
            _write_back(master, group)
        for master, parameter in zip(self._plain_masters, self._plain, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        for part in self._parts.values():
            torch.nn.utils.clip_grad_norm_(part, 1.0)
        for options, factor in zip(self._adam.param_groups, self._factors, strict=True):
            options["lr"] = learning_rate * factor
        self._adam.step()
        torch._foreach_copy_(self._plain, self._plain_masters)
        for parameter, _ in (pair for group in self._groups for pair in group):
            parameter.grad = None
        for parameter in self._plain:
            parameter.grad = None

    def state(self) -> dict:
        """Return all that is needed to go on: master weights, momenta, AdamW's moments."""
        return {
            "masters": self._masters,
            "momenta": self._momenta,
            "plain_masters": self._plain_masters,
            "adam": self._adam.state_dict(),
        }

    @torch.no_grad()
    def restore(self, state: dict) -> None:
        """Take up a state, and write its weights into the model."""
        if self._masters:
            torch._foreach_copy_(self._masters, state["masters"])
            torch._foreach_copy_(self._momenta, state["momenta"])
        torch._foreach_copy_(self._plain_masters, state["plain_masters"])
        self._adam.load_state_dict(state["adam"])
        for group, master in zip(self._groups, self._masters, strict=True):
            _write_back(master, group)
        torch._foreach_copy_(self._plain, self._plain_masters)


_Group = list[tuple[torch.nn.Parameter, int]]


def _same_shape_groups(matrices: _Group) -> list[_Group]:
    """Return the matrices by shape, so that one batched product serves all of a shape."""
    groups: dict[tuple[int, ...], _Group] = {}
    for parameter, n_parts in matrices:
        groups.setdefault((parameter.shape[-2] // n_parts, parameter.shape[-1]), []).append((parameter, n_parts))
    return list(groups.values())


def _stacked(group: _Group) -> torch.Tensor:
    return torch.cat([_as_matrices(parameter.detach(), parts) for parameter, parts in group])


def _stacked_gradients(group: _Group) -> torch.Tensor:
    # A matrix that no token of the batch went through has no gradient.
    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter, _ in group]
    return torch.cat([_as_matrices(gradient, parts) for gradient, (_, parts) in zip(gradients, group, strict=True)])


def _as_matrices(values: torch.Tensor, n_parts: int) -> torch.Tensor:
    return values.reshape(-1, values.shape[-2] // n_parts, values.shape[-1])


def _write_back(master: torch.Tensor, group: _Group) -> None:
    start = 0
    for parameter, _n_parts in group:
        stop = start + parameter.numel() // (master.shape[-2] * master.shape[-1])
        parameter.copy_(master[start:stop].reshape(parameter.shape))
        start = stop


def _orthogonalized(gradients: torch.Tensor) -> torch.Tensor:
    """Return (matrix, row, column) gradients with their singular values brought near 1, by five Newton-Schulz steps."""
    a, b, c = _QUINTIC
    x = gradients.bfloat16() if gradients.is_cuda else gradients.clone()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()
