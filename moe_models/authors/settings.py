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
