"""Texts that try to be more than texts: markup, scripts, control characters."""

from __future__ import annotations

from dataclasses import replace

from routing import RoutingTrace, adapters_of

__all__ = ["hostile"]

_TEXTS = (
    "<script>window.hacked = true</script>",
    "</script><img src=x onerror='window.hacked = true'>",
    "\u202egnirts ![picture](https://example.org/picture.png)",
    "[link](javascript:window.hacked=true)",
    "$\\alpha$ **bold** :red[red] `code`",
    "\x07\x00 bell",
    "%{x} {{y}}",
    '" onmouseover="window.hacked = true',
    "--> <!-- ]]> &lt;b&gt; \u2028",
)


def hostile(trace: RoutingTrace) -> RoutingTrace:
    """The same routing under texts, names and tokens that are markup, scripts and control characters."""

    def text(number: int) -> str:
        return _TEXTS[number % len(_TEXTS)]

    prompts = trace.prompts.copy()
    tasks = {task: f"{number} {text(number)}" for number, task in enumerate(trace.tasks)}
    prompts["prompt"] = [f"{name} {text(row)}" for row, name in enumerate(prompts["prompt"])]
    prompts["task"] = prompts["task"].map(tasks)
    prompts["task_type"] = prompts["task_type"].map(lambda kind: f"<b>{kind}</b>")
    for column in ("text", "target", "prediction"):
        prompts[column] = [f"{text(row)} {text(row + 1)}" for row in range(len(prompts))]
    parts = {name: getattr(trace, name).values for name in ("scores", "weights", "logits")}
    facts = [
        replace(each, expert_names=each.expert_names and [tasks[name] for name in each.expert_names])
        for each in trace.layer_facts
    ]
    if (held := trace.adapters) is not None:
        keys = held.keys.assign(key=held.keys["key"].map(lambda key: tasks.get(key, key)))
        conditioning = {name: table.values for name, table in held.conditioning.items()}
        parts["adapters"] = adapters_of(held.sites, keys, held.parameters.values, conditioning=conditioning)
        parts |= {"adapter_index": trace.adapter_index.values, "adapter_ratio": trace.adapter_ratio.values}
    named = tasks | dict(zip(trace.prompts["prompt"], prompts["prompt"], strict=True))
    vectors = {}
    for name, table in trace.vectors.items():
        axis = table.dims[0]
        known = {axis: [named.get(each, each) for each in table[axis].values]} if axis in table.coords else {}
        vectors[name] = table.assign_coords(known)
    return RoutingTrace.from_arrays(
        trace.experts.values,
        **parts,
        layer_facts=facts,
        tokens=trace.tokens,
        prompts=prompts,
        unit=trace.unit,
        vectors=vectors,
        vocabulary={token_id: f" {text(int(token_id))}" for token_id in trace.vocabulary.index},
        provenance=trace.provenance,
    )
