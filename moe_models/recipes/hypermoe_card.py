"""The model card of a HyperMoE: what it is, and what comparing it with its controls showed."""

from collections.abc import Mapping
from typing import Any

from .intervals import Interval
from .model_card import (
    curve_section,
    data_section,
    front_matter,
    limits_section,
    loads_section,
    prompt_section,
    recipe_section,
    rule,
    scores_section,
    training_steps,
)

_CONTROLS = {
    "c0": "the plain MoE, nothing added",
    "c1": "the plain MoE with one more expert a token",
    "c2": "an ordinary adapter of the same width in each layer, learned directly",
    "c3": "HyperExperts from a constant: the hypernetwork without any word of the selection",
    "c4": "HyperExperts from the selected experts' embeddings",
    "c5": "HyperExperts from a fixed random table of expert embeddings",
}
_OVERRIDES = {
    "shifted": "taking another set's selection embedding",
    "mean": "taking the mean of all experts' embeddings for each",
    "zero": "taking zero",
    "skip": "leaving the HyperExpert out",
}


def hypermoe_card(
    metrics: Mapping[str, Any],
    *,
    name: str,
    study: Mapping[str, Any] | None = None,
    own: Mapping[str, tuple[float, float, float]] | None = None,
) -> str:
    """Return the card of a checkpoint as Markdown.

    Args:
        metrics: what the recipe writes to metrics.json.
        name: the checkpoint's folder.
        study: what `hypermoe_study` found; without it the card says that nothing was compared.
        own: what replacing this checkpoint's selection embedding does, with intervals over prompts.
    """
    sections = [
        front_matter(),
        f"# {name}",
        _summary(metrics),
        prompt_section(name, model_class="HyperMoeForCausalLM", module="moe_models.hypermoe"),
        _recipe(metrics),
        loads_section(metrics),
        *(_phenomenon(metrics, study, own or {}) if study else [_NOT_COMPARED]),
        *([scores_section(metrics), curve_section(metrics)] if "dev" in metrics else []),
        *([limits_section(metrics, seeds=_seeds(metrics, study))] if "dev" in metrics else []),
        data_section(metrics),
    ]
    return "\n\n".join(sections) + "\n"


_NOT_COMPARED = "## Does the HyperExpert help?\n\nNot measured: this run was compared with no control."


def _summary(metrics: Mapping[str, Any]) -> str:
    model, hyper = metrics["model"], metrics["hypermoe"]
    made_from = {
        "unselected": "In each layer an adapter is added whose weights a hypernetwork makes from the embeddings of "
        "the experts that the router did not select.",
        "none": "Control c0: nothing is added to the experts.",
        "adapter": "Control c2: each layer has an ordinary adapter, learned directly.",
        "constant": "Control c3: the adapters are generated from a constant.",
        "selected": "Control c4: the adapters are generated from the selected experts.",
        "random": "Control c5: the adapters are generated from a fixed random table.",
    }[hyper["conditioning"]]
    return (
        f"A small HyperMoE (Zhao et al., ACL 2024) on an OLMoE backbone, trained from scratch on "
        f"{len(metrics['tasks'])} tasks, to look inside it: {model['parameters'] / 1e6:.1f} M parameters in bfloat16, "
        f"{model['n_layers']} layers, {model['n_experts']} experts a layer, {model['top_k']} a token, hidden size "
        f"{model['hidden_size']}, expert width {model['expert_width']}, {model['vocab_size']:,} byte-level BPE tokens, "
        f"context {model['context_length']}. {made_from} Adapter width {hyper['adapter_dim']}; "
        f"{hyper['added_parameters']:,} parameters are those of the added parts."
        + (f" {metrics['note']}" if "note" in metrics else "")
    )


def _recipe(metrics: Mapping[str, Any]) -> str:
    training = metrics["training"]
    command = (
        f"python -m moe_models.recipes.hypermoe --data CORPUS --out DIR --conditioning "
        f"{metrics['hypermoe']['conditioning']} --experts-per-token {metrics['model']['top_k']} "
        f"--adapter-rate {training['adapter_rate']:g} --steps {training['steps']} --seed {training['seed']}"
    )
    steps = training_steps(metrics, command=command)
    steps.append(
        f"The added parts learn at {training['adapter_rate']:g} × the learning rate, and start near zero: training "
        "begins from the plain MoE. Expert weights are normalized to sum 1 over the selected experts."
    )
    return recipe_section(steps)


def _phenomenon(
    metrics: Mapping[str, Any], study: Mapping[str, Any], own: Mapping[str, tuple[float, float, float]]
) -> list[str]:
    parts = [_gaps(metrics, study), _overrides(study, own), _speed(study), _not_seen(study)]
    return [part for part in parts if part]


def _gaps(metrics: Mapping[str, Any], study: Mapping[str, Any]) -> str:
    lines = ["| control | what it is | answers | prompts | seed by seed, answers |", rule(5)]
    for control, gap in study["gaps"].items():
        seeds = ", ".join(f"{value:+.4f}" for value in gap["per_seed"].values())
        cells = [control, _CONTROLS.get(control, "–"), _shown(gap["written"]), _shown(gap["read"]), seeds]
        lines.append("| " + " | ".join(cells) + " |")
    sentences = [_gap_sentence(control, gap, study["n_tasks"]) for control, gap in study["gaps"].items()]
    steps = study["steps"]
    other = (
        ""
        if steps == metrics["training"]["steps"]
        else f" This checkpoint was trained longer than they were, {metrics['training']['steps']:,} steps."
    )
    losses = "; ".join(
        f"{control} {sum(its['loss']['written'].values()) / len(its['loss']['written']):.4f}"
        for control, its in study["conditions"].items()
    )
    return (
        f"## Does the HyperExpert help?\n\nLoss on {study['n_dev_rows']:,} dev prompts in nats a token, the mean over "
        f"{study['n_tasks']} tasks of each task's mean; HyperMoE minus control, so below zero is better. Runs of "
        f"{steps:,} steps, paired within a seed: the same batches, and the same initial values in all that two models "
        "share. "
        f"95 % intervals of Student's t over seeds.{other}\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences)
        + _taken_together(study)
        + f"\n\nMean losses themselves (answers, each over its own seeds): {losses}."
    )


def _taken_together(study: Mapping[str, Any]) -> str:
    """Return what is left of the gaps when they are looked at together, as a paragraph of its own."""
    tests = study["p_values"]
    if len(tests) < 2:
        return ""
    each = "; ".join(f"{control} {its['p']:.3f}, adjusted {its['adjusted']:.3f}" for control, its in tests.items())
    lower = [control for control in tests if study["gaps"][control]["written"]["mean"] < 0]
    stand = [control for control in lower if tests[control]["adjusted"] < 0.05]
    said = f"a gain over {', '.join(stand)} stands" if stand else "**no gain stands**"
    told = (
        f"\n\n{len(tests)} controls were compared over seeds: p of Student's t, and adjusted for that (Holm): {each}. "
    )
    told += f"Taken together, {said}."
    gaps = {control: Interval(**study["gaps"][control]["written"]) for control in tests}
    if "c0" in gaps and "c3" in gaps and gaps["c0"].mean < 0 and not gaps["c3"].excludes_zero:
        told += (
            " Adapters made from a constant (c3) do as well: there is no sign that what is lower than c0 comes from "
            "the embeddings of the experts that were not selected."
        )
    return told


def _gap_sentence(control: str, gap: Mapping[str, Any], n_tasks: int) -> str:
    interval = Interval(**gap["written"])
    apart = [task for task, its in gap["by_task"].items() if Interval(**its).excludes_zero]
    better = [task for task in apart if gap["by_task"][task]["mean"] < 0]
    worse = [task for task in apart if task not in better]
    if interval.n == 1:
        return f"{control}: one seed, {interval.mean:+.4f}; no interval, so nothing is claimed."
    by_task = (
        f" Task by task the interval leaves zero out in {len(apart)} of {n_tasks}, where chance alone gives about "
        f"{0.05 * n_tasks:.0f}"
        + (f"; better: {', '.join(better)}" if better else "")
        + (f"; worse: {', '.join(worse)}" if worse else "")
        + "."
    )
    if not interval.excludes_zero:
        return (
            f"{control}: **null**. The interval holds zero: no difference was shown over {interval.n} seeds.{by_task}"
        )
    said = "lower (better)" if interval.mean < 0 else "**higher (worse)**"
    return f"{control}: HyperMoE's loss is {said}, {_shown(gap['written'])} over {interval.n} seeds.{by_task}"


def _overrides(study: Mapping[str, Any], own: Mapping[str, tuple[float, float, float]]) -> str:
    if not study["overrides"]:
        return ""
    lines = ["| what is done | over seeds | this checkpoint, over prompts |", rule(3)]
    for override, effect in study["overrides"].items():
        mine = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*own[override]) if override in own else "–"
        lines.append(f"| {_OVERRIDES[override]} ({override}) | {_shown(effect['written'])} | {mine} |")
    used = {
        True: "The selection embedding is used: with another set's the answers get worse.",
        False: "That the selection embedding is used was **not shown (null)**: with another set's the answers get no "
        "worse than could be told from zero.",
        None: "One seed: nothing is claimed.",
    }[_gets_worse(study["overrides"]["shifted"])]
    added = {
        True: "Without the HyperExpert the trained model gets worse, as a model does that loses any part it was "
        "trained with; whether the part was worth having is the comparison above.",
        False: "Leaving the HyperExpert out makes the answers no worse than could be told from zero (**null**).",
        None: "",
    }[_gets_worse(study["overrides"]["skip"])]
    return (
        "## Is the selection embedding used?\n\nThe change in the same loss, answers, when every layer's selection "
        "embedding is replaced at evaluation. 95 % intervals: Student's t over seeds; prompts resampled "
        "within tasks.\n\n" + "\n".join(lines) + f"\n\n{used} {added}".rstrip()
    )


def _gets_worse(effect: Mapping[str, Any]) -> bool | None:
    """Return whether a replacement raises the loss beyond doubt over seeds; None where there is only one."""
    interval = Interval(**effect["written"])
    return None if interval.n == 1 else interval.excludes_zero and interval.mean > 0


def _speed(study: Mapping[str, Any]) -> str:
    told = []
    if cost := study.get("cost"):
        lines = ["| | training, tokens/s | against c0 | forward alone, against c0 |", rule(4)]
        for name, its in cost["train"].items():
            ratios = [_percent(cost[kind][name]["against_c0"]) for kind in ("train", "infer")]
            lines.append("| " + " | ".join([name, f"{its['tokens_per_second']:,}", *ratios]) + " |")
        told.append(
            f"Measured side by side on {cost['device']}, models taking turns in one process, {cost['rounds']} rounds, "
            f"batches of {cost['tokens_a_batch']:,} tokens; 95 % intervals over rounds:\n\n" + "\n".join(lines)
        )
        if memory := cost["memory_bytes"]:
            each = ", ".join(f"{name} {n_bytes / 1e9:.2f} GB" for name, n_bytes in memory.items())
            told.append(f"Memory that a training step takes beside weights and optimizer: {each}.")
    if "c0" in study["speed"]:
        each = ", ".join(f"{control} {_percent(ratio)}" for control, ratio in study["speed"].items())
        told.append(
            "In the runs themselves, HyperMoE's tokens a second over the control's of the same seed, less one, mean "
            f"and 95 % interval over seeds: {each}. Runs may have shared a GPU, which widens this."
        )
    return "## Cost\n\n" + "\n\n".join(told) if told else ""


def _not_seen(study: Mapping[str, Any]) -> str:
    seen: dict[str, bool | None] = {}
    for control, gap in study["gaps"].items():
        test = study["p_values"].get(control)
        seen[f"a gain over {control}"] = test and test["adjusted"] < 0.05 and gap["written"]["mean"] < 0
    for override, effect in study["overrides"].items():
        seen[f"harm from {_OVERRIDES[override]}"] = _gets_worse(effect)
    if all(whether is None for whether in seen.values()):
        return ""
    nulls = [what for what, whether in seen.items() if whether is False]
    return (
        "## What did not appear\n\n" + ("; ".join(nulls) if nulls else "All that was looked for above appeared") + "."
    )


def _seeds(metrics: Mapping[str, Any], study: Mapping[str, Any] | None) -> str:
    training = metrics["training"]
    told = f"This checkpoint is one seed ({training['seed']})"
    if study is None:
        return f"{told}."
    if training["steps"] != study["steps"]:
        return f"{told}, of a longer run than those compared above."
    return f"{told} of the {len(study['conditions']['hypermoe']['loss']['written'])} compared above."


def _shown(interval: Mapping[str, Any]) -> str:
    its = Interval(**interval)
    if its.low is None or its.high is None:
        return f"{its.mean:+.4f} (one seed)"
    return f"{its.mean:+.4f} [{its.low:+.4f}, {its.high:+.4f}]"


def _percent(interval: Mapping[str, Any]) -> str:
    its = Interval(**interval)
    if its.low is None or its.high is None:
        return f"{its.mean:+.1%} (one seed)"
    return f"{its.mean:+.1%} [{its.low:+.1%}, {its.high:+.1%}]"
