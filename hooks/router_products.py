"""The products that a router computes its logits with, changed while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hooks.sites import Site
from routing import RecordingError

__all__ = ["lowest", "router_products_changed", "site_number"]

PRODUCTS: frozenset[Any] = frozenset(
    {
        functional.linear,
        torch.matmul,
        torch.mm,
        torch.addmm,
        torch.bmm,
        torch.einsum,
        Tensor.matmul,
        Tensor.__matmul__,
        Tensor.mm,
    }
)
LOWEST, LOWEST_IN_HALF = -1e30, -6e4


def lowest(like: Tensor) -> float:
    """Return a logit that no expert is selected with, in the type of a tensor of logits."""
    return LOWEST_IN_HALF if like.dtype == torch.float16 else LOWEST


def site_number(sites: Sequence[Site], label: str) -> int:
    """Return the place of a router among a model's, by the label of its layer.

    Raises:
        RecordingError: no router has this label.
    """
    labels = [site.facts.label for site in sites]
    if label not in labels:
        msg = f"There is no router {label!r}; the model has {', '.join(labels)}. Name one of these."
        raise RecordingError(msg)
    return labels.index(label)


@contextmanager
def router_products_changed(site: Site, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, one router goes on from changed products wherever a product has a column for every expert.

    Args:
        site: the router, proven, so that the width of its logits is known.
        change: what is made of such a product; of its shape.
    """
    router, mine = site.tap.router, site.tap.router.__dict__.get("forward")
    forward: Callable[..., Any] = router.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        with _ChangedProducts(site.facts.n_experts, change):
            return forward(*args, **kwargs)

    router.forward = changed
    try:
        yield
    finally:
        if mine is None:
            del router.forward
        else:
            router.forward = mine


class _ChangedProducts(TorchFunctionMode):
    """Products with a column for every expert come out changed."""

    def __init__(self, n_experts: int, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._n_experts, self._change = n_experts, change

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in PRODUCTS and isinstance(out, Tensor) and out.dim() and out.shape[-1] == self._n_experts:
            return self._change(out)
        return out
