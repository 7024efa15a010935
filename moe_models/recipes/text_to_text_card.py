"""Parts that the model cards of PHA and Task-level MoE share."""

from collections.abc import Mapping, Sequence
from typing import Any

from .model_card import TYPE_ORDER, rule


def backbone_steps(metrics: Mapping[str, Any]) -> list[str]:
    """Return how the backbone was pretrained, a sentence or more for each thing."""
    made = metrics["backbone"]
    n_tokens = made["steps"] * made["tokens_a_batch"]
    objectives = ", ".join(f"{name} {share:.0%}" for name, share in made["objectives"].items())
    return [
        f"Backbone: a {made['kind'].upper()} of {made['parameters'] / 1e6:.1f} M parameters "
        f"({made['n_encoder_layers']} + {made['n_decoder_layers']} layers, hidden size {made['hidden_size']}, "
        f"{made['n_heads']} heads, feed-forward {made['feed_forward']}, {made['vocab_size']:,} byte-level BPE tokens), "
        f"from nothing, by denoising ({objectives}; {made['density']:.0%} of the tokens taken out, "
        f"{made['mean_span']:g} together on average): {made['steps']:,} steps of {made['tokens_a_batch']:,} tokens, "
        f"{n_tokens / 1e6:.0f} M tokens in {made['seconds'] / 60:.1f} minutes on {made['device']}.",
        "Its text: inputs of all train rows, and outputs of six words or more, each on its own. It never read an input "
        "together with its answer, so what it knows is text, not the tasks.",
    ]


def prompt_section(name: str, *, model_class: str, module: str, with_instruction: bool = True) -> str:
    """Return the form of a prompt for a model that is told the task, and how to load the checkpoint and use it."""
    form = "`instruction`, newline, input" if with_instruction else "input"
    instruction = "Copy the slot value from the utterance.\\n" if with_instruction else ""
    return (
        f"## Prompt\n\n{form}, newline, `answer:` is the source; the model writes a space, the answer and the end "
        "token. It is told the task.\n\n```python\n"
        f"from transformers import AutoTokenizer\nfrom {module} import {model_class}\n\n"
        f'folder = "sample_checkpoints/{name}"\n'
        f"model = {model_class}.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        f'prompt = "{instruction}slot: time utterance: A table for two at 7 pm please.\\nanswer:"\n'
        'told = model.task_ids(["restaurant8k_slot"])\n'
        'written = model.generate(**tokenizer(prompt, return_tensors="pt"), task_ids=told, max_new_tokens=16)\n'
        "print(tokenizer.decode(written[0], skip_special_tokens=True))\n"
        "```"
    )


def training_step(metrics: Mapping[str, Any], *, command: str) -> str:
    """Return how and where a model was trained on its backbone."""
    training = metrics["training"]
    told = (
        f"`{command}` on {training['device']}, torch {training['torch']}, transformers {training['transformers']}: "
        f"{training['seconds'] / 60:.1f} minutes. AdamW, learning rate {training['learning_rate']:g}, warm-up "
        f"{training['warmup']}, falling over the last {training['decay_share']:.0%}, dropout {training['dropout']:g}, "
        "label smoothing 0.1. Loss: the mean over real target tokens, padding left out. Sources of at most "
        f"{training['source_length']} tokens. The same seed gives the same batches; on a GPU sums differ in their last "
        "bits, so weights are alike and not equal."
    )
    if training["resumed_at"]:
        stops = ", ".join(f"{step:,}" for step in training["resumed_at"])
        told += f" The run was stopped, and resumed from its saved state, at step {stops}."
    return told


def test_scores(metrics: Mapping[str, Any], *, chosen_by: str) -> str:
    """Return each task's test score beside its baseline; ``chosen_by`` says what dev rows were used for."""
    scores = metrics["test"]
    lines = ["| task | type | n | always the commonest | score |", rule(5)]
    kinds = {task: metrics["tasks"][task]["task_type"] for task in scores}
    for task in sorted(scores, key=lambda task: (TYPE_ORDER.index(kinds[task]), task)):
        its = scores[task]
        baseline = f"{its['majority']:.2f}" + (f"; guess {its['chance']:.2f}" if "chance" in its else "")
        lines.append(f"| {task} | {kinds[task]} | {its['n']} | {baseline} | {score_words(its)} |")
    return (
        "## Scores on test\n\nWith options (label sets; the row's own in opentrivia): accuracy by likelihood. Others: "
        f"greedy, exact match / token F1 against the accepted answers. {chosen_by}\n\n" + "\n".join(lines)
    )


def score_words(scores: Mapping[str, float]) -> str:
    """Return a task's score as a cell of a table."""
    if "accuracy" in scores:
        return f"{scores['accuracy']:.2f}"
    return f"{scores['exact_match']:.2f} / {scores['token_f1']:.2f}"


def mean_score_words(score: Mapping[str, Any]) -> str:
    """Return a mean over seeds, and half its interval where there is one, as a cell of a table."""
    if score["low"] is None:
        return f"{score['mean']:.3f}"
    return f"{score['mean']:.3f} ± {score['mean'] - score['low']:.3f}"


def limits(metrics: Mapping[str, Any], more: Sequence[str]) -> str:
    """Return what the model cannot do, led by the tasks at their baseline."""
    at_baseline = sorted(
        task
        for task, scores in metrics["test"].items()
        if max(scores.get(name, 0.0) for name in ("accuracy", "exact_match", "token_f1"))
        < max(scores["majority"], scores.get("chance", 0.0)) + 0.05
    )
    told = [
        "A study object: it knows what its corpus says and little else, writes no good prose, and must not be asked "
        "for medical or any other advice.",
        f"No better than guessing, or within .05 of it: {', '.join(at_baseline) or 'no task'}.",
        *more,
        "Its corpus has the biases of its sources (reviews, e-mail and tweets of their years).",
    ]
    return "## What it cannot do\n\n" + "\n".join(f"- {line}" for line in told)


def data(metrics: Mapping[str, Any]) -> str:
    """Return where the rows are from, under which licence, and how overlap was kept out."""
    lines = ["| task | licence | source |", rule(3)]
    lines += [f"| {task} | {known['licence']} | {known['source']} |" for task, known in metrics["tasks"].items()]
    return (
        f"## Data\n\nChecked for overlap: {metrics['training']['train_rows_dropped']} train rows were dropped because "
        "their input, or a completion of 25 characters or more, is a dev or test input of any task. The backbone read "
        f"{metrics['backbone']['train_rows']:,} train rows, those of tasks named new here too (their inputs, never "
        "with their answers). The rows are not part of this repository.\n\n" + "\n".join(lines)
    )
