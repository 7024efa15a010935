"""The model card of a Task-level MoE: what it is, what its routes follow, and what that was compared with."""

import math
from collections.abc import Mapping
from typing import Any

from .intervals import Interval
from .model_card import front_matter, recipe_section, rule
from .text_to_text_card import (
    backbone_steps,
    data,
    limits,
    mean_score_words,
    prompt_section,
    test_scores,
    training_step,
)

_LEAST_SHARE = 0.5
"""Share of seeds in which an effect must be seen to be called one."""


def task_moe_card(metrics: Mapping[str, Any], *, name: str, study: Mapping[str, Any] | None) -> str:
    """Return the card of a checkpoint as Markdown.

    Args:
        metrics: what the recipe writes to metrics.json.
        name: the checkpoint's folder.
        study: what `task_moe_study` found; without it the card says that nothing was compared.
    """
    sections = [
        front_matter(pipeline="text2text-generation"),
        f"# {name}",
        _summary(metrics),
        prompt_section(
            name,
            model_class="TaskMoeForConditionalGeneration",
            module="moe_models.task_moe",
            with_instruction=metrics["training"]["instruction"] != "off",
        ),
        recipe_section(_steps(metrics)),
        _routes(metrics, study),
        _knock_outs(metrics),
        *([_compared(study)] if study else ["## Compared with controls\n\nNothing was compared with this checkpoint."]),
        test_scores(metrics, chosen_by="Nothing was chosen by these rows, nor by dev rows: the last step is kept."),
        limits(
            metrics,
            [
                "It has a route for the tasks it was trained on and for no other.",
                "The checkpoint is one seed; what is said of several seeds names them.",
            ],
        ),
        data(metrics),
    ]
    return "\n\n".join(sections) + "\n"


def verdict(study: Mapping[str, Any]) -> str:
    """Return, for each feature, whether its correlation and its knock-out are more than chance, over seeds."""
    told = []
    for feature, its in study["features"].items():
        n = len(its["p_values"])
        n_follow = sum(p < 0.05 for p in its["p_values"])
        n_matter = sum(p < 0.05 for p in its["knock_out_p_values"])
        follow, matter = n_follow > _LEAST_SHARE * n, n_matter > _LEAST_SHARE * n
        if follow and matter:
            words = "**appeared**: routes follow it, and its experts matter for its tasks"
        elif follow:
            words = "**appeared in part**: routes follow it, but disabling its experts hurts no more than random sets"
        elif matter:
            words = "**appeared in part**: its experts matter for its tasks, but routes follow it no more than chance"
        else:
            words = "**did not appear**"
        told.append(f"- {feature}: {words} (p < .05 in {n_follow} of {n} seeds; knock-out in {n_matter} of {n}).")
    return "\n".join(told) or "No run with learned routes was compared."


def _summary(metrics: Mapping[str, Any]) -> str:
    model, training = metrics["model"], metrics["training"]
    n_known = len(metrics["test"])
    spoken = {
        "off": "Its prompts have no instruction line, so the route is the only word of the task (the form of the input "
        "gives some of it away)",
        "on": "Its prompts come with the instruction line, which names the task beside the route",
    }[training["instruction"]]
    embedding = {
        "random": "Task embeddings began as random numbers: whatever its routes have to do with kinds of tasks comes "
        "from training",
        "text": "Task embeddings were made from the tasks' texts, so routes can inherit likeness from them",
    }[training["task_embedding"]]
    return (
        "A small Task-level Mixture-of-Experts (Ye, Zha and Ren, Findings of EMNLP 2022), to look inside of: "
        f"{model['parameters'] / 1e6:.1f} M parameters in bfloat16, {model['n_layers']} routed layers (encoder first) "
        f"of {model['n_experts']} whole layers each, hidden size {model['hidden_size']}; a router gives each of "
        f"{n_known} tasks its own weights of the experts. {embedding}. {spoken}. Ours in size, data and numbers; the "
        "paper's are not compared with."
    )


def _steps(metrics: Mapping[str, Any]) -> list[str]:
    training = metrics["training"]
    command = (
        f"python -m moe_models.recipes.task_moe --data CORPUS --backbone DIR --out DIR --routes {training['routes']} "
        f"--task-embedding {training['task_embedding']} --instruction {training['instruction']} --steps "
        f"{training['steps']} --seed {training['seed']}" + (" --stage 1" if training["stage"] == "1" else "")
    )
    held_out = f"held out of training: {', '.join(training['new_tasks']) or 'no task'}."
    second = (
        f"Stage 2 was not run: experts and routes are those learned together in stage 1; {held_out}"
        if training["stage"] == "1"
        else "Stage 2 (as many steps): routes frozen, experts anew from the backbone, softmax with τ from 300 (all but "
        f"the average) to 1; {held_out}"
    )
    return [
        *backbone_steps(metrics),
        training_step(metrics, command=command),
        f"Stage 1 ({training['steps']:,} steps of {training['rows']} examples): experts (copies of the backbone's "
        "layers, plus noise of 1 % of each weight's spread), router and task embeddings together, one expert a task "
        "and layer by straight-through Gumbel, τ from 2 to 0.1 over the first third; learning rate "
        f"×{training['router_rate']:g} for the router, ×{training['embedding_rate']:g} for task embeddings, with "
        f"AdamW's epsilon at {training['router_epsilon']:g} for both, so that routes wait until experts differ by more "
        "than their first noise.",
        second,
    ]


def _routes(metrics: Mapping[str, Any], study: Mapping[str, Any] | None) -> str:
    routes, soft = metrics["routes"], metrics["routes"]["soft"]["features"]
    lines = [
        "| feature | tasks | best expert | r | p | null 95 % | untrained 95 % (p) | r, p of hard routes |",
        rule(8),
    ]
    for feature, its in soft.items():
        hard = metrics["routes"]["hard"]["features"][feature]
        cells = [
            f"{feature}",
            f"{its['n_tasks']}",
            f"layer {its['layer']}, expert {its['expert']}",
            f"{its['r']:+.2f}",
            _p(its["p_value"]),
            f"{its['null_95']:.2f}",
            f"{its['untrained_95']:.2f} ({_p(its['untrained_p_value'])})",
            f"{hard['r']:+.2f}, {_p(hard['p_value'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    most = math.log(max(metrics["model"]["n_experts"], 1)) or 1.0
    n_experts = metrics["model"]["n_layers"] * metrics["model"]["n_experts"]
    told = (
        "## What the routes follow\n\nCorrelation over tasks of a feature with each expert's weight (softmax at τ = 1, "
        f"no noise), the largest over {n_experts} experts; p from {metrics['training']['permutations']:,} shufflings "
        "of the tasks, each with its own largest. Untrained: fresh routers on fresh random embeddings.\n\n"
        + "\n".join(lines)
        + f"\n\nSharpness: entropy of a task's route in a layer {routes['entropy']:.2f} nats of {most:.2f}; of the "
        f"mean route {routes['mean_route_entropy']:.2f}; specialization, the difference, "
        f"{routes['specialization']:.2f}. {routes['n_distinct_hard_routes']} distinct routes of {len(metrics['test'])} "
        "tasks, each layer's largest weight taken."
    )
    return told + (f"\n\nOver seeds:\n\n{verdict(study)}" if study else "")


def _knock_outs(metrics: Mapping[str, Any]) -> str:
    lines = ["| feature | experts disabled | tasks with it | tasks without | difference | random sets | p |", rule(7)]
    matched, by_feature = set(), []
    for feature, its in metrics["knock_outs"].items():
        if not its.get("experts"):
            lines.append(f"| {feature} | none correlates above zero | – | – | – | – | – |")
            continue
        experts = ", ".join(f"{layer}·{expert}" for layer, expert in its["experts"])
        nll = its["nll"]
        matched.add(f"{its['matched']} ({its['n_random']} sets)")
        lines.append(
            f"| {feature} | {experts} | {nll['with']:+.3f} | {nll['without']:+.3f} | {nll['specificity']:+.3f} | "
            f"{nll['random_mean']:+.3f} | {_p(nll['p_value'])} |"
        )
        by_feature.append(f"{feature}'s: " + ", ".join(f"{f} {v:+.3f}" for f, v in its["by_feature"].items()))
    return (
        "## Knock-out\n\nChange of the answers' mean nll a token on dev when the experts (layer·expert) that go with a "
        "feature most are made unselectable; random sets match in "
        f"{' or '.join(sorted(matched)) or 'nothing'}; p is the share of sets, this one counted, with a difference as "
        "large.\n\n"
        + "\n".join(lines)
        + "\n\nWhat each knock-out costs the tasks of each feature: "
        + ("; ".join(by_feature) or "nothing was disabled")
        + "."
    )


def _compared(study: Mapping[str, Any]) -> str:
    lines = ["| condition | seeds | mean test score | route entropy | specialization |", rule(5)]
    for name, score in study["scores"].items():
        sharp = study["sharpness"][name]
        lines.append(
            f"| {name} | {len(study['seeds'][name])} | {mean_score_words(score)} | {sharp['entropy']:.2f} | "
            f"{sharp['specialization']:.2f} |"
        )
    gains = [
        f"- {kind}: " + "; ".join(f"over {base} {Interval(**gain)}" for base, gain in by_base.items())
        for kind, by_base in study["gains"].items()
    ]
    words = "; ".join(f"{name}: {what}" for name, what in study["methods"].items())
    return (
        f"## Compared with controls\n\n{words}.\n\n" + "\n".join(lines) + "\n\nARG, the mean over tasks of the score's "
        "gain as a share of the control's (tasks where the control scores below .02 left out), paired by seed:\n\n"
        + ("\n".join(gains) or "- no control was run with a seed of the learned routes")
    )


def _p(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
