"""State dicts are told apart by keys and shapes, measured, and refused where they are not whole."""

import pytest
import torch

from moe_models.authors import AuthorsFileError, recognize
from tests.authors_dicts import gpt2_dict, pha_dict, router_shapes, switch_dict, task_moe_dict, without

HYPER = {"expert_embedding": 5, "process": 7, "hypernetwork_input": 6, "layer_embedding": 3, "bottleneck": 9}
TEXT_TO_TEXT = {"hidden": 16, "ff": 20, "inner": 12, "heads": 2, "position_buckets": 32, "vocabulary": 40}
ROUTERS = [
    f"{kind}{ending}" for kind in ("linear", "rnn", "gru", "lstm", "transformer") for ending in ("", "_layer_specific")
]

FORMS = {
    ("HyperMoE", "switch"): (
        switch_dict(),
        TEXT_TO_TEXT | HYPER | {"n_experts": 4, "adapter": 8, "encoder_layers": 4, "decoder_layers": 2},
        ("enc01", "enc03", "dec01"),
    ),
    ("HyperMoE", "switch baseline"): (
        switch_dict(hyper=False),
        TEXT_TO_TEXT | {"n_experts": 4, "encoder_layers": 4, "decoder_layers": 2},
        ("enc01", "enc03", "dec01"),
    ),
    ("HyperMoE", "gpt2"): (
        gpt2_dict(),
        HYPER | {"hidden": 16, "ff": 20, "vocabulary": 40, "positions": 12, "n_experts": 4, "adapter": 8, "layers": 2},
        ("L00", "L01"),
    ),
    ("HyperMoE", "gpt2 baseline"): (
        gpt2_dict(hyper=False),
        {"hidden": 16, "ff": 20, "vocabulary": 40, "positions": 12, "n_experts": 4, "layers": 2},
        ("L00", "L01"),
    ),
    ("PHA", "t5"): (
        pha_dict(),
        TEXT_TO_TEXT
        | {"encoder_layers": 2, "decoder_layers": 3, "n_tasks": 3, "prototype": 4, "retriever": 10}
        | {"adapter": 8, "encoder_adapter": 5},
        ("dec00", "dec01", "dec02"),
    ),
    ("Task-level MoE", "v2"): (
        task_moe_dict(unrouted=(1,)),
        {"hidden": 16, "vocabulary": 40, "encoder_ff": 20, "decoder_ff": 20, "position_rows": 26, "n_experts": 3}
        | {"encoder_layers": 2, "decoder_layers": 2, "layers": 4, "task_embedding": 8, "router_hidden": 6},
        ("enc00", "dec00"),
    ),
    ("Task-level MoE", "v1"): (
        task_moe_dict(kind="v1"),
        {"hidden": 16, "vocabulary": 40, "encoder_ff": 20, "decoder_ff": 20, "position_rows": 26, "n_experts": 3}
        | {"encoder_layers": 2, "decoder_layers": 2, "layers": 4, "task_embedding": 8, "router_hidden": 6},
        ("enc00", "enc01", "dec00", "dec01"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("named", FORMS, ids=" ".join)
def test_every_form_is_told_and_measured(named):
    tensors, dims, layers = FORMS[named]
    found = recognize(tensors)
    assert (found.system, found.form) == named
    assert found.dims == dims
    assert found.layers == layers
    assert found.not_understood == ()
    assert recognize({key: tuple(value.shape) for key, value in tensors.items()}) == found


@pytest.mark.parametrize("kind", ROUTERS)
def test_every_kind_of_router_is_told(kind):
    assert recognize(task_moe_dict(kind=kind)).router == kind


@pytest.mark.parametrize("named", FORMS, ids=" ".join)
def test_no_needed_key_can_be_missing(named):
    tensors = FORMS[named][0]
    idle = {key for keys in recognize(tensors).unused.values() for key in keys}
    repeated = {key for key in tensors if key.endswith(("embed_tokens.weight", "lm_head.weight"))}
    for key in [key for key in tensors if key not in idle | repeated][::3]:
        with pytest.raises(AuthorsFileError):
            recognize({name: value for name, value in tensors.items() if name != key})
    left = {key: value for key, value in tensors.items() if key not in idle | repeated}
    assert recognize(left).dims == recognize(tensors).dims


@pytest.mark.parametrize("named", FORMS, ids=" ".join)
def test_keys_of_no_part_are_named(named):
    tensors = FORMS[named][0] | {"encoder.block.0.novelty": torch.zeros(2), "ema.decay": torch.zeros(())}
    found = recognize(tensors)
    assert found.not_understood == ("encoder.block.0.novelty", "ema.decay")
    assert "Weights not understood and left out: encoder.block.0.novelty, ema.decay." in found.sentences()


def test_weights_the_authors_code_never_runs_are_named_with_the_reason():
    found = recognize(
        switch_dict() | {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (32, 2)}
    )
    assert sum("adapter_down_manual.weight" in key for keys in found.unused.values() for key in keys) == 3
    assert any("Weights left out: 12, since the adapter with weights of its own" in said for said in found.sentences())
    assert any("Weights left out: 1, since older T5 files" in said for said in found.sentences())
    assert any("only" in why and len(keys) == 6 for why, keys in recognize(gpt2_dict()).unused.items())
    assert any("decoder's own adapters" in why for why in recognize(pha_dict()).unused)


def test_the_generators_decoder_is_not_the_transformers():
    # Every key of the encoder's generator has ".decoder." in it; none may be read as a part of the decoder stack.
    tensors = {key: value for key, value in switch_dict().items() if not key.startswith("encoder.param_gen.decoder.")}
    with pytest.raises(AuthorsFileError, match=r"10 of its keys are missing: encoder\.param_gen\.decoder\."):
        recognize(tensors)


def test_a_dict_cut_off_names_what_is_missing():
    whole = switch_dict()
    with pytest.raises(AuthorsFileError, match=r"HyperMoE on Switch, but \d+ of its keys are missing: decoder\."):
        recognize({key: value for key, value in whole.items() if not key.startswith("decoder.")})
    with pytest.raises(AuthorsFileError, match=r"encoder\.block\.1\.layer\.0\.… is missing while encoder\.block\.3"):
        recognize({key: value for key, value in whole.items() if not key.startswith("encoder.block.1.layer.0.")})
    with pytest.raises(AuthorsFileError, match=r"expert_2\.… says 3"):
        recognize({key: value for key, value in whole.items() if ".expert_3." not in key})
    with pytest.raises(AuthorsFileError, match="instead of one feed-forward of the encoder at layer 2"):
        recognize({key: value for key, value in whole.items() if ".block.2.layer.1.mlp" not in key})
    with pytest.raises(AuthorsFileError, match="layers with experts are"):
        recognize({key: value for key, value in whole.items() if "encoder.block.3.layer.1.mlp.experts" not in key})


def test_shapes_that_disagree_are_refused_by_name():
    key = "encoder.param_gen.decoder.weight_up.weight"
    with pytest.raises(AuthorsFileError, match=rf"{key} has 99 where hidden\*adapter = 128"):
        recognize(switch_dict() | {key: (99, 9)})
    with pytest.raises(AuthorsFileError, match="says that hidden is 18, but"):
        recognize(pha_dict() | {"encoder.final_layer_norm.weight": (18,)})
    with pytest.raises(AuthorsFileError, match="should have 2 dimensions"):
        recognize(pha_dict() | {"decoder.adapter_task_embedding.weight": (12,)})
    router = {f"router.model.{name}": shape for name, shape in router_shapes("linear", 3).items()}
    with pytest.raises(AuthorsFileError, match=r"linear2.\w+ has 9 where layers\*n_experts = 12"):
        recognize(task_moe_dict(kind="linear") | router)


def test_routers_of_no_known_kind_are_refused():
    bare = {key: value for key, value in task_moe_dict().items() if not key.startswith("router.")}
    with pytest.raises(AuthorsFileError, match="router of an unknown kind: router.model.mystery"):
        recognize(bare | {"router.model.mystery": torch.zeros(3)})
    gates = {key: (12, *value.shape[1:]) for key, value in task_moe_dict(kind="rnn").items() if ".rnn." in key}
    with pytest.raises(AuthorsFileError, match="has 2 gates"):
        recognize(task_moe_dict(kind="rnn") | gates)
    with pytest.raises(AuthorsFileError, match="no system known here"):
        recognize(bare)


def test_strangers_and_relatives_are_refused():
    with pytest.raises(AuthorsFileError, match="is empty"):
        recognize({})
    with pytest.raises(AuthorsFileError, match="3 keys are of no system known here; they begin with a, b, c"):
        recognize({"a": (1,), "b": (2,), "c": (3,)})
    with pytest.raises(AuthorsFileError, match="Hyperdecoders or another relative"):
        recognize(without(pha_dict(), "mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"))
