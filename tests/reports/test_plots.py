"""Plots: drawn where there is something to show, in one style, with the right numbers beside them."""

from __future__ import annotations

import csv

import pytest
from matplotlib.text import Text

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.plots import (
    draw_by_compressions,
    draw_by_depth,
    draw_by_length,
    draw_heatmap,
    draw_sweep,
    png,
    ramp,
    short_tokens,
    write_gates,
)
from infini_eval.testing.fake_runs import FakeRun, write_fake_run


def summary(tmp_path, run: FakeRun):
    return analyze_run(write_fake_run(tmp_path, run)).summary


def test_one_length_has_no_heat_map_and_no_curve_over_length(tmp_path):
    found = summary(tmp_path, FakeRun(depths=(0, 50), per_cell=2))
    assert draw_heatmap(found) is None
    assert draw_by_length(found) is None
    assert draw_by_depth(found) is not None


def test_a_model_without_segments_has_no_compressions(tmp_path):
    assert draw_by_compressions(summary(tmp_path, FakeRun(segment_length=None, depths=(0,)))) is None


def test_the_heat_map_shows_every_cell(tmp_path):
    found = summary(tmp_path, FakeRun(lengths=(1024, 2048), depths=(0, 50, 100), per_cell=3, accuracy=0.5))
    axes = draw_heatmap(found).axes[0]
    shown = [text.get_text() for text in axes.texts if type(text) is Text]
    expected = [f"{c.accuracy:.0f}" for b in found.by_context_length for c in b.results_by_depth]
    assert shown == expected
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1k", "2k"]


def test_many_depths_and_lengths_are_drawn_too(tmp_path):
    run = FakeRun(lengths=(512, 1024, 2048, 4096, 8192), depths=tuple(range(0, 101, 2)), per_cell=1)
    found = summary(tmp_path, run)
    assert not [text for text in draw_heatmap(found).axes[0].texts if type(text) is Text]
    assert len(draw_by_depth(found).axes) == 5


def test_the_same_data_give_the_same_picture(tmp_path):
    found = summary(tmp_path, FakeRun(depths=(0, 50), per_cell=2))
    assert png(draw_by_depth(found)) == png(draw_by_depth(found))


def test_by_depth_every_length_has_a_chart_of_its_own_with_intervals(tmp_path):
    found = summary(tmp_path, FakeRun(lengths=(1024, 2048, 4096, 8192), depths=(0, 50, 100), per_cell=4, accuracy=0.6))
    charts = draw_by_depth(found).axes
    assert [axes.get_title(loc="left") for axes in charts] == [f"{k}k tokens (n=12)" for k in (1, 2, 4, 8)]
    for axes, block in zip(charts, found.by_context_length):
        (bars,) = (line for line in axes.collections)
        ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
        assert ends == [pytest.approx((cell.ci_low, cell.ci_high)) for cell in block.results_by_depth]


def test_pictures_name_their_run_and_take_its_name_as_text(tmp_path):
    run = FakeRun(
        lengths=(1024, 2048), depths=(0, 50), per_cell=2, name=r"a $\broken{ name", model={"memory": "ablate"}
    )
    found = summary(tmp_path, run)
    for draw in (draw_heatmap, draw_by_length, draw_by_compressions, draw_by_depth):
        figure = draw(found)
        assert png(figure)
        texts = [text.get_text() for text in figure.findobj(match=Text)]
        assert any(r"a $\broken{ name, passkey, memory ablate" in text for text in texts)
    assert png(draw_sweep([{"label": "$m_", "context_tokens": 9, "success": True, "answer_seconds": 1.0}]))


def test_gates_are_written_with_their_numbers(tmp_path):
    image, numbers = write_gates([[0.0, 0.25], [1.0, 0.5]], tmp_path)
    assert image.read_bytes().startswith(b"\x89PNG")
    with numbers.open() as file:
        assert list(csv.reader(file))[1:3] == [["0", "0", "0.0"], ["0", "1", "0.25"]]


@pytest.mark.parametrize(
    ("tokens", "shown"), [(1024, "1k"), (131072, "128k"), (1048576, "1m"), (1000, "1000"), (None, "unlabelled")]
)
def test_short_tokens(tokens, shown):
    assert short_tokens(tokens) == shown


def test_ramps_have_distinct_colours():
    for count in range(1, 9):
        assert len(set(ramp(count))) == count
