"""Interventions: a model run again with a part of it changed, so that what is seen in a trace is tested.

The only part of analysis that may import torch, hooks and moe_models; nothing else in analysis imports it.
"""

from analysis.interventions.bench import Bench
from analysis.interventions.forced_choices import ForcedChoice, RunnerUpRegret, forced_choice, runner_up_regret
from analysis.interventions.knock_out import KnockOut, knock_out, serving_sets
from analysis.interventions.ledger import Progress
from analysis.interventions.one_text import Change, ChangedText, OneText, ReadText
from analysis.interventions.prototypes import PrototypeExchange, prototype_exchange
from analysis.interventions.random_sets import matched_sets
from analysis.interventions.selection_embedding import selection_embedding_effects

__all__ = [
    "Bench",
    "Change",
    "ChangedText",
    "ForcedChoice",
    "KnockOut",
    "OneText",
    "Progress",
    "PrototypeExchange",
    "ReadText",
    "RunnerUpRegret",
    "forced_choice",
    "knock_out",
    "matched_sets",
    "prototype_exchange",
    "runner_up_regret",
    "selection_embedding_effects",
    "serving_sets",
]
