"""Where experts have names, they are printed by name; where every expert is always on, weights are spoken of."""

import numpy as np

import analysis
from app import sentences
from app.views.tasks import sentences as task_sentences
from figures.bars import feature_dots
from figures.grid import ColorScale
from figures.heatmap import load_heatmap
from figures.task_heatmap import cells_of, task_expert_heatmap
from tests.adapter_traces import pha_trace, task_moe_trace


def test_prototypes_are_called_by_their_tasks():
    trace = pha_trace()
    special = analysis.specialization(trace, n_permutations=50)
    assert "retriever·" in task_sentences.of_lift(special)
    assert "·E" not in task_sentences.of_lift(special)
    told = task_sentences.of_values(special["rate"], what="of its tokens", names=special.attrs["expert_names"])
    assert "**retriever·" in told
    balance = analysis.load_balance(trace, n_bootstrap=5)
    assert "**retriever·" in sentences.of_balance(balance, threshold=1.5)
    profile = analysis.expert_profile(trace, layer="retriever", expert=1, n_bootstrap=5)
    assert "**retriever·sentiment**" in sentences.of_profile(profile, layer="retriever", expert=1)
    assert "**retriever·sentiment**" in sentences.of_drivers(profile, layer="retriever", expert=1)
    assert "retriever·E" not in task_sentences.of_features(analysis.feature_correlation(trace, n_permutations=20))


def test_figures_call_them_so_too():
    trace = pha_trace()
    load = analysis.expert_load(trace)
    figure = load_heatmap(load, exists=trace.expert_exists, names=trace.expert_names)
    assert figure.data[0].text[0][1] == "retriever·sentiment"
    special = analysis.specialization(trace, n_permutations=0)
    cells = cells_of(special["rate"], exists=trace.expert_exists)
    scale = ColorScale(title="rate", low=0, high=1)
    options = {"scale": scale, "value_text": "%{z}", "task_types": trace.task_types}
    drawn = task_expert_heatmap(cells, names=trace.expert_names, **options)
    assert drawn.data[0].text[0][1] == "spans · retriever·sentiment"
    dots = feature_dots(analysis.feature_correlation(trace, n_permutations=10))
    assert all("retriever·E" not in text for each in dots.data for text in (each.text if each.text is not None else ()))


def test_soft_routing_is_told_in_weights():
    trace = task_moe_trace(soft=True, strength=8.0, n_tasks_a_type=8, n_prompts_a_task=2)
    special = analysis.specialization(trace, over="task_type", n_permutations=500)
    assert "of its weight" in task_sentences.of_lift(special)
    profile = analysis.expert_profile(trace, layer="enc00", expert=0, n_bootstrap=5)
    assert "of its weight goes to it" in sentences.of_profile(profile, layer="enc00", expert=0)
    figure = load_heatmap(analysis.expert_load(trace), exists=trace.expert_exists)
    assert "of weight" in figure.data[0].hovertemplate
    assert np.isfinite(figure.data[0].z).all()
