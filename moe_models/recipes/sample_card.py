"""The model card of the OLMoE sample checkpoints."""

from collections.abc import Mapping

from .model_card import (
    curve_section,
    data_section,
    front_matter,
    limits_section,
    loads_section,
    prompt_section,
    recipe_section,
    scores_section,
    training_steps,
)


def sample_card(metrics: Mapping, *, name: str) -> str:
    """Return the card of a checkpoint as Markdown.

    Args:
        metrics: what `sample_moe` writes to metrics.json; with ``reference`` in it, scores of an earlier model are
            shown beside this one's.
        name: the checkpoint's folder.
    """
    sections = [
        front_matter(),
        f"# {name}",
        _summary(metrics),
        prompt_section(name, model_class="AutoModelForCausalLM", module="transformers"),
        _recipe(metrics),
        loads_section(metrics),
        scores_section(metrics),
        curve_section(metrics),
        limits_section(metrics, seeds="One seed."),
        data_section(metrics),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(metrics: Mapping) -> str:
    model, training = metrics["model"], metrics["training"]
    balanced = {
        "per-layer": "Each layer's load is balanced on its own.",
        "pooled": (
            "**It is unbalanced on purpose**: the stock auxiliary loss pools counts over layers, looks fine, and "
            "leaves single layers leaning on few experts. It is there to debug load on, not to be used as a model."
        ),
    }[training["balance"]]
    return (
        f"A small Mixture-of-Experts language model trained from scratch on {len(metrics['tasks'])} tasks, to study "
        f"routing on: {model['class']}, {model['parameters'] / 1e6:.1f} M parameters in bfloat16, {model['n_layers']} "
        f"layers, {model['n_experts']} experts a layer, {model['top_k']} a token, hidden size {model['hidden_size']}, "
        f"expert width {model['expert_width']}, {model['vocab_size']:,} byte-level BPE tokens, context "
        f"{model['context_length']}. {balanced}" + (f" {metrics['note']}" if "note" in metrics else "")
    )


def _recipe(metrics: Mapping) -> str:
    training = metrics["training"]
    steps = training_steps(
        metrics,
        command=(
            f"python -m moe_models.recipes.sample_moe --data CORPUS --out DIR --balance {training['balance']} "
            f"--steps {training['steps']} --seed {training['seed']} --workers {training['n_workers']}"
        ),
    )
    for router in training["settled"]:
        steps.append(
            f"After training the router of layer {router['layer']} alone was moved, on train rows as they are, until "
            f"their load there was {router['load_after']:.2f} instead of {router['load_before']:.2f} × the mean "
            f"({router['n_steps']} steps; {router['changed_share']:.1%} of tokens changed an expert)."
        )
    if "settling_check" in training:
        steps.append(training["settling_check"])
    return recipe_section(steps)
