from __future__ import annotations

from dataclasses import replace

from app.trust import checks
from routing import RoutingTrace, summary
from tests.adapter_traces import pha_trace
from tests.traces import planted_trace


def sentences_of(**changes) -> list[tuple[str, str]]:
    trace = planted_trace(seed=0, n_prompts_a_task=1)
    facts = changes.pop("facts", trace.layer_facts)
    made = replace(trace.storage, provenance=replace(trace.provenance, **changes), layer_facts=tuple(facts))
    return [(check.verdict, check.sentence) for check in checks(summary(RoutingTrace(made)))]


def test_a_proven_run_is_good_in_every_point_that_was_looked_at():
    found = sentences_of(overhead={"ratio": 1.008, "low": 1.001, "high": 1.02})
    assert {verdict for verdict, _ in found} == {"good"}
    said = " ".join(sentence for _, sentence in found)
    assert "All 4 layers were proven by replay" in said
    assert "1.008\N{NO-BREAK SPACE}× the time without (90\N{NO-BREAK SPACE}%: 1.001 to 1.020)" in said
    assert "self-check of counts and replay" in said


def test_doubts_come_first():
    found = sentences_of(complete=False, n_dropped_records=3, self_check={"replay": "passed in 2 of 4 layers"})
    assert [verdict for verdict, _ in found][:3] == ["doubt"] * 3
    said = " ".join(sentence for _, sentence in found)
    assert "did not come to its end" in said
    assert "3 records were lost" in said
    assert "passed in 2 of 4 layers" in said


def test_what_was_not_measured_is_unknown_not_good():
    found = sentences_of(overhead=None, self_check={})
    assert [verdict for verdict, _ in found][-2:] == ["unknown", "unknown"]


def test_layers_without_proof_and_with_notes_are_named():
    trace = planted_trace(seed=0, n_prompts_a_task=1)
    first, *rest = trace.layer_facts
    found = sentences_of(facts=[replace(first, proof="none", note="the library ignores <this> router"), *rest])
    said = [sentence for verdict, sentence in found if verdict == "doubt"]
    assert "1 layer (L00) was not proven." in said
    assert r"L00: the library ignores \<this\> router" in said


def test_prompts_that_were_routed_whole_are_counted_once():
    (said, *_) = (each.sentence for each in checks(summary(pha_trace(seed=0))) if "came to its end" in each.sentence)
    assert said == "The run came to its end; 56 prompts are here."
