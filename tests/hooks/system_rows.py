"""Our own systems as docs/families.md tells them: what is recorded of each, and the tests that show it."""

from __future__ import annotations

__all__ = ["SYSTEM_CHECKS", "SYSTEM_ROWS"]

HYPER, PHA, TASK = "test_record_hypermoe", "test_record_pha", "test_record_task_moe"
DISK_HYPER = f"{HYPER}.test_what_is_on_the_disk_reproduces_adapters_and_blocks"
DISK_PHA = f"{PHA}.test_what_is_on_the_disk_reproduces_retrieval_and_adapters"
DISK_TASK = f"{TASK}.test_what_is_on_the_disk_reproduces_every_layer"

SYSTEM_ROWS: tuple[tuple[str, str, str, str], ...] = (
    (
        "HyperMoE, decoder",
        "`HyperMoeForCausalLM`",
        "token: routing as of any model; the adapter of the selected set, its length over the experts'",
        DISK_HYPER,
    ),
    (
        "HyperMoE on Switch, dropped tokens zero or P·x",
        "`HyperMoeSwitchForConditionalGeneration`",
        "the same in both stacks; a dropped token keeps its adapter",
        DISK_HYPER,
    ),
    (
        "HyperMoE's controls c3 to c5 (constant, selected, random)",
        "both",
        "the same; what adapters are made from differs",
        DISK_HYPER,
    ),
    (
        "HyperMoE's controls c0 to c2 (none, an ordinary adapter)",
        "both",
        "routing; nothing is generated, and the layers' notes say so",
        f"{HYPER}.test_controls_that_generate_nothing_say_so",
    ),
    (
        "PHA, adapters from prototypes",
        "`PhaForConditionalGeneration`",
        "prompt: the retriever as a router over prototypes, instance vectors; the adapters of the text's task in every "
        "decoder layer, their length over the feed-forward's",
        DISK_PHA,
    ),
    (
        "PHA, adapters from each text's own vector",
        "`PhaForConditionalGeneration`",
        "prompt: the same, one adapter a text and layer",
        DISK_PHA,
    ),
    (
        "PHA, one shared adapter",
        "`PhaForConditionalGeneration`",
        "prompt: retrieval; nothing is generated, and the layer's note says so",
        f"{PHA}.test_a_shared_adapter_is_not_generated",
    ),
    (
        "Task-level MoE, hard routes",
        "`TaskMoeForConditionalGeneration`",
        "prompt: one block a layer, logits, mode and temperature; tables of all tasks' routes",
        DISK_TASK,
    ),
    (
        "Task-level MoE, soft and average routes",
        "`TaskMoeForConditionalGeneration`",
        "prompt: all blocks with their weights",
        DISK_TASK,
    ),
)

SYSTEM_CHECKS: dict[str, str] = {
    DISK_HYPER: "for every token, the stored adapter applied to the HyperExpert's input gives its output, and experts, "
    "adapter and P·x of dropped tokens add up to the block's",
    f"{HYPER}.test_each_selected_set_is_there_once": "one adapter a distinct set and layer, named by the set",
    f"{HYPER}.test_generation_with_a_cache_uses_the_adapters_of_teacher_forcing": "`generate()` with a cache",
    DISK_PHA: "stored vectors and prototypes give the retrieval; the stored adapter gives what was added, position by "
    "position",
    f"{PHA}.test_generate_gives_one_row_a_prompt": "`generate()`, padded left and right, alone and in company",
    DISK_TASK: "stored weights and blocks, one at a time, give the layer's output",
    f"{TASK}.test_a_poisoned_block_spoils_exactly_the_prompts_that_took_it": "a block made of NaN",
    f"{HYPER}.test_a_wrong_entry_of_the_dictionary_is_caught": "an adapter swapped for another is refused by name",
    f"{PHA}.test_another_tasks_adapter_in_the_layer_is_caught": "so is a layer that runs with another text's adapter",
    f"{PHA}.test_a_wrong_vector_and_a_wrong_prototype_are_caught": "and a vector, a cosine or a prototype of another",
    f"{TASK}.test_a_swapped_route_is_caught": "and a route of another text",
    f"{HYPER}.test_recording_changes_nothing_and_leaves_nothing": "outputs are bit-identical, no hook is left",
    f"{PHA}.test_recording_changes_nothing_and_leaves_nothing": "the same (PHA)",
    f"{TASK}.test_recording_changes_nothing_and_leaves_nothing": "the same (Task-level MoE)",
}
