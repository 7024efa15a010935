"""A batch of tokens on its way into a trace, and what is refused at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from routing.chunks import ADAPTER_ARRAYS
from routing.errors import RecordingError
from routing.facts import LayerFacts
from routing.store.format import ArraySpec, to_bfloat16

__all__ = ["TokenBatch", "require_numbers", "stored_arrays"]

N_ELEMENTS_A_BLOCK = 1 << 16  # the temporary of one block stays in the cache
LARGEST_FINITE = {"bfloat16": 0x7F80, "float16": 0x7C00, "float32": 0x7F800000}


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Tokens that were routed, in the order in which they shall stand in the trace.

    Attributes:
        prompt: (T,) row of the prompt table.
        position: (T,) place in the prompt.
        token_id: (T,) entry of the vocabulary; -1 where unknown.
        phase: (T,) 0 read, 1 generated.
        stack: (T,) code along `TraceWriter.stacks`.
        nll: (T,) nats; NaN where unknown.
        experts: (T, L, R) ids in the trace's type, its largest value where absent.
        scores: (T, L, R) selection scores, NaN where absent.
        weights: (T, L, K) applied weights, NaN where absent.
        dropped: (T, L, K) or None.
        logits: (T, L, E), as uint16 codes where the trace keeps bfloat16; or None.
        adapter_index: (T, S), number of the adapter that each site applied, -1 where none; or None.
        adapter_ratio: (T, S), norm of what it added over the norm of what it was added to, NaN where none; or None.
    """

    prompt: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    phase: np.ndarray
    stack: np.ndarray
    nll: np.ndarray
    experts: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    dropped: np.ndarray | None = None
    logits: np.ndarray | None = None
    adapter_index: np.ndarray | None = None
    adapter_ratio: np.ndarray | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens in this batch."""
        return len(self.experts)


def stored_arrays(batch: TokenBatch, specs: Mapping[str, ArraySpec]) -> list[np.ndarray]:
    """The batch's arrays in the order of the specs, each contiguous and of the stored type.

    Raises:
        RecordingError: an array is missing, unexpected, or of another shape.
    """
    for name in ("dropped", "logits", *ADAPTER_ARRAYS):
        if getattr(batch, name) is not None and name not in specs:
            msg = (
                f"The batch holds {name}, but the trace was begun without. "
                "Give every batch the same arrays, from the first on."
            )
            raise RecordingError(msg)
    arrays = []
    for spec in specs.values():
        values = getattr(batch, spec.name)
        if values is None:
            msg = f"The batch lacks {spec.name}, which the trace was begun with. Give every batch the same arrays."
            raise RecordingError(msg)
        if values.shape != (batch.n_tokens, *spec.tail):
            msg = (
                f"The batch's {spec.name} have shape {tuple(values.shape)}, but the trace keeps "
                f"{(batch.n_tokens, *spec.tail)}. Shape the batch like the trace's layers and ranks."
            )
            raise RecordingError(msg)
        if spec.encoding == "bfloat16" and values.dtype.kind == "f":
            values = to_bfloat16(values)
        arrays.append(np.ascontiguousarray(values, dtype=spec.dtype))
    return arrays


def require_numbers(
    arrays: Mapping[str, np.ndarray],
    *,
    layer_facts: Sequence[LayerFacts],
    prompt_ids: Sequence[str],
    specs: Mapping[str, ArraySpec],
) -> None:
    """Refuse a batch in which a router's output is not a number, or that names unknown prompts.

    Raises:
        RecordingError: naming the layer and the prompt.
    """
    prompts = arrays["prompt"]
    if prompts.size and (prompts.min() < 0 or prompts.max() >= len(prompt_ids)):
        msg = (
            f"The batch names prompt {int(prompts.max())}, but the table has {len(prompt_ids)} prompts. "
            "Set the prompts before their tokens are appended."
        )
        raise RecordingError(msg)
    absent = np.iinfo(arrays["experts"].dtype).max
    for name in ("weights", "logits"):
        if name not in arrays:
            continue
        encoding = specs[name].encoding or arrays[name].dtype.name
        if not _holds_nan(arrays[name], encoding):
            continue
        # NaN also stands where a layer did not route a token or has fewer experts, so look closer.
        for layer, facts in enumerate(layer_facts):
            width = facts.top_k if name == "weights" else facts.n_experts
            routed = arrays["experts"][:, layer, 0] != absent
            wrong = routed & _is_nan(arrays[name][:, layer, :width], encoding).any(axis=1)
            if wrong.any():
                row = int(np.argmax(wrong))
                prompt, position = prompt_ids[int(prompts[row])], int(arrays["position"][row])
                msg = (
                    f"The router of layer {facts.label} gave NaN {name} for prompt {prompt!r}, position {position}; "
                    "numbers were expected. Check the checkpoint and the precision (bfloat16 or float32 "
                    "overflow less than float16)."
                )
                raise RecordingError(msg)


def _bits(values: np.ndarray) -> np.ndarray:
    return values.view(np.dtype(f"u{values.dtype.itemsize}"))


def _is_nan(values: np.ndarray, encoding: str) -> np.ndarray:
    largest = LARGEST_FINITE[encoding]
    bits = _bits(np.ascontiguousarray(values))
    result: np.ndarray = (bits & ((1 << (8 * bits.itemsize - 1)) - 1)) > largest
    return result


def _holds_nan(values: np.ndarray, encoding: str) -> bool:
    """Whether any value is NaN, at the speed of memory: integers, a block at a time."""
    largest = LARGEST_FINITE[encoding]
    bits = _bits(values).reshape(-1)
    without_sign = bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1)
    block = np.empty(min(bits.size, N_ELEMENTS_A_BLOCK), dtype=bits.dtype)
    for start in range(0, bits.size, N_ELEMENTS_A_BLOCK):
        part = bits[start : start + N_ELEMENTS_A_BLOCK]
        if np.bitwise_and(part, without_sign, out=block[: part.size]).max() > largest:
            return True
    return False
