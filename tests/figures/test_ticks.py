"""No two ticks of a color bar or an axis read alike, however little their values differ."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from figures.grid import log2_scale
from figures.square import similarity_scale
from figures.theme import NUMBER_TICKS, PERCENT_TICKS

ROOT = Path(__file__).resolve().parents[2]
# Ranges as wide as a whole scale, and as narrow as cosines of adapters that learned next to nothing.
RANGES = [
    (0.0, 1.0),
    (-1.0, 1.0),
    (0.0, 0.01),
    (-0.02, 0.02),
    (-0.0004, 0.0004),
    (0.99, 1.0),
    (0.0, 2e-5),
    (0.0, 400.0),
]


def ticks_between(low: float, high: float) -> list[float]:
    """Where Plotly puts ticks: at multiples of 1, 2 or 5 times a power of ten, five to ten of them."""
    rough = (high - low) / 8
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    return [step * each for each in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def written(value: float, tick_format: str) -> str:
    """A number as d3 writes it, of whose formats these are the ones in use."""
    sign, digits, trims, kind = re.fullmatch(r"(\+?),?\.(\d)(~?)([f%])", tick_format).groups()
    text = f"{value:{sign}.{digits}{kind}}"
    return re.sub(r"\.?0*(?=%?$)", "", text) if trims and "." in text else text


@pytest.mark.parametrize("tick_format", [NUMBER_TICKS, PERCENT_TICKS, f"+{NUMBER_TICKS}", f"+{PERCENT_TICKS}"])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_ticks_are_distinct_over_wide_and_narrow_ranges(tick_format: str, low: float, high: float):
    ticks = [written(each, tick_format) for each in ticks_between(low, high)]
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)


def test_ticks_carry_no_digits_that_say_nothing():
    assert [written(each, PERCENT_TICKS) for each in (0.0, 0.025, 0.3)] == ["0%", "2.5%", "30%"]
    assert [written(each, NUMBER_TICKS) for each in (-0.015, 0.1 + 0.2)] == ["-0.015", "0.3"]


def test_every_axis_and_color_bar_is_written_in_a_format_that_follows_its_steps():
    found = []
    for room in ("figures", "app"):
        for path in sorted((ROOT / room).rglob("*.py")):
            formats = re.findall(r"""(?:tick_?format)"?\s*[=:]\s*f?"([^"]*)\"""", path.read_text("utf-8"))
            found += [(path.name, each) for each in formats]
    assert found
    # Whole numbers on an axis of powers of ten never come closer than one.
    fixed = [each for each in found if each[1] not in ("", ",.0f") and "~" not in each[1] and "_TICKS}" not in each[1]]
    assert not fixed


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_scales_of_similarities_and_ratios_have_distinct_ticks(low: float, high: float):
    values = np.array([[np.nan, low], [high, np.nan]])
    scale = similarity_scale([values])
    ticks = [written(each, scale.tick_format) for each in ticks_between(scale.low, scale.high)]
    assert len(set(ticks)) == len(ticks)
    texts = log2_scale([values], title="ratio", most=4.0).texts
    assert len(set(texts)) == len(texts)
