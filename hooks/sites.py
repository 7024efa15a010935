"""Where a model routes: its routers found by what they are handed, not by what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hooks.layer_facts import clean_path, in_order, layer_facts, layer_labels
from hooks.selection_rule import SelectionRule
from hooks.taps import EXCEPTIONS, Handle, Reading, Tap, tap_for
from routing.errors import RecordingError
from routing.facts import LayerFacts

__all__ = ["Receive", "Site", "attach_taps", "find_sites", "is_compiled"]

Receive = Callable[[int, Reading], None]


@dataclass(frozen=True, eq=False)
class Site:
    """One router of a model.

    Attributes:
        facts: what is known of it; `prove_sites` completes what only a forward can tell.
        path: path of the experts (or their block) in the model that was searched, wrappers included.
        tap: the reader.
        config: configuration of the model that the router belongs to, or None.
        rule: how its logits become selection scores, once learned; None where no rule reproduces its choices.
    """

    facts: LayerFacts
    path: str
    tap: Tap
    config: object | None = None
    rule: SelectionRule | None = None

    def selection_scores(self, logits: Tensor) -> Tensor | None:
        """What the router compared when it chose, on the logits' device, without synchronizing.

        Returns:
            (row, expert) · selection score, bias included · -inf for an expert that could not be chosen because its
            group was not; None where no rule reproduces this router's choices, so that it has no runners-up.
        """
        return None if self.rule is None else self.rule.scores(logits)


def find_sites(model: nn.Module) -> list[Site]:
    """Every router of a model, in the order of its modules.

    Wrappers (DDP, FSDP, PEFT, accelerate, torch.compile) may be around the model or around the experts.

    Returns:
        (site) · a router each · at least one.

    Raises:
        RecordingError: no router was found.
    """
    found: list[Site] = []
    paths = {module: path for path, module in model.named_modules()}
    taken: list[str] = []
    for path, module in model.named_modules():
        if "shared" in path.rsplit(".", 1)[-1] or any(path.startswith(f"{above}.") for above in taken):
            continue
        ancestors = _ancestors(model, path)
        tap = tap_for(module, ancestors)
        if tap is None:
            continue
        around_block = _ancestors(model, paths[tap.block])
        facts = layer_facts(tap, clean_path(paths[tap.block]), ancestors=around_block)
        found.append(Site(facts, path, tap, _config_of([module, *ancestors])))
        taken.append(path)
    if not found:
        raise _no_router(model)
    found = [found[place] for place in in_order([site.facts for site in found])]
    labels = layer_labels([(site.facts.module, site.facts.stack, site.facts.number) for site in found])
    return [
        replace(site, facts=site.tap.completed(replace(site.facts, label=label)))
        for site, label in zip(found, labels, strict=True)
    ]


def attach_taps(model: nn.Module, sites: list[Site], receive: Receive) -> list[Handle]:
    """Hooks that call `receive(site number, reading)` once per forward of each router.

    The hooks return nothing, never synchronize and stay silent while backward recomputes a checkpointed layer. A
    compiled model is compiled again with the hooks in its graphs, and once more without them when they go: dynamo
    does not look for hooks that come or leave after its first call.

    Returns:
        (handle) · what removes the hooks · at least one a site.

    Raises:
        RecordingError: the sites belong to another model.
    """
    modules = dict(model.named_modules())
    for site in sites:
        if modules.get(site.path) not in (site.tap.experts, site.tap.block):
            msg = (
                f"{site.path} of this {type(model).__name__} is not the module in which a router was found. "
                "Call find_sites on the model that is to be recorded, after it was wrapped or quantized."
            )
            raise RecordingError(msg)
    handles: list[Handle] = []
    for number, site in enumerate(sites):
        handles += site.tap.attach(lambda reading, number=number: receive(number, reading))
    if is_compiled(model):
        torch.compiler.reset()
        handles.append(_CompileAnew())
    return handles


def is_compiled(model: nn.Module) -> bool:
    """Whether some part of a model runs through torch.compile."""
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        # What transformers' generate() compiles for a static cache.
        or hasattr(module, "_compiled_call")
        for module in model.modules()
    )


@dataclass
class _CompileAnew:
    done: bool = False

    def remove(self) -> None:
        if not self.done:
            self.done = True
            torch.compiler.reset()


def _ancestors(model: nn.Module, path: str) -> list[nn.Module]:
    parts = path.split(".") if path else []
    return [model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts) - 1, -1, -1)]


def _config_of(modules: list[nn.Module]) -> object | None:
    return next((module.config for module in modules if hasattr(module, "config")), None)


def _no_router(model: nn.Module) -> RecordingError:
    words = ("expert", "moe", "router", "gating")
    names = [type(module).__name__ for module in model.modules()]
    suspects = Counter(name for name in names if any(word in name.lower() for word in words))
    looked_at = ", ".join(f"{name} (×{times})" for name, times in suspects.most_common(8))
    known = ", ".join(sorted(EXCEPTIONS))
    msg = (
        f"{type(model).__name__} has no router that can be read. "
        "Record a Mixture-of-Experts model of a class that transformers ships (docs/families.md). "
        f"Of its {len(names)} modules none is handed (hidden states, experts, weights) beside a router, nor is one of "
        f"{known}; " + (f"the nearest were {looked_at}." if looked_at else "none is named like a mixture of experts.")
    )
    return RecordingError(msg)
