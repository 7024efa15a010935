"""ERNIE-VL: text and image tokens have experts of their own, so each router sees some of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor, nn

from hooks.taps.experts import ExpertsTap
from hooks.taps.reading import Emit, Reading
from hooks.taps.tap import Handle, call_arguments

__all__ = ["ErniePoolTap"]


@dataclass(eq=False)
class ErniePoolTap(ExpertsTap):
    """The rule, plus which rows of the input this pool was given.

    Finding the rows waits for the device, as the model itself does when it splits them; without an image it does not.
    """

    pools: nn.Module | None = None
    of_images: bool = False
    _is_image: Tensor | None = field(default=None, init=False, repr=False)

    @classmethod
    def around(cls, module: nn.Module, ancestors: list[nn.Module]) -> Self | None:
        """The tap of an Ernie4_5_VLMoeMoeExperts, in one of the two pools of its block."""
        tap = super().around(module, ancestors)
        if tap is not None:
            tap.pools = next(each for each in ancestors if hasattr(each, "vision_moe"))
            tap.of_images = tap.pools.vision_moe is tap.block
        return tap

    def attach(self, emit: Emit) -> list[Handle]:
        """The two hooks of the rule, and one on the parent, which knows the tokens' kinds."""

        def keep_kinds(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.must_look_away():
                _, self._is_image = call_arguments(["hidden_states", "moe_mm_token_type_ids"], args, kwargs)

        assert self.pools is not None
        return [self.pools.register_forward_pre_hook(keep_kinds, with_kwargs=True), *super().attach(emit)]

    def decode(self, ids: Tensor, weights: Tensor, logits: Tensor | None) -> Reading:
        """The reading with the rows of this pool; None when there is no image and all rows are text."""
        reading, kinds = super().decode(ids, weights, logits), self._is_image
        if kinds is None or kinds.numel() == ids.shape[0]:
            return reading
        is_image = kinds.bool().reshape(-1)
        return replace(reading, rows=(is_image if self.of_images else ~is_image).nonzero()[:, 0])
