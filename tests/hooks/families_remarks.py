"""What docs/families.md says beside its table."""

from __future__ import annotations

# case, what happens, shown by
CASES = (
    (
        "experts `eager`, `grouped_mm`, `batched_mm`",
        "the same readings",
        "test_taps.py",
    ),
    (
        "MXFP4 weights (GPT-OSS)",
        "read at the block, proven by a replay through the kernel; kernels written in torch, on a CPU",
        "test_mxfp4.py",
    ),
    (
        "MegaBlocks and other kernels that replace a block",
        "refused, naming the block: its inner modules stay silent",
        "test_mxfp4.py",
    ),
    (
        "expert parallelism that renumbers the experts",
        "refused, naming the router: the replay does not come out",
        "test_taps.py",
    ),
    (
        "DDP, adapters around the experts, offloading to disk",
        "the same readings and module names",
        "test_taps.py",
    ),
    (
        "gradient checkpointing, reentrant or not",
        "a layer computed again in backward is not read again",
        "test_taps.py",
    ),
    (
        "`torch.compile`",
        "one graph, also `fullgraph`, if the receiver copies into memory of its own; compiled "
        "again when hooks come or go",
        "test_compile.py",
    ),
    (
        "image tokens",
        "rows of the text routers, or of a pool of their own (ERNIE-VL)",
        "test_image_tokens.py",
    ),
    (
        "capacity",
        "dropped assignments keep their expert, with weight 0",
        "test_capacity.py",
    ),
)

# family, version, defect
DEFECTS = (
    (
        "nllb_moe",
        "both",
        "The experts module takes the router's 0/1 mask for expert numbers: experts 0 and 1 run "
        "on everything (test_poison, test_capacity.py).",
    ),
    (
        "switch_transformers",
        "5.17",
        'Capacity is counted along an axis of size one: nothing is ever dropped; the "logits" '
        "returned are the winning probabilities (test_capacity.py).",
    ),
    (
        "doge",
        "5.23",
        "Router scores are reshaped across tokens: not causal, and dependent on the batch (test_library_defects.py).",
    ),
    (
        "doge",
        "5.17",
        "Cannot run with experts: its decoder hands a tuple to dropout.",
    ),
    (
        "longcat_flash",
        "both",
        "Cannot run with top-1 (test_library_defects.py); replays use a second rank of weight 0.",
    ),
    (
        "dbrx",
        "both",
        "Cannot run with `clip_qkv=None`, its default (test_library_defects.py).",
    ),
    (
        "inkling2",
        "5.23",
        "The router cannot run in bfloat16 after a plain cast (test_library_defects.py).",
    ),
    (
        "gemma4, diffusion_gemma",
        "both",
        "The router returns probabilities where others return logits (test_exceptions.py).",
    ),
    (
        "zaya",
        "both",
        "A skipped token runs through expert 0 with weight 0 (test_poison); the skip is erased "
        "from what the experts are handed.",
    ),
    (
        "deepseek_v4",
        "both",
        "`output_router_logits` leaves out the layers that choose by a table (test_library_defects.py).",
    ),
    (
        "jetmoe",
        "both",
        "`output_router_logits` returns each attention router twice (test_library_defects.py).",
    ),
)
