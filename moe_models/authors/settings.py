"""What shapes cannot tell: the entries of config.json that a model needs, checked against the weights."""

from __future__ import annotations

from collections.abc import Mapping

from moe_models.authors.errors import AuthorsFileError, listed

BOOKKEEPING = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}


def checked_settings(
    config: Mapping[str, object], *, measured: Mapping[str, object], told: Mapping[str, object]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The settings of a model under the names of the authors' config.json, and what there is to say about them.

    Args:
        config: config.json as written, or nothing.
        measured: what the weights themselves say.
        told: what only config.json can say, with the default of the authors' code.

    Raises:
        AuthorsFileError: config.json contradicts the weights.
    """
    wrong = [f"{name} {config[name]!r}" for name, value in measured.items() if config.get(name, value) != value]
    if wrong:
        true = listed([f"{name} {value!r}" for name, value in measured.items() if config.get(name, value) != value])
        msg = (
            f"config.json says {listed(wrong)}, but the weights have {true}. "
            "Give the config.json that was saved with these weights."
        )
        raise AuthorsFileError(msg)
    sentences = []
    if assumed := [f"{name} = {value!r}" for name, value in told.items() if name not in config]:
        sentences.append(
            f"config.json does not say {', '.join(assumed)}: the defaults of the authors' code were taken."
        )
    if idle := sorted(config.keys() - measured.keys() - told.keys() - BOOKKEEPING):
        sentences.append(f"Entries of config.json that were not used: {', '.join(idle)}.")
    return {**measured, **{name: config.get(name, value) for name, value in told.items()}}, tuple(sentences)


def t5_sizes(dims: Mapping[str, int]) -> dict[str, object]:
    """Sizes of a T5, which PHA and Switch are both made of, as config.json calls them, from those of the weights."""
    return {
        "vocab_size": dims["vocabulary"],
        "d_model": dims["hidden"],
        "d_kv": dims["inner"] // dims["heads"],
        "d_ff": dims["ff"],
        "num_heads": dims["heads"],
        "num_layers": dims["encoder_layers"],
        "num_decoder_layers": dims["decoder_layers"],
        "relative_attention_num_buckets": dims["position_buckets"],
    }
