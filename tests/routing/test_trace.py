"""Traces in memory: what they hold, and what comes lazily."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from routing import LayerFacts, Provenance, RoutingTrace, Selection, TraceError, trace_from_counts
from routing.rows import MemoryRows, PickedRows, labelled
from tests.traces import encoder_decoder_trace, facts_of, planted_trace, random_trace, trace_of, traces


def test_a_trace_by_hand():
    trace = trace_of([[0, 1], [0, 2], [3, -1]], n_experts=4, top_k=1, prompts=[0, 0, 1], tasks=["a", "b"])
    assert repr(trace) == "RoutingTrace(3 tokens × 1 layers × top-1 of 4 experts; tasks: a, b)"
    assert trace.layers == ("L00",)
    assert (trace.n_ranks, trace.top_k, trace.absent) == (2, 1, 255)
    assert trace.experts.sel(layer="L00").values.tolist() == [[0, 1], [0, 2], [3, 255]]
    assert np.isnan(trace.scores.values[2, 0, 1])
    assert trace.weights.values[:, 0].tolist() == [[1], [1], [1]]
    assert trace.tokens["prompt"].tolist() == [0, 0, 1]
    assert trace.tokens["position"].tolist() == [0, 1, 0]
    assert trace.task_of_prompt.tolist() == [0, 1]


def test_tasks_stand_in_order_of_first_appearance():
    trace = trace_of([[0]] * 3, prompts=[0, 1, 2], tasks=["b", "a", "b"], task_types={"a": "knowledge"})
    assert trace.tasks == ("b", "a")
    assert trace.task_types == {"b": "other", "a": "knowledge"}


def test_ids_take_two_bytes_where_255_is_an_expert():
    assert trace_of([[254]], n_experts=255).experts.dtype == np.uint8
    trace = trace_of([[255]], n_experts=256)
    assert trace.experts.dtype == np.uint16
    assert trace.absent == 65535


def test_layers_may_differ_in_experts_and_top_k():
    trace = encoder_decoder_trace()
    assert trace.layers == ("enc01", "enc03", "dec01")
    assert trace.stacks == ("encoder", "decoder")
    assert trace.expert_exists.sum("expert").values.tolist() == [8, 8, 4]
    reads = (trace.tokens["stack"] == "encoder").to_numpy()
    assert (trace.experts.sel(layer="dec01").values[reads] == trace.absent).all()
    assert np.isnan(trace.logits.sel(layer="dec01").values[:, 4:]).all()


@given(trace=traces())
@settings(max_examples=25, deadline=None)
def test_chunks_hold_every_token_once(trace):
    whole = next(iter(trace.chunks(fields=("experts", "scores", "weights", "logits"))))
    parts = list(trace.chunks(fields=("experts", "scores", "weights", "logits"), n_tokens=7))
    assert [part.n_tokens for part in parts[:-1]] == [7] * (len(parts) - 1)
    for name in ("experts", "scores", "weights", "logits", "prompt", "task", "position", "token_id", "phase", "nll"):
        values = [getattr(part, name) for part in parts]
        if values[0] is not None:
            np.testing.assert_array_equal(np.concatenate(values), getattr(whole, name))
    tasks = trace.prompts["task"].to_numpy()[whole.prompt]
    assert [trace.tasks[code] for code in whole.task] == tasks.tolist()


def test_chunks_are_views_and_cannot_be_written_into():
    chunk = next(iter(random_trace(seed=0).chunks()))
    with pytest.raises(ValueError, match="read-only"):
        chunk.experts[0] = 1


def test_chunks_refuse_unknown_fields():
    with pytest.raises(TraceError, match="No trace has the fields"):
        list(random_trace(seed=0).chunks(fields=("gates",)))


@given(trace=traces(max_tokens=20))
@settings(max_examples=15, deadline=None)
def test_lazy_arrays_index_like_numpy(trace):
    whole = trace.experts.values
    assert trace.experts.isel(token=0).values.tolist() == whole[0].tolist()
    assert trace.experts.isel(token=-1, layer=0).values.tolist() == whole[-1, 0].tolist()
    np.testing.assert_array_equal(trace.experts[::-2].values, whole[::-2])
    np.testing.assert_array_equal(trace.experts[3:1].values, whole[3:1])
    rows = np.arange(len(whole))[::3]
    np.testing.assert_array_equal(trace.experts.isel(token=rows, rank=[0]).values, whole[rows][:, :, [0]])
    np.testing.assert_array_equal(trace.experts.sel(layer=trace.layers[-1]).values, whole[:, -1])


def test_lazy_arrays_read_only_what_is_indexed():
    class Counting(MemoryRows):
        n_read = 0

        def read(self, start, stop):
            self.n_read += stop - start
            return super().read(start, stop)

    rows = Counting(np.arange(300).reshape(100, 3))
    array = labelled(rows, ("token", "layer"), {})
    assert array[10:12].values.tolist() == [[30, 31, 32], [33, 34, 35]]
    assert rows.n_read == 2


def test_selecting_keeps_tasks_prompts_and_layers():
    trace = planted_trace(seed=1, n_tasks=3, n_prompts_a_task=4)
    part = trace.select(Selection(tasks=("facts", "spans"), layers=("L03", "L01"), experts=(("L03", 2),)))
    assert part.tasks == ("spans", "facts")
    assert part.layers == ("L01", "L03")
    assert part.n_prompts == 8
    rows = np.flatnonzero(trace.prompts["task"].isin(["spans", "facts"]).to_numpy()[trace.tokens["prompt"]])
    np.testing.assert_array_equal(part.experts.values, trace.experts.values[rows][:, [1, 3]])
    np.testing.assert_array_equal(part.logits.values, trace.logits.values[rows][:, [1, 3]])
    text = trace.prompts["text"].to_numpy()[trace.tokens["prompt"].to_numpy()[rows]]
    assert part.prompts["text"].to_numpy()[part.tokens["prompt"]].tolist() == text.tolist()
    assert part.digest != trace.digest
    assert part.select(Selection(tasks=("facts",))).tasks == ("facts",)


def test_selecting_nothing_is_everything():
    trace = random_trace(seed=2)
    assert trace.select(Selection()) is trace


def test_selecting_one_stack_leaves_the_tokens_of_the_other():
    part = encoder_decoder_trace().select(Selection(layers=("dec01",)))
    assert set(part.tokens["stack"]) == {"decoder"}
    assert (part.n_experts, part.top_k) == (4, 2)
    assert part.logits.shape[2] == 4
    assert part.n_tokens == 6 * 4


def test_picked_rows_look_up_scattered_rows():
    base = MemoryRows(np.arange(60).reshape(10, 3, 2))
    picked = PickedRows(base, rows=np.array([1, 4, 5]), layers=np.array([0, 2]))
    assert picked.shape == (3, 2, 2)
    assert picked.take(np.array([2, 0]))[:, 0, 0].tolist() == [30, 6]
    assert picked.read(1, 3)[:, 1, 1].tolist() == [29, 35]


def test_the_digest_follows_the_content():
    assert random_trace(seed=3).digest == random_trace(seed=3).digest
    assert random_trace(seed=3).digest != random_trace(seed=4).digest


def test_counts_stand_alone():
    counts = np.array([[[3, 1]], [[0, 4]]])
    trace = trace_from_counts(counts, layer_facts=facts_of(1, n_experts=2, top_k=1), tasks=["a", "b"], n_tokens=8)
    assert trace.level == "counts"
    assert trace.counts.sel(task="a", layer="L00").values.tolist() == [3, 1]
    assert trace.experts is None
    assert trace.select(Selection(tasks=("b",))).n_tokens == 4
    with pytest.raises(TraceError, match="level 'counts'"):
        list(trace.chunks())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"scores": np.zeros((2, 1, 2))}, "scores have shape"),
        ({"tokens": pd.DataFrame({"prompt": [0]})}, "token table has 1 rows"),
        ({"tokens": pd.DataFrame({"stack": ["text", "text", "vision"]})}, r"holds \['text', 'vision'\]"),
        ({"prompts": pd.DataFrame({"text": ["a"]})}, "no 'prompt'"),
        ({"prompts": pd.DataFrame({"prompt": ["a", "a"]})}, "more than once"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, message):
    given_parts = {"layer_facts": facts_of(1, n_experts=4, top_k=2)} | parts
    with pytest.raises(TraceError, match=message):
        RoutingTrace.from_arrays(np.array([[[0, 1]], [[1, 2]], [[2, 3]]]), **given_parts)


def test_ids_beyond_the_experts_are_refused():
    with pytest.raises(TraceError, match="hold the id 7"):
        trace_of([[0, 7]], n_experts=4)


def test_facts_travel_through_json_and_forget_what_is_new():
    facts = LayerFacts(label="L01", number=1, n_experts=4, top_k=2, bias=[0.1, 0.2, 0.3, 0.4])
    assert LayerFacts.from_json(facts.to_json() | {"of_tomorrow": 1}) == facts
    made = Provenance(model="m", overhead={"ratio": 1.01}, self_check={"replay": "passed"})
    assert Provenance.from_json(made.to_json()) == made
    with pytest.raises(TraceError, match="LayerFacts cannot be read"):
        LayerFacts.from_json({"label": "L01"})
