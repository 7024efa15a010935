"""A recording holds exactly what the routers did, whatever the batch looked like, and leaves the model as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from hooks import Recorder
from routing import Prompt, RoutingTrace, open_trace, verify_trace
from tests.tiny import EOS, PAD, byte_tokenizer, tiny_model

FAMILIES = ("olmoe", "deepseek_v3", "gpt_oss")
TEXTS = ("a river", "the capital of France is", "x", "12 + 30 =")


def ids_of(text: str) -> list[int]:
    return byte_tokenizer()(text)["input_ids"]


def batch_of(texts: tuple[str, ...], *, side: str) -> dict[str, torch.Tensor]:
    rows = [ids_of(text) for text in texts]
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros((len(rows), width), dtype=torch.int64)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    places = (mask.cumsum(1) - 1).clamp_min(0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


def prompts_of(texts: tuple[str, ...]) -> list[Prompt]:
    return [Prompt(id=text, text=text) for text in texts]


def recorded(model: PreTrainedModel, out: Path, *, texts: tuple[str, ...] = TEXTS, side: str = "left") -> RoutingTrace:
    with torch.no_grad(), Recorder(model, byte_tokenizer(), out=out) as recorder, recorder.labelled(prompts_of(texts)):
        model(**batch_of(texts, side=side))
    return open_trace(out)


def by_place(trace: RoutingTrace) -> dict[tuple[str, str, int], tuple[int, np.ndarray, np.ndarray]]:
    """(prompt, stack, position) → token id, experts, weights."""
    names = trace.prompts["prompt"]
    experts, weights = trace.experts.values, trace.weights.values
    return {
        (names[row.prompt], row.stack, row.position): (row.token_id, experts[number], weights[number])
        for number, row in enumerate(trace.tokens.itertuples())
    }


def require_same(one: RoutingTrace, other: RoutingTrace) -> None:
    here, there = by_place(one), by_place(other)
    assert here.keys() == there.keys()
    for place, (token, experts, weights) in here.items():
        assert token == there[place][0]
        np.testing.assert_array_equal(experts[:, : one.top_k], there[place][1][:, : one.top_k])
        np.testing.assert_allclose(weights.astype(float), there[place][2].astype(float), atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_there_once_and_padding_is_not(family: str, tmp_path: Path) -> None:
    trace = recorded(tiny_model(family), tmp_path / "trace")
    assert verify_trace(trace.path) == []
    assert trace.n_tokens == sum(len(ids_of(text)) for text in TEXTS)
    for text in TEXTS:
        mine = trace.tokens[trace.tokens["prompt"] == trace.prompts["prompt"].tolist().index(text)]
        assert mine["token_id"].tolist() == ids_of(text)
        assert mine["position"].tolist() == list(range(len(ids_of(text))))
        assert (mine["phase"] == "prompt").all()
    assert trace.vocabulary[ids_of("F")[0]] == "F"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_on_the_disk_reproduces_the_output_of_the_experts(family: str, tmp_path: Path) -> None:
    # One text, no padding: rows of the trace are rows of the batch.
    model, text = tiny_model(family), ("the quick brown fox",)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(name: str, hidden: torch.Tensor, output: torch.Tensor) -> None:
        seen.setdefault(name, (hidden.clone(), output.clone()))

    for name, module in model.named_modules():
        if name.endswith("mlp.experts"):
            # A hook that returns something replaces the output.
            module.register_forward_hook(lambda _, args, output, name=name: look(name, args[0], output))
    trace = recorded(model, tmp_path / "trace", texts=text)
    for layer, facts in enumerate(trace.layer_facts):
        hidden, output = seen[f"{facts.module}.experts"]
        ids = torch.from_numpy(trace.experts.values[:, layer, : trace.top_k].astype(np.int64))
        weights = torch.from_numpy(trace.weights.values[:, layer].astype(np.float32))
        with torch.no_grad():
            replayed = model.get_submodule(f"{facts.module}.experts")(hidden, ids, weights)
        # Weights were stored in float16, whose steps are 1/1024 of a value.
        torch.testing.assert_close(replayed, output, rtol=4e-3, atol=4e-3 * float(output.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_rank_the_selected_before_the_runners_up(family: str, tmp_path: Path) -> None:
    trace = recorded(tiny_model(family), tmp_path / "trace")
    scores, experts = trace.scores.values.astype(float), trace.experts.values
    there = experts != trace.absent
    assert there[:, :, : trace.top_k + 1].all()
    worst, best = scores[:, :, : trace.top_k].min(-1), scores[:, :, trace.top_k]
    assert (worst >= best - 1e-3).all()
    if family == "olmoe":
        logits = torch.from_numpy(trace.logits.values.astype(np.float32))
        order = logits.argsort(-1, descending=True)[..., : trace.n_ranks]
        assert (torch.from_numpy(experts.astype(np.int64)) == order).float().mean() > 0.99  # ties after rounding


@pytest.mark.parametrize("family", FAMILIES)
def test_left_and_right_padding_give_the_same_record(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    left = recorded(model, tmp_path / "left", side="left")
    right = recorded(model, tmp_path / "right", side="right")
    require_same(left, right)


def test_a_text_is_routed_alike_in_any_company(tmp_path: Path) -> None:
    model = tiny_model()
    together = recorded(model, tmp_path / "together")
    with torch.no_grad(), Recorder(model, out=tmp_path / "alone") as recorder:
        for text in TEXTS:
            with recorder.labelled(prompts_of((text,))):
                model(**batch_of((text,), side="left"))
    require_same(together, open_trace(tmp_path / "alone"))


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_recorded_as_teacher_forcing_would(family: str, tmp_path: Path) -> None:
    model, batch = tiny_model(family), batch_of(TEXTS, side="left")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with Recorder(model, out=tmp_path / "generated") as recorder, recorder.labelled(prompts_of(TEXTS)):
        written = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=7, do_sample=False)
    generated = open_trace(tmp_path / "generated")
    # The last token is never fed back, and neither is anything from the end token on.
    whole = []
    for text, row in zip(TEXTS, written[:, ids.shape[1] :].tolist(), strict=True):
        kept = row[: row.index(EOS)] if EOS in row else row[:-1]
        whole.append((ids_of(text), kept))
    assert generated.n_tokens == sum(len(read) + len(kept) for read, kept in whole)
    with torch.no_grad(), Recorder(model, out=tmp_path / "forced") as recorder:
        for text, (read, kept) in zip(TEXTS, whole, strict=True):
            with recorder.labelled(prompts_of((text,)), n_prompt_tokens=[len(read)]):
                model(torch.tensor([read + kept]))
    forced = open_trace(tmp_path / "forced")
    require_same(generated, forced)
    phases = [each.tokens.sort_values(["prompt", "position"])["phase"].tolist() for each in (generated, forced)]
    assert phases[0] == phases[1]


def test_rows_of_a_batch_that_are_done_are_dropped(tmp_path: Path) -> None:
    model, batch = tiny_model(), batch_of(TEXTS, side="left")
    plain = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=8, do_sample=False
    )
    new = plain[:, batch["input_ids"].shape[1] :]
    stop = int(new[0, 2])  # declared the end token, it ends the first text after three tokens, and others elsewhere
    with Recorder(model, out=tmp_path / "trace") as recorder, recorder.labelled(prompts_of(TEXTS)):
        model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=stop,
        )
    tokens = open_trace(tmp_path / "trace").tokens
    for number, row in enumerate(new.tolist()):
        kept = row[: row.index(stop)] if stop in row else row[:-1]
        written = tokens[(tokens["prompt"] == number) & (tokens["phase"] == "generated")]
        assert written["token_id"].tolist() == kept


def test_generation_without_a_cache_keeps_each_token_once(tmp_path: Path) -> None:
    model, batch = tiny_model(), batch_of(TEXTS, side="left")
    asked = {"max_new_tokens": 5, "do_sample": False}
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for name, use_cache in (("cached", True), ("reread", False)):
        with Recorder(model, out=tmp_path / name) as recorder, recorder.labelled(prompts_of(TEXTS)):
            model.generate(**given, **asked, use_cache=use_cache)
    require_same(open_trace(tmp_path / "cached"), open_trace(tmp_path / "reread"))


def test_prefill_in_pieces_is_one_text(tmp_path: Path) -> None:
    model, batch = tiny_model(), batch_of(TEXTS, side="left")
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for name, more in (("whole", {}), ("pieces", {"prefill_chunk_size": 5})):
        with Recorder(model, out=tmp_path / name) as recorder, recorder.labelled(prompts_of(TEXTS)):
            model.generate(**given, max_new_tokens=4, do_sample=False, **more)
    whole, pieces = open_trace(tmp_path / "whole"), open_trace(tmp_path / "pieces")
    require_same(whole, pieces)
    assert (whole.tokens["phase"] == "generated").sum() == (pieces.tokens["phase"] == "generated").sum()


def test_likelihoods_are_those_of_the_model(tmp_path: Path) -> None:
    model, text = tiny_model(), ("the capital",)
    trace = recorded(model, tmp_path / "trace", texts=text)
    ids = torch.tensor([ids_of(text[0])])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    nll = trace.tokens["nll"].to_numpy()
    assert np.isnan(nll[0])
    np.testing.assert_allclose(nll[1:], expected.numpy(), rtol=1e-4)


def test_likelihoods_go_on_through_generation(tmp_path: Path) -> None:
    model = tiny_model()
    ids = torch.tensor([ids_of("abc")])
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace"):
        written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    tokens = open_trace(tmp_path / "trace").tokens
    with torch.no_grad():
        logits = model(written).logits[0].log_softmax(-1)
    for row in tokens[tokens["phase"] == "generated"].itertuples():
        assert row.nll == pytest.approx(float(-logits[row.position - 1, row.token_id]), rel=1e-3)
    # generate() asks for the last column of the prefill only, so nothing predicted the prompt.
    assert tokens.loc[tokens["phase"] == "prompt", "nll"].isna().all()


def test_an_encoder_and_a_decoder_share_their_prompts(tmp_path: Path) -> None:
    model = tiny_model("switch")
    batch = batch_of(TEXTS, side="right")
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with Recorder(model, out=tmp_path / "generated") as recorder, recorder.labelled(prompts_of(TEXTS)):
        written = model.generate(**given, max_new_tokens=6, do_sample=False)
    generated = open_trace(tmp_path / "generated")
    assert verify_trace(generated.path) == []
    assert generated.layers == ("enc01", "enc03", "dec01", "dec03")
    with torch.no_grad(), Recorder(model, out=tmp_path / "forced") as recorder, recorder.labelled(prompts_of(TEXTS)):
        model(**given, decoder_input_ids=written[:, :-1], decoder_attention_mask=torch.ones_like(written[:, :-1]))
    forced = by_place(open_trace(tmp_path / "forced"))
    experts = generated.experts.values
    for number, row in enumerate(generated.tokens.itertuples()):
        token, theirs, _ = forced[TEXTS[row.prompt], row.stack, row.position]
        assert token == row.token_id
        np.testing.assert_array_equal(experts[number], theirs)
        # Tokens of one stack are absent in the layers of the other.
        other = slice(2, 4) if row.stack == "encoder" else slice(0, 2)
        assert (experts[number, other] == generated.absent).all()
    tokens = generated.tokens
    assert (tokens.loc[tokens["stack"] == "encoder", "phase"] == "prompt").all()
    assert (tokens.loc[tokens["stack"] == "decoder", "phase"] == "generated").all()


def test_levels_agree(tmp_path: Path) -> None:
    model, texts = tiny_model(), TEXTS * 2
    labels = [
        Prompt(id=f"{number}", text=text, task=("words" if number % 2 else "sums")) for number, text in enumerate(texts)
    ]
    for level in ("full", "assignments", "counts"):
        with torch.no_grad(), Recorder(model, out=tmp_path / level, level=level) as recorder:
            with recorder.labelled(labels):
                model.generate(
                    **{k: v for k, v in batch_of(texts, side="left").items() if k != "position_ids"},
                    max_new_tokens=4,
                    do_sample=False,
                )
    full, counts = open_trace(tmp_path / "full"), open_trace(tmp_path / "counts")
    assert open_trace(tmp_path / "assignments").logits is None
    require_same(full, open_trace(tmp_path / "assignments"))
    assert verify_trace(counts.path) == []
    assert counts.n_tokens == full.n_tokens
    task = full.prompts["task"].to_numpy()[full.tokens["prompt"]]
    for name in ("sums", "words"):
        for layer in range(full.n_layers):
            mine = full.experts.values[task == name][:, layer, : full.top_k]
            expected = np.bincount(mine.ravel(), minlength=full.n_experts)
            np.testing.assert_array_equal(counts.counts.sel(task=name)[layer], expected)


@pytest.mark.parametrize("family", (*FAMILIES, "switch"))
def test_recording_changes_nothing(family: str, tmp_path: Path) -> None:
    model, batch = tiny_model(family), batch_of(TEXTS, side="right")
    if family == "switch":
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")} | {
            "decoder_input_ids": batch["input_ids"]
        }
    hooks = {id(m): (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()}
    state, own = torch.random.get_rng_state(), set(model.__dict__)
    with torch.no_grad():
        before = model(**batch).logits
        with Recorder(model, out=tmp_path / "trace"):
            during = model(**batch).logits
            again = model(**batch).logits
        after = model(**batch).logits
    assert torch.equal(before, during)
    assert torch.equal(before, again)
    assert torch.equal(before, after)
    assert torch.equal(state, torch.random.get_rng_state())
    assert {id(m): (len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()} == hooks
    assert set(model.__dict__) == own


def test_runners_up_and_precision_are_options(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace", n_runners_up=20, logits="float32"):
        model(**batch_of(TEXTS, side="left"))
    trace = open_trace(tmp_path / "trace")
    assert trace.n_ranks == 8  # no more than there are experts
    assert (np.sort(trace.experts.values, -1) == np.arange(8)).all()
    assert trace.logits.dtype == np.float32


def test_provenance_says_how_the_trace_came_to_be(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad(), Recorder(model, out=tmp_path / "trace", seed=7, name="tiny", note="a test") as recorder:
        model(**batch_of(TEXTS, side="left"))
        recorder.note(overhead={"ratio": 1.0})
    provenance = open_trace(tmp_path / "trace").provenance
    assert (provenance.model, provenance.model_class, provenance.seed) == ("tiny", "OlmoeForCausalLM", 7)
    assert provenance.self_check == {"counts": "passed", "replay": "passed", "rule": "passed"}
    assert provenance.complete
    assert provenance.n_dropped_records == 0
    assert provenance.n_bytes > 0
    assert provenance.transformers
    assert provenance.overhead == {"ratio": 1.0}
