"""The model card of a PHA: what it is, and what comparing it with its controls showed."""

from collections.abc import Mapping, Sequence
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


def pha_card(metrics: Mapping[str, Any], *, name: str, study: Mapping[str, Any] | None) -> str:
    """Return the card of a checkpoint as Markdown.

    Args:
        metrics: what the recipe writes to metrics.json.
        name: the checkpoint's folder.
        study: what `pha_study` found; without it the card says that nothing was compared.
    """
    sections = [
        front_matter(pipeline="text2text-generation"),
        f"# {name}",
        _summary(metrics),
        prompt_section(name, model_class="PhaForConditionalGeneration", module="moe_models.pha"),
        recipe_section(_steps(metrics)),
        _phenomenon(study) if study else "## Compared with controls\n\nNothing was compared with this checkpoint.",
        _vectors(metrics, study),
        *([_new_tasks(metrics)] if metrics.get("new_tasks") else []),
        test_scores(metrics, chosen_by="Weights were chosen on dev rows; test rows were used for nothing else."),
        limits(
            metrics,
            [
                "It answers the tasks it has a prototype for; others run with the prototype that its retriever finds.",
                "The checkpoint is one seed; the comparison above names its seeds.",
            ],
        ),
        data(metrics),
    ]
    return "\n\n".join(sections) + "\n"


def verdict(study: Mapping[str, Any]) -> str:
    """Return in a sentence or two whether the effect appeared: a gain from the contrast that grows as n falls."""
    gaps = study["gaps"].get("no-contrast", {})
    if not gaps:
        return "No run without the contrastive losses was compared, so nothing is said of their effect."
    fewest = next(iter(gaps))
    gap, trend = Interval(**gaps[fewest]), Interval(**study["trend"]) if study["trend"] else None
    helped = gap.excludes_zero and gap.mean > 0
    grew = trend is not None and trend.excludes_zero and trend.mean > 0
    found = f"With {fewest} examples a task the contrastive losses change the mean score by {gap}"
    if trend is not None:
        found += f", and that gap is larger by {trend} than with the most examples"
    if gap.n == 1:
        return f"**Not judged: one seed has no interval.** {found}."
    if helped and grew:
        return f"**The effect appeared**: {found}."
    if helped:
        return f"**The effect appeared in part** (a gain where examples are few, no sure growth of it): {found}."
    if gap.excludes_zero:
        return f"**The effect appeared the other way round**: {found}."
    return f"**The effect did not appear**: {found}; an interval that holds zero is no gain."


def _summary(metrics: Mapping[str, Any]) -> str:
    model, training = metrics["model"], metrics["training"]
    parameters = model["parameters"]
    return (
        f"A small PHA (prototype-based hyper-adapter; Zhao, Fu and He, EMNLP 2023), to look inside of: "
        f"{parameters['total'] / 1e6:.1f} M parameters in bfloat16, of which {parameters['trained'] / 1e6:.2f} M were "
        f"trained on {len(training['examples'])} tasks ({training['n_examples']} examples a task) over a frozen T5. A "
        f"hypernetwork makes the decoder's adapters (width {model['adapter_width']}) from a prototype of the task; a "
        "retriever places each input among the prototypes. Ours in size, data and numbers; the paper's are not "
        "compared with."
    )


def _steps(metrics: Mapping[str, Any]) -> list[str]:
    training = metrics["training"]
    command = (
        f"python -m moe_models.recipes.pha --data CORPUS --backbone DIR --out DIR --method {training['method']} "
        f"--n-examples {training['n_examples']} --steps {training['steps']} --seed {training['seed']}"
    )
    return [
        *backbone_steps(metrics),
        "The backbone is frozen. Trained: encoder adapters (shared by all tasks), retriever, prototypes, hypernetwork.",
        training_step(metrics, command=command),
        f"Batches of {training['examples_a_batch']} examples of all tasks mixed, shuffled anew each epoch. Contrastive "
        "losses between instances, and between instances and prototypes: weight 0.1 each, temperature 0.1. Weights of "
        f"step {training['chosen_step']:,} of {training['steps']:,}, the best check on dev.",
        "Tasks: " + ", ".join(f"{task} ({n})" for task, n in training["examples"].items()) + ".",
    ]


def _phenomenon(study: Mapping[str, Any]) -> str:
    sizes, scores = study["sizes"], study["scores"]
    methods = ["pha", *[method for method in scores if method != "pha"]]
    lines = ["| examples a task | " + " | ".join(methods) + " |", rule(len(methods) + 1)]
    for n in sizes:
        cells = [_cell(scores[method][n]) if n in scores.get(method, {}) else "–" for method in methods]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    gaps = ["| examples a task | " + " | ".join(f"PHA − {method}" for method in study["gaps"]) + " |"]
    gaps.append(rule(len(study["gaps"]) + 1))
    for n in sizes:
        cells = [str(Interval(**its[n])) if n in its else "–" for its in study["gaps"].values()]
        gaps.append(f"| {n} | " + " | ".join(cells) + " |")
    named = "; ".join(f"`{method}`: {study['methods'][method]}" for method in methods if method in study["methods"])
    return (
        "## Compared with controls\n\n"
        f"{verdict(study)}\n\nMean over tasks of the test score (accuracy, or token F1), mean over seeds (n of them) "
        "with the 95 % interval of Student's t. All methods saw the same rows in the same order, for the same number "
        f"of steps. {named}.\n\n" + "\n".join(lines) + "\n\nPaired by seed:\n\n" + "\n".join(gaps)
    )


def _vectors(metrics: Mapping[str, Any], study: Mapping[str, Any] | None) -> str:
    vectors = metrics["vectors"]
    told = [
        f"The nearest prototype is the own task's for {vectors['retrieval']['accuracy']:.1%} of test rows; mean "
        f"silhouette of instances by task {vectors['silhouette']:.2f} (cosine). Prototypes lie at a cosine of "
        f"{_span(list(vectors['prototype_to_center'].values()))} to the center of their task's instances."
    ]
    if study and "no-contrast" in study["vectors"]:
        told.append(
            "Over the sizes and seeds compared, retrieval and silhouette: "
            + "; ".join(
                f"{method} "
                + ", ".join(f"n = {n}: {its['retrieval']:.2f} / {its['silhouette']:.2f}" for n, its in by_size.items())
                for method, by_size in study["vectors"].items()
            )
            + " (without the contrast the retriever is not trained)."
        )
    if swap := metrics.get("swap"):
        n = len(swap["nll"])
        own = sum(swap["nll"][k][k] for k in range(n)) / n
        other = sum(swap["nll"][k][j] for k in range(n) for j in range(n) if j != k) / (n * (n - 1))
        told.append(
            f"Every task run with every task's adapters (dev): nll a token {own:.2f} with the own, {other:.2f} with "
            f"another's; the own are best for {swap['own_best_nll']:.0%} of tasks by nll, "
            f"{swap['own_best_exact']:.0%} by exact match (ties count as no)."
        )
    return "## Retriever and prototypes\n\n" + "\n\n".join(told)


def _new_tasks(metrics: Mapping[str, Any]) -> str:
    lines = ["| new task | nearest prototype | most retrieved | rank by support loss |", rule(4)]
    n = 0
    for task, its in metrics["new_tasks"].items():
        most = sorted(its["retrieved"].items(), key=lambda pair: -pair[1])[:3]
        listed = ", ".join(f"{name} {share:.0%}" for name, share in most if share > 0)
        n = len(its["nll"])
        lines.append(f"| {task} | {its['nearest']} | {listed} | {its['rank']} of {n} |")
    return (
        "## Tasks never seen\n\nThe prototype nearest the mean vector of dev rows, what single rows retrieve, and the "
        "rank of that prototype by the loss of the rows under all of them.\n\n" + "\n".join(lines)
    )


def _cell(score: Mapping[str, Any]) -> str:
    return mean_score_words(score) + ("" if score["low"] is None else f" ({score['n']})")


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
