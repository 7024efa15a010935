"""Models and their tokenizers, loaded by name or folder, without running anybody's code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from hooks.sites import find_sites
from moe_models.registry import MODEL_TYPES, register_model_types
from routing import RecordingError

__all__ = ["best_device", "load_model", "load_outline", "model_device"]

# In this order: a class that writes text is preferred to the bare model, which scores nothing.
_AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForImageTextToText",
    "AutoModelForMultimodalLM",
    "AutoModelForTokenClassification",
    "AutoModelForSequenceClassification",
    "AutoModelForMaskedLM",
    "AutoModel",
)


def load_model(
    name_or_folder: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, Any]:
    """A model in evaluation mode and its tokenizer.

    Weights are read from safetensors only: pickled weights run code when they are opened. The router search runs on
    a skeleton without weights first, so a model without experts is refused before anything large is read.

    Args:
        name_or_folder: a local folder, or a name on the Hugging Face hub.
        dtype: "auto" takes the checkpoint's own precision on an accelerator and float32 on a CPU, where half
            precision is emulated and slower.
        device: "auto" takes the first CUDA device, then Apple's, then the CPU. Unused with `device_map`.
        device_map: spreads the model over devices, as in transformers.
        revision: branch, tag or commit on the hub.
        trust_remote_code: runs the model code of the repository itself. Off unless told.

    Raises:
        RecordingError: the folder, its weights or its tokenizer are missing, or the model has no experts.
    """
    name = os.fspath(name_or_folder)
    _require_folder_or_hub_name(name)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = _loaded_config(name, hub)
    auto_class = _auto_class(config)
    if (skeleton := _skeleton(auto_class, config, trust_remote_code=trust_remote_code)) is not None:
        find_sites(skeleton)
    chosen = torch.device(best_device() if device == "auto" else device)
    options: dict[str, Any] = {**hub, "use_safetensors": True}
    options["dtype"] = _dtype(dtype, chosen if device_map is None else None)
    if device_map is not None:
        options["device_map"] = device_map
    try:
        model = auto_class.from_pretrained(name, config=config, **options)
    except (OSError, ValueError, SafetensorError) as error:
        msg = (
            f"The weights of {name} cannot be read from safetensors files: {_first_sentence(error)}. "
            "Pickled weights (pytorch_model.bin) are not opened, as they can run code; convert them to safetensors, "
            "or name a revision that holds them."
        )
        raise RecordingError(msg) from error
    if device_map is None:
        model = model.to(chosen)
    return model.eval(), _loaded_tokenizer(name, hub)


def load_outline(
    name_or_folder: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel | None, Any]:
    """A model without its weights, and its tokenizer: what can be asked before anything large is read.

    Args:
        name_or_folder: a local folder, or a name on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: runs the model code of the repository itself. Off unless told.

    Returns:
        the model on the meta device, None where its class cannot be built without weights, and the tokenizer.

    Raises:
        RecordingError: as `load_model` says, of all that shows without the weights.
    """
    name = os.fspath(name_or_folder)
    _require_folder_or_hub_name(name)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = _loaded_config(name, hub)
    skeleton = _skeleton(_auto_class(config), config, trust_remote_code=trust_remote_code)
    if skeleton is not None:
        find_sites(skeleton)
    if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
        msg = (
            f"The folder {name} holds no safetensors files, so the model has no weights that can be read. "
            "Copy them there; pickled weights (pytorch_model.bin) are not opened, as they can run code."
        )
        raise RecordingError(msg)
    return skeleton, _loaded_tokenizer(name, hub)


def model_device(model: torch.nn.Module) -> torch.device:
    """The device that a batch is to be put on: that of the model's first parameter that lies somewhere."""
    for parameter in model.parameters():
        if parameter.device.type != "meta":
            return parameter.device
    return torch.device("cpu")


def _require_folder_or_hub_name(name: str) -> None:
    folder = Path(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            msg = (
                f"The folder {name} holds no config.json, so it is no transformers model. "
                "Give the folder that holds config.json, the safetensors files and the tokenizer."
            )
            raise RecordingError(msg)
    elif folder.exists() or looks_local or folder.parent.is_dir() and folder.parent != Path("."):
        msg = (
            f"There is no model folder {name}. "
            "Give the path of a folder that holds config.json, or a name on the Hugging Face hub."
        )
        raise RecordingError(msg)


def _loaded_config(name: str, hub: dict[str, Any]) -> PretrainedConfig:
    try:
        stored, _ = PretrainedConfig.get_config_dict(name, revision=hub["revision"])
        if stored.get("model_type") in MODEL_TYPES:
            register_model_types()
        return AutoConfig.from_pretrained(name, **hub)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            msg = (
                f"{name} brings model code of its own, which is not run unless you ask for it. "
                "Read that code, and pass trust_remote_code (--trust-remote-code) if you trust it."
            )
        elif "couldn't connect" in str(error):
            msg = (
                f"The model hub cannot be reached from this machine, which holds no copy of {name} either. "
                "Give the path of a model folder, or check the network."
            )
        else:
            msg = (
                f"The configuration of {name} cannot be read: {_first_sentence(error)}. "
                "Check the name, the network, and that the installed transformers "
                f"({transformers.__version__}) knows this model."
            )
        raise RecordingError(msg) from error


def _auto_class(config: PretrainedConfig) -> Any:
    """The auto class that builds the architecture which the config names, or else the first that knows the config."""
    remote = getattr(config, "auto_map", None) or {}
    for name in _AUTO_CLASSES:
        if name in remote:
            return getattr(transformers, name)
    known = []
    for name in _AUTO_CLASSES:
        auto_class = getattr(transformers, name, None)
        if auto_class is not None and type(config) in auto_class._model_mapping:
            known.append(auto_class)
    wanted = set(config.architectures or ())
    for auto_class in known:
        mapped = auto_class._model_mapping[type(config)]
        classes = mapped if isinstance(mapped, tuple) else (mapped,)
        if wanted & {each.__name__ for each in classes}:
            return auto_class
    if not known:
        msg = (
            f"No model class of transformers {transformers.__version__} takes a {type(config).__name__}. "
            "Load the model yourself and hand it to Recorder."
        )
        raise RecordingError(msg)
    return known[0]


def _skeleton(auto_class: Any, config: PretrainedConfig, *, trust_remote_code: bool) -> PreTrainedModel | None:
    try:
        with torch.device("meta"):
            skeleton: PreTrainedModel = auto_class.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:  # noqa: BLE001 - a class that cannot be built without weights is looked at once they are here
        return None
    return skeleton


def _loaded_tokenizer(name: str, hub: dict[str, Any]) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **hub)
        # Without its files some classes are made with an empty vocabulary, and turn every text into nothing.
        written = tokenizer.decode(tokenizer("The answer is 42.")["input_ids"], skip_special_tokens=True)
        problem = None if any(each.isalnum() for each in written) else f"its {len(tokenizer)} pieces write no text"
        cause = None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        problem, cause = _first_sentence(error), error
    if problem is not None:
        msg = (
            f"The model {name} comes without a tokenizer that can be used: {problem}. "
            "Put tokenizer.json and tokenizer_config.json beside the weights, "
            "or load a tokenizer yourself and hand both to Recorder."
        )
        raise RecordingError(msg) from cause
    if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
        # Only to fill batches: padding is masked, and masked rows are never recorded.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def best_device() -> str:
    """The device that "auto" takes: the first CUDA device, then Apple's, then the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(dtype: str | torch.dtype, device: torch.device | None) -> str | torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device is not None and device.type == "cpu" else "auto"
    named = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(dtype, dtype)
    found = getattr(torch, named, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        msg = f"There is no floating-point type {dtype!r}. Use auto, float32, bfloat16 or float16."
        raise RecordingError(msg)
    return found


def _first_sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text.split(". ", 1)[0].rstrip(".")[:300] or type(error).__name__
