"""On a GPU: the fused kernels, and a record that arrives while the model runs on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hooks import Recorder
from hooks.kernels import fused_nll, fused_ranking
from hooks.likelihood import _plain_nll
from hooks.ranking import ranking
from routing import open_trace, verify_trace
from tests.hooks.system_runs import batch_of, prompts_of
from tests.tiny import tiny_model
from tests.tiny_systems import SYSTEMS, tiny_system

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; runs where there is one")


@pytest.mark.parametrize(
    "n_tokens, n_experts, top_k, n_runners_up, kept",
    [
        (1000, 64, 8, 4, torch.bfloat16),
        (7, 8, 2, 6, torch.float16),
        (33, 300, 6, 4, torch.bfloat16),
        (5, 8, 1, 0, None),
    ],
)
def test_the_fused_ranking_is_the_plain_one(
    n_tokens: int, n_experts: int, top_k: int, n_runners_up: int, kept: torch.dtype | None
) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    logits = torch.randn((n_tokens, n_experts), device="cuda", generator=generator).bfloat16()
    scores = logits.float().softmax(-1)
    scores[:, n_experts // 2 :] *= 0.999  # breaks the ties that bfloat16 makes, between halves
    scores += torch.arange(n_experts, device="cuda") * 1e-6
    weights, ids = scores.topk(top_k, sorted=False)
    id_type = torch.uint8 if n_experts < 256 else torch.int16
    shape = (n_tokens, 3)
    arrays = {
        "experts": torch.zeros((*shape, top_k + n_runners_up), dtype=id_type, device="cuda"),
        "finite": torch.zeros(shape, dtype=torch.bool, device="cuda"),
        "scores": torch.zeros((*shape, top_k + n_runners_up), dtype=torch.float16, device="cuda"),
        "weights": torch.zeros((*shape, top_k), dtype=torch.float16, device="cuda"),
    }
    if kept is not None:
        arrays["logits"] = torch.zeros((*shape, n_experts), dtype=kept, device="cuda")
    logits[1, 0] = torch.nan
    for known in (scores, None):
        into = {name: array[:, 1] for name, array in arrays.items()}
        fused_ranking(ids, weights, logits, scores_TE=known, into=into)
        plain = ranking(ids, weights, scores_TE=known, dropped_TK=None, n_runners_up=n_runners_up)
        assert torch.equal(into["experts"], plain.experts.to(id_type))
        torch.testing.assert_close(into["scores"], plain.scores.half(), rtol=0, atol=0, equal_nan=True)
        assert torch.equal(into["weights"], plain.weights.half())
        assert (~into["finite"]).nonzero().tolist() == [[1]]
        if kept is not None:
            torch.testing.assert_close(into["logits"], logits.to(kept), rtol=0, atol=0, equal_nan=True)
        for array in arrays.values():
            assert not array[:, (0, 2)].any()  # nothing beside its own layer


def test_the_fused_likelihood_is_the_plain_one() -> None:
    logits = torch.randn((3, 5, 50304), device="cuda").mul(4).bfloat16()
    ids = torch.randint(0, 50304, (3, 4), device="cuda", dtype=torch.int32)
    nll = torch.zeros((3, 5), device="cuda")
    fused_nll(logits[:, :-1], ids, into=nll[:, 1:])
    torch.testing.assert_close(nll[:, 1:], _plain_nll(logits[:, :-1], ids), rtol=1e-4, atol=1e-4)
    assert not nll[:, 0].any()


@pytest.mark.parametrize("family", ["olmoe", "deepseek_v3", "gpt_oss", "switch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_arrives_is_what_the_routers_gave(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(family).to("cuda", dtype)
    batches = [torch.randint(4, 250, (6, 40), device="cuda") for _ in range(8)]
    more = {"decoder_input_ids": batches[0][:, :9]} if family == "switch" else {}
    seen: dict[str, list[torch.Tensor]] = {}

    def look(name: str, ids: torch.Tensor) -> None:
        if ids.shape[-1] > 1:  # the proof asks one expert at a time
            seen.setdefault(name, []).append(ids.detach().clone())

    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: look(name.removesuffix(".experts"), args[1]))
        for name, module in model.named_modules()
        if name.endswith("mlp.experts")
    ]
    with torch.no_grad():
        plain = [model(ids, **more).logits for ids in batches]
        seen.clear()
        with Recorder(model, out=tmp_path / "trace"):
            during = [model(ids, **more).logits for ids in batches]
    for handle in handles:
        handle.remove()
    assert all(torch.equal(one, other) for one, other in zip(plain, during, strict=True))
    trace = open_trace(tmp_path / "trace")
    assert verify_trace(trace.path) == []
    stacks = trace.tokens["stack"].to_numpy()
    for layer, facts in enumerate(trace.layer_facts):
        mine = trace.experts.values[stacks == facts.stack, layer, : facts.top_k].astype(np.int64)
        given = torch.cat(seen[facts.module]) if facts.module in seen and family != "switch" else None
        if given is not None:
            np.testing.assert_array_equal(np.sort(mine), given.sort(-1).values.cpu().numpy())


def test_generation_on_the_gpu_is_recorded_like_a_forward(tmp_path: Path) -> None:
    model = tiny_model().cuda()
    ids = torch.randint(4, 250, (5, 12), device="cuda")
    with Recorder(model, out=tmp_path / "generated"):
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=70, do_sample=False, eos_token_id=None
        )
    with torch.no_grad(), Recorder(model, out=tmp_path / "forced"):
        model(written[:, :-1])
    one, other = open_trace(tmp_path / "generated"), open_trace(tmp_path / "forced")
    order = one.tokens.sort_values(["prompt", "position"]).index
    agree = (one.experts.values[order][:, :, :2] == other.experts.values[:, :, :2]).mean()
    assert one.n_tokens == other.n_tokens
    assert agree > 0.99  # kernels of one row and of many differ in the last bit
    np.testing.assert_array_equal(one.tokens["token_id"].to_numpy()[order], other.tokens["token_id"])


@pytest.mark.parametrize("system", SYSTEMS)
def test_our_systems_are_recorded_as_on_a_cpu(system: str, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        model = tiny_system(system).to(device)
        batch = {name: value.to(device) for name, value in batch_of(model).items()}
        with torch.no_grad(), Recorder(model, out=tmp_path / device) as recorder:
            with recorder.labelled(prompts_of()):
                model(**batch)
    one, other = (open_trace(tmp_path / device) for device in ("cpu", "cuda"))
    assert verify_trace(other.path) == []
    assert other.provenance.self_check == one.provenance.self_check
    np.testing.assert_array_equal(other.experts.values[..., : one.top_k], one.experts.values[..., : one.top_k])
    assert set(other.vectors) == set(one.vectors)
    for name, table in one.vectors.items():
        np.testing.assert_allclose(other.vectors[name].values, table.values, rtol=2e-3, atol=2e-4)
    if one.adapters is not None:
        ratios = (each.adapter_ratio.values.astype(float) for each in (other, one))
        np.testing.assert_allclose(*ratios, rtol=1e-2)
        tables = [each.adapters.table[["site", "key", "n_uses"]].sort_values(["site", "key"]) for each in (one, other)]
        assert tables[0].to_numpy().tolist() == tables[1].to_numpy().tolist()
