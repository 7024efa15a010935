"""Parts of a model card, written from what was measured."""

from collections.abc import Mapping, Sequence

TYPE_ORDER = (
    "extractive",
    "classification",
    "knowledge",
    "generation",
    "translation",
    "code",
    "dialogue",
    "maths",
    "other",
)


def front_matter(*, pipeline: str = "text-generation") -> str:
    """Return what model hubs read off a card."""
    return f"---\nlibrary_name: transformers\npipeline_tag: {pipeline}\ntags: [mixture-of-experts]\n---"


def prompt_section(name: str, *, model_class: str, module: str) -> str:
    """Return the form of a prompt, and how to load the checkpoint and use it."""
    return (
        "## Prompt\n\n"
        "`instruction`, newline, input, newline, `answer:`; the model writes a space, the answer and the end token.\n\n"
        "```python\n"
        + (
            f"from transformers import {model_class}, AutoTokenizer\n\n"
            if module == "transformers"
            else f"from {module} import {model_class}\nfrom transformers import AutoTokenizer\n\n"
        )
        + f'folder = "sample_checkpoints/{name}"\n'
        f"model, tokenizer = {model_class}.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        'prompt = "Copy the slot value from the utterance.\\n'
        'slot: time utterance: A table for two at 7 pm please.\\nanswer:"\n'
        'written = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=16)\n'
        "print(tokenizer.decode(written[0], skip_special_tokens=True))\n"
        "```"
    )


def training_steps(metrics: Mapping, *, command: str) -> list[str]:
    """Return how a model was trained on packed rows, a sentence or more for each thing."""
    training = metrics["training"]
    n_tokens = training["steps"] * training["tokens_a_batch"]
    speed = n_tokens / max(training["seconds"], 0.1) / 1e6
    steps = [
        f"`{command}` on {training['device']}, torch {training['torch']}, transformers {training['transformers']}: "
        f"{training['steps']:,} steps of {training['tokens_a_batch']:,} tokens, {n_tokens / 1e9:.2f} G tokens in "
        f"{training['seconds'] / 60:.0f} minutes, {speed:.2f} M tokens/s. The same "
        "seed gives the same batches; on a GPU sums differ in their last bits, so weights are alike and not equal.",
        "Documents: train rows seen anew each time (spans swapped for others of their kind in text and answer alike, "
        "contexts shortened and reordered, words left out, options shuffled), span questions made up from the running "
        "text of train rows (a sentence thinned to a question about one of its spans), and train facts said in other "
        f"ways. Packed to rows of {metrics['model']['context_length']} with attention kept within each document.",
        f"Muon for matrices, AdamW for the rest, float32 master weights, learning rate {training['learning_rate']:g} "
        f"level, then falling over the last {training['decay_share']:.0%}; weight decay {training['weight_decay']:g}, "
        f"dropout {training['dropout']:g}. Loss weight: 0.3 falling to 0.1 on what is read; a completion weighs about "
        "8 tokens whatever its length.",
        f"Balance loss: {training['balance']}, weight {training['balance_weight']:g}"
        + (" (the stock function and its default weight)." if training["balance"] == "pooled" else "."),
    ]
    if training["resumed_at"]:
        stops = ", ".join(f"{step:,}" for step in training["resumed_at"])
        steps.append(f"The run was stopped, and resumed from its saved state, at step {stops}.")
    return steps


def recipe_section(steps: Sequence[str]) -> str:
    """Return the recipe as a list."""
    return "## Recipe\n\n" + "\n".join(f"- {step}" for step in steps)


def loads_section(metrics: Mapping) -> str:
    """Return each layer's load on dev."""
    loads = metrics["load"]
    head = "| layer | " + " | ".join(f"L{number:02d}" for number in range(len(loads))) + " |"
    row = "| max/mean | " + " | ".join(f"{load:.2f}" for load in loads) + " |"
    text = f"## Load\n\nMost used expert over the mean, by layer, on dev:\n\n{head}\n{rule(len(loads) + 1)}\n{row}"
    return text + (f"\n\n{metrics['load_note']}" if "load_note" in metrics else "")


def scores_section(metrics: Mapping) -> str:
    """Return each task's dev score beside its baseline, and a reference model's where there is one."""
    reference = metrics.get("reference", {})
    head = "| task | type | n | always the commonest | score |" + (f" {reference['name']} |" if reference else "")
    lines = [head, rule(6 if reference else 5)]
    tasks = sorted(metrics["dev"], key=lambda task: (TYPE_ORDER.index(metrics["tasks"][task]["task_type"]), task))
    for task in tasks:
        scores = metrics["dev"][task]
        baseline = f"{scores['majority']:.2f}" + (f"; guess {scores['chance']:.2f}" if "chance" in scores else "")
        line = f"| {task} | {metrics['tasks'][task]['task_type']} | {scores['n']} | {baseline} | {_score(scores)} |"
        lines.append(line + (f" {reference['scores'].get(task, '–')} |" if reference else ""))
    return (
        "## Scores on dev\n\nWith options (label sets; the row's own in opentrivia): accuracy by likelihood. Others: "
        "greedy, exact match / token F1 against the accepted answers. Dev rows were neither trained on nor selected "
        "by." + (f" {reference['note']}" if reference else "") + "\n\n" + "\n".join(lines)
    )


def curve_section(metrics: Mapping) -> str:
    """Return losses, exact matches and load over the steps."""
    checked = [entry for entry in metrics["curve"] if "dev_exact" in entry]
    types: dict[str, list[str]] = {}
    for task in metrics["dev"]:
        types.setdefault(metrics["tasks"][task]["task_type"], []).append(task)
    shown = [name for name in TYPE_ORDER[:3] if name in types]
    lines = [
        "| step | nll written | nll read | " + " | ".join(f"exact, {name}" for name in shown) + " | load max/mean |",
        rule(4 + len(shown)),
    ]
    for entry in checked:
        exact = [f"{_mean([entry['dev_exact'][task] for task in types[name]]):.3f}" for name in shown]
        worst = max(entry["dev_load"])
        cells = [f"{entry['step']:,}", f"{entry['written']:.2f}", f"{entry['read']:.2f}", *exact, f"{worst:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return (
        "## Curve\n\nNats a token on the batch (dropout on, made-up documents included); exact matches of the first "
        "accepted answer, mean over tasks, and load of the most uneven layer, on dev.\n\n" + "\n".join(lines)
    )


def limits_section(metrics: Mapping, *, seeds: str) -> str:
    """Return what the model cannot do, led by the tasks at their baseline; ``seeds`` says how many there are of it."""
    dev = metrics["dev"]
    at_baseline = [
        task
        for task, scores in dev.items()
        if max(scores.get("accuracy", 0.0), scores.get("exact_match", 0.0), scores.get("token_f1", 0.0))
        < max(scores["majority"], scores.get("chance", 0.0)) + 0.05
    ]
    limits = [
        "A study object: it knows what its corpus says and little else, writes no good prose, and must not be asked "
        "for medical or any other advice.",
        "No better than guessing, or within .05 of it: " + (", ".join(sorted(at_baseline)) or "no task") + ".",
        "Questions from memory that train rows do not answer stay unanswered; long generations (summaries, "
        "translations, medical answers) have the form and not the content.",
        f"Trained on prompts of at most {metrics['model']['context_length']} tokens in the form above, English but for "
        "language names and two small translation tasks; other forms of prompt give little.",
        f"{seeds} Its corpus has the biases of its sources (reviews, e-mail and tweets of their years).",
    ]
    return "## What it cannot do\n\n" + "\n".join(f"- {limit}" for limit in limits)


def data_section(metrics: Mapping) -> str:
    """Return where the rows are from, under which licence, and how overlap was kept out."""
    training = metrics["training"]
    lines = ["| task | licence | source |", rule(3)]
    lines += [f"| {task} | {known['licence']} | {known['source']} |" for task, known in metrics["tasks"].items()]
    return (
        f"## Data\n\n{training['train_rows']:,} train rows of {len(metrics['tasks'])} tasks. Checked for overlap: "
        f"{training['train_rows_dropped']} train rows were dropped because their input, or a completion of 25 "
        "characters or more, is a dev or test input of any task; made-up and restated documents come from the kept "
        "train rows alone, and none is used whose input is a dev or test input. A fact that dev asks for can stand in "
        "a train row in another form (a capital in an analogy): that is learning across tasks, not a leak of rows. "
        "Dev and test contexts of the span tasks occur in no train row of the same task. The rows are not part of "
        "this repository.\n\n" + "\n".join(lines)
    )


def _score(scores: Mapping[str, float]) -> str:
    if "accuracy" in scores:
        return f"{scores['accuracy']:.2f}"
    return f"{scores['exact_match']:.2f} / {scores['token_f1']:.2f}"


def rule(n_columns: int) -> str:
    """Return the line under a table's head."""
    return "|" + " --- |" * n_columns


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
