"""What stands out in a trace: plain sentences, only where they beat their null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from analysis.findings.answers import right_answers
from analysis.findings.control import ranked
from analysis.findings.evenness import cold, idle, uneven
from analysis.findings.finding import Family, Finding
from analysis.findings.kinds_of_tasks import serving_types
from analysis.findings.knock_outs import NAME, knocked_out, with_knock_outs
from analysis.findings.losing import close_calls, dropped
from analysis.findings.made_adapters import alike_adapters, retrieved
from analysis.findings.serving import serving
from analysis.findings.since import changed_since
from analysis.findings.telling import informative, taxonomy
from analysis.findings.together import working_together
from analysis.stored_studies import stored_studies
from routing.store.derived import load_derived, save_derived
from routing.trace import RoutingTrace

__all__ = ["Finding", "findings"]

FAMILIES: tuple[Callable[..., Family | None], ...] = (
    serving,
    serving_types,
    uneven,
    idle,
    cold,
    informative,
    taxonomy,
    dropped,
    close_calls,
    right_answers,
    working_together,
    alike_adapters,
    retrieved,
    knocked_out,
)

# Goes up whenever a finding's definition changes, so that findings kept beside a trace are made again.
VERSION = 5


def findings(trace: RoutingTrace, *, before: RoutingTrace | None = None, seed: int = 0) -> list[Finding]:
    """What stands out, the strongest first; nothing where nothing does.

    Each kind is a family of questions, all of which count, said or not:

    - specialist: an expert that a task's prompts choose at least twice as often as prompts do (`specialists`).
    - task_type: an expert that tasks of a type choose more than others, the task being the unit of chance
      (`feature_correlation`), found again in the other half of the prompts.
    - uneven: a busiest expert whose load is above 1.5 times the mean with its whole 95 % interval (`load_balance`).
    - idle: experts that no prompt chose, where chance would hardly leave a fair one idle (`idle_experts`); cold: those
      below a tenth of the mean rate with their whole interval.
    - information: the layer whose experts say most about the task (`task_information`).
    - taxonomy: tasks, clustered by their routes, fall into the types that people gave them (`agreement`).
    - dropped: a layer whose capacity dropped more than 1 % of the assignments; close_calls: one where more than 25 % of
      the choices were as good as a tie (`near_ties`).
    - answers: an expert whose use goes with the score of the answer, within tasks (`correctness_link`).
    - together: a pair of experts selected for the same tokens at least 1.5 times as often as their loads would have it
      (`coactivation`).
    - relation: experts, or tasks, that are alike in what adapters are made from have alike adapters
      (`expert_relations`, `prototype_relations`); retrieval: prompts retrieve their own task's prototype
      (`retrieval_accuracy`).
    - knock_out: a group of prompts that a knock-out beside the trace costs more than others. What it cost is said
      beside the expert, too, where one that serves a task was knocked out.
    - changed: an expert that the same prompts choose at least 1.5 times as often, or as seldom, as in `before`.

    What is said is controlled over the whole list: a trace in which nothing is true has any finding with probability
    0.05 at most (`control.ranked`). Findings are ranked by `strength`, the size of what is sure of an effect, 0 to 1:
    of a ratio 1 − 1 / (lower end of its interval), of a share the share; half of that for what several experts make
    together, which follows from what each does. A trace of level "counts" has findings of load and types of tasks only.
    They are made once and kept beside the trace.

    Args:
        trace: the trace.
        before: an earlier run of the same prompts, such as a snapshot of training.
        seed: of permutations and draws.

    Returns:
        (finding) · a list of Finding · strength 0 to 1.
    """
    params: dict[str, Any] = {"seed": seed, "version": VERSION}
    if before is not None:
        params["before"] = before.digest
    if studies := [study.path.name for study in stored_studies(trace, name=NAME)]:
        params["studies"] = sorted(studies)
    if (kept := load_derived(trace, "findings", params=params)) is not None:
        return [Finding(**each) for each in kept["findings"]]
    found: list[Finding] = []
    if trace.n_layers and (trace.n_tokens or trace.level == "counts"):
        families = [family(trace, seed=seed) for family in FAMILIES]
        if before is not None:
            families.append(changed_since(trace, before, seed=seed))
        found = with_knock_outs(trace, ranked(family for family in families if family is not None))
    save_derived(trace, "findings", {"findings": [asdict(each) for each in found]}, params=params)
    return found
