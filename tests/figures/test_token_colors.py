import numpy as np
import pytest

from figures.theme import OKABE_ITO
from figures.token_colors import Shading, expert_shading, group_shading
from figures.token_colors import value_shading as shaded


def of_experts(*layers: list[int]) -> Shading:
    return expert_shading(
        np.array(layers),
        layers=[f"L{number:02d}" for number in range(len(layers))],
        name=lambda _, expert: f"E{expert}",
    )


def value_shading(values: list[float], *, title: str, digits: int) -> Shading:
    return shaded(np.array([values], dtype=float), titles=[title], digits=digits)


def test_seven_most_frequent_experts_get_a_hue_and_the_rest_one_neutral():
    # experts 0 … 8, expert e occurring 9 - e times
    experts = [e for e in range(9) for _ in range(9 - e)]
    shading = of_experts(experts)
    assert len(shading.palette) == 8
    assert [item["label"] for item in shading.legends[0]["items"]] == [*(f"E{e}" for e in range(7)), "2 other experts"]
    assert shading.legends[0]["items"][-1]["count"] == 2 + 1
    assert len({shade.fill for shade in shading.palette}) == 8


def test_an_expert_keeps_its_hue_from_passage_to_passage():
    first = of_experts([3, 3, 5])
    second = of_experts([1, 3, 5, 5, 5])
    for shading, token in ((first, 0), (second, 1)):
        assert shading.palette[shading.levels[0, token]].fill == OKABE_ITO[3]


def test_experts_that_want_one_hue_still_differ():
    # 2 and 9 are the same modulo seven
    shading = of_experts([2, 9, 9])
    assert shading.palette[shading.levels[0, 0]].fill != shading.palette[shading.levels[0, 1]].fill


def test_a_token_that_the_layer_did_not_route_has_no_color_and_is_named():
    shading = of_experts([1, -1])
    assert shading.levels.tolist() == [[1, -1]]
    assert shading.absent == "not routed in this layer"


def test_a_passage_without_any_routed_token_is_still_drawn():
    assert of_experts([-1, -1]).levels.tolist() == [[-1, -1]]


def test_values_climb_the_scale_and_unknown_ones_have_none():
    shading = value_shading([0.0, 0.5, 1.0, np.nan], title="Margin", digits=2)
    assert shading.levels[0, 0] == 0
    assert shading.levels[0, 0] < shading.levels[0, 1] < shading.levels[0, 2] == len(shading.palette) - 1
    assert shading.levels[0, 3] == -1
    assert shading.absent == "unknown"


def test_the_legend_says_where_values_leave_the_scale():
    shading = value_shading([*np.linspace(0, 1, 99), 50.0], title="NLL", digits=2)
    assert shading.legends[0]["high"].startswith("≥ ")


@pytest.mark.parametrize("values", [[], [np.nan], [2.0, 2.0]])
def test_values_without_a_spread_are_no_error(values):
    assert len(value_shading(values, title="Margin", digits=2).levels[0]) == len(values)


def test_text_on_a_solid_fill_is_readable():
    def luminance(color):
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for shade in value_shading([0.0, 1.0], title="Margin", digits=2).palette:
        light, dark = sorted((luminance(shade.fill), luminance(shade.ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3.9


def test_layers_have_hues_of_their_own_and_groups_have_one_in_all():
    shading = of_experts([1, 1, 2], [2, 2, 2])
    assert [legend["title"] for legend in shading.legends] == ["First expert in L00", "First expert in L01"]
    assert shading.legends[1]["items"] == [{"level": 2, "label": "E2", "count": 3}]
    groups = group_shading(
        np.array([[0, 1, -1], [8, 1, 1]]), layers=["L00", "L01"], names=list("ABCDEFGHI"), title="Group"
    )
    assert groups.levels.tolist() == [[0, 1, -1], [7, 1, 1]]
    assert [item["label"] for item in groups.legends[1]["items"]] == ["B", "1 more cluster"]


def test_one_scale_serves_all_layers():
    shading = shaded(np.array([[0.0, 0.5], [0.5, 1.0]]), titles=["a", "b"], digits=1, ends=(0.0, 1.0))
    assert shading.levels[0, 1] == shading.levels[1, 0]
    assert (shading.legends[1]["low"], shading.legends[1]["high"]) == ("0.0", "1.0")
