"""The kernels of `hooks.kernels` in Triton; imported only where there is a GPU."""

import triton
import triton.language as tl

__all__ = ["nll_kernel", "rank_kernel"]


@triton.jit
def rank_kernel(  # noqa: D417 - pointers, sizes, row strides, then what is known when compiling
    ids,
    weights,
    logits,
    scores,
    experts_out,
    scores_out,
    weights_out,
    logits_out,
    finite_out,
    n_rows,
    n_experts,
    ids_stride,
    weights_stride,
    logits_stride,
    scores_stride,
    experts_out_stride,
    scores_out_stride,
    weights_out_stride,
    logits_out_stride,
    finite_out_stride,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    N_RUNNERS: tl.constexpr,
    E_PAD: tl.constexpr,
    BLOCK: tl.constexpr,
    KNOWN: tl.constexpr,
    KEEPS_SCORES: tl.constexpr,
    KEEPS_LOGITS: tl.constexpr,
):
    """Rank, pick the runners-up, cast and pack: one program for a block of rows of one router."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = rows < n_rows
    experts = tl.arange(0, E_PAD)
    there = live[:, None] & (experts < n_experts)[None, :]

    logit = tl.load(logits + rows[:, None] * logits_stride + experts[None, :], mask=there, other=0.0)
    if KEEPS_LOGITS:
        kept = logit.to(logits_out.dtype.element_ty)
        tl.store(logits_out + rows[:, None] * logits_out_stride + experts[None, :], kept, mask=there)
        total = tl.sum(kept.to(tl.float32), 1)
    else:
        total = tl.sum(logit.to(tl.float32), 1)
    # Not a number differs from itself; infinity is beyond the largest finite float32.
    finite = (total == total) & (tl.abs(total) <= 3.4028234e38)
    tl.store(finite_out + rows * finite_out_stride, finite.to(tl.uint8), mask=live)

    slots = tl.arange(0, K_PAD)
    taken = live[:, None] & (slots < K)[None, :]
    chosen = tl.load(ids + rows[:, None] * ids_stride + slots[None, :], mask=taken, other=0)
    weight = tl.load(weights + rows[:, None] * weights_stride + slots[None, :], mask=taken, other=0.0).to(tl.float32)
    # The rank of a slot is how many slots come before it: heavier ones, and equal ones on its left.
    mine, other = weight[:, :, None], weight[:, None, :]
    heavier = (other > mine) | ((other == mine) & (slots[None, None, :] < slots[None, :, None]))
    rank = tl.sum((heavier & (slots < K)[None, None, :]).to(tl.int32), 2)
    tl.store(
        experts_out + rows[:, None] * experts_out_stride + rank,
        chosen.to(experts_out.dtype.element_ty),
        mask=taken,
    )
    if KEEPS_SCORES:
        tl.store(weights_out + rows[:, None] * weights_out_stride + rank, weight.to(tl.float16), mask=taken)

    absent = tl.full((BLOCK,), -1, tl.int32)
    if KNOWN:
        score = tl.load(scores + rows[:, None] * scores_stride + experts[None, :], mask=there, other=float("-inf")).to(
            tl.float32
        )
        if KEEPS_SCORES:
            # Ids from the block above, so that no thread reads what another has yet to write.
            of_chosen = tl.load(scores + rows[:, None] * scores_stride + chosen, mask=taken, other=0.0)
            tl.store(scores_out + rows[:, None] * scores_out_stride + rank, of_chosen.to(tl.float16), mask=taken)
        for slot in tl.static_range(K):
            gone = tl.sum(tl.where(slots[None, :] == slot, chosen, 0), 1)
            score = tl.where(experts[None, :] == gone[:, None], float("-inf"), score)
        for runner in tl.static_range(N_RUNNERS):
            best = tl.max(score, 1)
            place = tl.argmax(score, 1)
            possible = best > float("-inf")
            tl.store(
                experts_out + rows * experts_out_stride + K + runner,
                tl.where(possible, place, absent).to(experts_out.dtype.element_ty),
                mask=live,
            )
            if KEEPS_SCORES:
                tl.store(
                    scores_out + rows * scores_out_stride + K + runner,
                    tl.where(possible, best, float("nan")).to(tl.float16),
                    mask=live,
                )
            score = tl.where(experts[None, :] == place[:, None], float("-inf"), score)
    else:
        nothing = tl.full((BLOCK,), float("nan"), tl.float16)
        for runner in tl.static_range(N_RUNNERS):
            tl.store(
                experts_out + rows * experts_out_stride + K + runner,
                absent.to(experts_out.dtype.element_ty),
                mask=live,
            )
        if KEEPS_SCORES:
            for place in tl.static_range(K + N_RUNNERS):
                tl.store(scores_out + rows * scores_out_stride + place, nothing, mask=live)


@triton.jit
def nll_kernel(
    logits,
    ids,
    out,
    n_columns,
    logits_batch_stride,
    logits_column_stride,
    ids_batch_stride,
    ids_column_stride,
    out_batch_stride,
    out_column_stride,
    N_VOCABULARY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Log-sum-exp over the vocabulary, as it is read once, less the token's own logit: one program a token."""
    token = tl.program_id(0).to(tl.int64)
    row, column = token // n_columns, token % n_columns
    base = logits + row * logits_batch_stride + column * logits_column_stride
    highest = tl.full((1,), float("-inf"), tl.float32)
    total = tl.zeros((1,), tl.float32)
    for start in range(0, N_VOCABULARY, BLOCK):
        place = start + tl.arange(0, BLOCK)
        values = tl.load(base + place, mask=place < N_VOCABULARY, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(values, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(values - higher), 0)
        highest = higher
    wanted = tl.load(ids + row * ids_batch_stride + column * ids_column_stride).to(tl.int64)
    wanted = tl.minimum(tl.maximum(wanted, 0), N_VOCABULARY - 1)
    nll = highest + tl.log(total) - tl.load(base + wanted).to(tl.float32)
    place = out + row * out_batch_stride + column * out_column_stride
    tl.store(place + tl.arange(0, 1), tl.where(nll < 0, 0.0, nll))
