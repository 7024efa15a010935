"""What a trace holds, in one screen."""

from routing import open_trace, pack_trace, save_trace, summary
from tests.traces import encoder_decoder_trace, planted_trace, trace_of


def test_a_summary_counts_what_is_there(tmp_path):
    trace = planted_trace(seed=0, n_tasks=2, n_prompts_a_task=5)
    held = summary(open_trace(save_trace(trace, tmp_path / "run")))
    assert (held.n_tokens, held.n_prompts, held.n_layers, held.n_experts, held.top_k) == (140, 10, 4, 8, 2)
    assert held.n_runners_up == 2
    assert held.arrays == ("experts", "scores", "weights", "logits")
    assert [task.name for task in held.tasks] == ["spans", "sentiment"]
    spans = trace.prompts[trace.prompts["task"] == "spans"]
    assert held.tasks[0].mean_score == spans["score"].mean()
    assert held.tasks[0].metric == "exact_match"
    assert held.proofs == {"replay": 4}
    assert held.provenance.self_check == {"counts": "passed", "replay": "passed"}
    assert 5_000 < held.disk_bytes < 100_000
    assert not held.packed


def test_a_summary_of_a_packed_trace_and_of_one_in_memory(tmp_path):
    packed = summary(open_trace(pack_trace(encoder_decoder_trace(), tmp_path / "run")))
    assert packed.packed
    assert "dropped" in packed.arrays
    memory = summary(trace_of([[0, 1]]))
    assert memory.disk_bytes is None
    assert memory.tasks[0].mean_score is None
