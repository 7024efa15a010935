"""Denoising: pairs of a damaged text and what was taken from it, made from windows of running text.

Every window has the same length and loses the same number of tokens in the same number of spans, so that all batches
of an objective have one shape and nothing is padded; which tokens, is drawn.

Letters in shapes: B window, W its tokens, S span.

References:
    Raffel et al. 2020, Exploring the limits of transfer learning with a unified text-to-text transformer (§3.1.4).
    Lewis et al. 2020, BART: denoising sequence-to-sequence pre-training (text infilling).
    Lester et al. 2021, The power of scale for parameter-efficient prompt tuning (language-model adaptation).
"""

from dataclasses import dataclass

import torch

OBJECTIVES = ("spans", "infilling", "continuation")


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """How windows are damaged.

    ``spans``: the source has a sentinel for each span, the target each sentinel and the span behind it. ``infilling``:
    the source has one mask for each span, the target is the whole window. ``continuation``: the source is the first
    half and the target the second, after which a decoder that has only filled in spans can also just write.
    """

    density: float = 0.2
    mean_span: float = 3.0
    end: int = 0
    mask: int = 2
    first_sentinel: int = 3
    n_sentinels: int = 32

    def n_noise(self, length: int) -> tuple[int, int]:
        """How many tokens a window of this length loses, and in how many spans.

        Raises:
            ValueError: there are fewer sentinels than spans.
        """
        n_tokens = min(max(round(length * self.density), 1), length - 1)
        n_spans = max(1, min(round(n_tokens / self.mean_span), n_tokens, length - n_tokens))
        if n_spans > self.n_sentinels:
            message = (
                f"Windows of {length} tokens lose {n_spans} spans, and there are {self.n_sentinels} sentinels. "
                "Use shorter windows, a lower density or longer spans."
            )
            raise ValueError(message)
        return n_tokens, n_spans

    def pair(
        self, windows: torch.Tensor, *, objective: str, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sources and targets (B, …) of windows (B, W) of token ids; sizes depend on W and objective alone.

        Raises:
            ValueError: there is no such objective.
        """
        if objective == "continuation":
            half = windows.shape[1] // 2
            return windows[:, :half], windows[:, half:]
        if objective not in OBJECTIVES:
            message = f"There is no objective {objective!r}. Choose one of {', '.join(OBJECTIVES)}."
            raise ValueError(message)
        n_tokens, n_spans = self.n_noise(windows.shape[1])
        noise, span = noise_spans(
            windows.shape[0],
            length=windows.shape[1],
            n_tokens=n_tokens,
            n_spans=n_spans,
            device=windows.device,
            generator=generator,
        )
        first = noise & ~torch.nn.functional.pad(noise, (1, 0))[:, :-1]
        stand_in = self.first_sentinel + span if objective == "spans" else torch.full_like(span, self.mask)
        source = _kept(
            torch.where(first, stand_in, windows), ~noise | first, n_kept=windows.shape[1] - n_tokens + n_spans
        )
        if objective == "infilling":
            return source, torch.nn.functional.pad(windows, (0, 1), value=self.end)
        target = windows.new_full((len(windows), n_tokens + n_spans + 2), self.end)
        # Where a token goes: behind the noise before it and the sentinels up to its own. The rest lands at the end.
        place = torch.where(noise, noise.cumsum(1) + span, n_tokens + n_spans + 1)
        target.scatter_(1, place, windows)
        target.scatter_(1, torch.where(first, place - 1, n_tokens + n_spans + 1), stand_in)
        return source, torch.nn.functional.pad(target[:, : n_tokens + n_spans], (0, 1), value=self.end)


def noise_spans(
    n_windows: int,
    *,
    length: int,
    n_tokens: int,
    n_spans: int,
    device: torch.device,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which places are noise, (B, W) of bool, and the number of the span each place is in or comes before.

    Spans never touch, the first place is never noise, and every way to part the tokens is equally likely.
    """
    noisy = _parts(n_windows, total=n_tokens, n_parts=n_spans, device=device, generator=generator)
    quiet = _parts(n_windows, total=length - n_tokens, n_parts=n_spans, device=device, generator=generator)
    ends = torch.stack([quiet, noisy], dim=2).flatten(1).cumsum(1)
    places = torch.arange(length, device=device).expand(n_windows, length).contiguous()
    segment = torch.searchsorted(ends, places, right=True)
    return segment % 2 == 1, segment // 2


def _parts(
    n_windows: int, *, total: int, n_parts: int, device: torch.device, generator: torch.Generator
) -> torch.Tensor:
    """Return (B, n_parts) positive whole numbers that sum to ``total``."""
    draws = torch.rand(n_windows, max(total - 1, 0), device=device, generator=generator)
    cuts = draws.argsort(1)[:, : n_parts - 1].sort(1).values + 1
    edges = torch.nn.functional.pad(cuts, (1, 0), value=0)
    return torch.nn.functional.pad(edges, (0, 1), value=total).diff(dim=1)


def _kept(values: torch.Tensor, keep: torch.Tensor, *, n_kept: int) -> torch.Tensor:
    """Return the kept values of each row, in order; every row keeps ``n_kept``, so that nothing waits for a count."""
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, :n_kept]
    return values.gather(1, order)
