"""Every family, from the hooks to the disk: a sound trace, the same outputs, each token once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hooks import Recorder
from routing import open_trace, verify_trace
from tests.hooks.families import Family
from tests.hooks.family_table import FAMILIES
from tests.hooks.forwards import inputs_of, tensors_in
from tests.hooks.test_image_tokens import IS_IMAGE, ernie

NOT_WORDS = {"dots3_note_vision", "diffusion_gemma", "nllb_moe", "switch_transformers"}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_recorded_to_the_disk(family: Family, tmp_path: Path) -> None:
    if not family.runs:
        pytest.skip("the installed transformers does not ship it, or cannot run it")
    model = family.build()
    inputs = inputs_of(family, model)
    with torch.no_grad():
        # Some make noise: the same seed before each forward, so that outputs can be compared.
        outputs = []
        for recording in (False, True):
            torch.manual_seed(1)
            if recording:
                with Recorder(model, out=tmp_path / "trace"):
                    outputs.append(list(tensors_in(model(**inputs))))
            else:
                outputs.append(list(tensors_in(model(**inputs))))
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))
    assert verify_trace(tmp_path / "trace") == []
    trace = open_trace(tmp_path / "trace")
    assert {facts.proof for facts in trace.layer_facts} <= {family.proof, "none"}
    if family.name not in NOT_WORDS and "input_ids" in inputs:
        assert trace.n_tokens == int(inputs["attention_mask"].sum())
        assert trace.tokens["token_id"].tolist() == inputs["input_ids"][inputs["attention_mask"].bool()].tolist()


def test_pools_share_a_layer_and_may_wait_for_an_image(tmp_path: Path) -> None:
    model, inputs = ernie()
    words = {"input_ids": inputs["input_ids"].clamp(max=50), "attention_mask": inputs["attention_mask"]}
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        model(**words)
        model(**inputs)
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert trace.layers == ("L01", "L01vis", "L02", "L02vis")
    assert {facts.proof for facts in trace.layer_facts} == {"replay"}
    there = trace.experts.values[:, :, 0] != trace.absent
    n = IS_IMAGE.numel()
    np.testing.assert_array_equal(there[:n], np.array([[True, False, True, False]] * n))
    image = IS_IMAGE.flatten().numpy()[:, None]
    np.testing.assert_array_equal(there[n:], np.hstack([~image, image, ~image, image]))
