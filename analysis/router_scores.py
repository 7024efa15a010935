"""What a router thought of every expert, from its logits.

Legend: T token, E expert, C code of a 16-bit float.
"""

from __future__ import annotations

import numpy as np

from routing.facts import LayerFacts

__all__ = ["has_known_scores", "score_distribution", "score_table"]

_AS_SOFTMAX = ("softmax", "softmax_of_top_k")
_POSITIVE = ("sigmoid", "sqrt_softplus")


def has_known_scores(facts: LayerFacts) -> bool:
    """Whether it is known how this router turns logits into scores."""
    return facts.score_function in (*_AS_SOFTMAX, *_POSITIVE)


def score_distribution(logits_TE: np.ndarray, *, facts: LayerFacts) -> np.ndarray:
    """Scores of all experts of a layer, each row divided by its sum; without the selection bias.

    A router that takes the softmax of its top k ranks by the same softmax over all. Scores of a sigmoid need not sum
    to one, so they are divided by their sum to be read as a distribution.

    Returns:
        (T, E) · share · 0 to 1, each row summing to 1; NaN where the layer did not route the token or the router's
        score function is not known.
    """
    logits_TE = logits_TE[:, : facts.n_experts].astype(np.float32)
    if not has_known_scores(facts):
        return np.full(logits_TE.shape, np.nan, dtype=np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if facts.score_function in _AS_SOFTMAX:
            scores_TE = np.exp(logits_TE - logits_TE.max(axis=-1, keepdims=True))
        elif facts.score_function == "sigmoid":
            scores_TE = 1 / (1 + np.exp(-logits_TE))
        else:
            scores_TE = np.sqrt(np.logaddexp(0, logits_TE))
        return scores_TE / scores_TE.sum(axis=-1, keepdims=True)


def score_table(values_C: np.ndarray, *, score_function: str) -> tuple[np.ndarray, np.ndarray]:
    """Score s and s ln s of every possible logit; a row of them, summed, gives the entropy of the row.

    Returns:
        (C) and (C) · score · 0 and up; NaN of what is no number.
    """
    # Half of the codes of NaN signal; their tables hold NaN like the rest.
    with np.errstate(invalid="ignore"):
        # Beyond this an exponential overflows; such a logit has all the weight already.
        values_C = np.clip(values_C, -300, 300)
        if score_function in _AS_SOFTMAX:
            log_C = values_C
        elif score_function == "sigmoid":
            log_C = -np.logaddexp(0, -values_C)
        else:
            log_C = np.log(np.maximum(np.logaddexp(0, values_C), 1e-300)) / 2
        scores_C = np.exp(log_C)
        return scores_C, scores_C * log_C
