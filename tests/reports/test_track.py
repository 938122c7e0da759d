"""Checkpoints of one training run in order of their steps."""

from __future__ import annotations

import pytest

from infini_eval.errors import DataError
from infini_eval.reports.plots import draw_track
from infini_eval.reports.track import render, step_of, track_runs, write
from infini_eval.testing.fake_runs import FakeRun, write_fake_run


def checkpoint(tmp_path, step: int, **more):
    identity = {"checkpoint": {"path": f"checkpoints/run300m/{step}"}}
    return write_fake_run(tmp_path / f"s{step}", FakeRun(depths=(0, 50), per_cell=4, identity=identity, **more))


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"environment": {"ckpt_path": "ck/run/30000"}}, ("ck/run", 30000)),
        ({"identity": {"ckpt_path": "ck/step_1000/"}}, ("ck", 1000)),
        ({"identity": {"checkpoint": {"path": "ck/run2/final"}}}, None),
        ({"identity": {"checkpoint": "sha"}}, None),
        (None, None),
    ],
)
def test_step_of(manifest, expected):
    assert step_of(manifest) == expected


def test_rows_are_in_order_of_steps(tmp_path):
    for step in (20000, 1000, 9000):
        checkpoint(tmp_path, step, accuracy=step / 20000)
    found = track_runs(tmp_path)
    assert [row.step for row in found.rows] == [1000, 9000, 20000]
    assert found.rows[-1].accuracy == 100
    text = render(found)
    assert text.index("      1000") < text.index("      9000") < text.index("     20000")
    assert "No gates are recorded" in text


def test_gates_are_shown_where_recorded(tmp_path):
    checkpoint(tmp_path, 5, model={"gates": {"mean": 0.4375}})
    assert "0.4375" in render(track_runs(tmp_path))


def test_gates_of_each_layer_over_steps(tmp_path):
    for step, gate in ((10, 0.25), (20, 0.75)):
        values = [[gate, gate], [0.5, 1.0]]
        checkpoint(tmp_path, step, model={"memory": "on", "gates": {"mean": 0, "values": values}})
    found = track_runs(tmp_path)
    assert [row.gates_by_layer for row in found.rows] == [(0.25, 0.75), (0.75, 0.75)]
    assert "0.5000 (0.250 to 1.000)" in render(found)
    lines = {line.get_label(): line.get_ydata().tolist() for line in draw_track(found).axes[1].lines}
    assert lines == {"layer 0": [0.25, 0.75], "layer 1": [0.75, 0.75]}


def test_without_gates_there_is_one_plot(tmp_path):
    checkpoint(tmp_path, 10)
    assert len(draw_track(track_runs(tmp_path)).axes) == 1


def test_a_run_without_step_is_named(tmp_path):
    checkpoint(tmp_path, 5)
    write_fake_run(tmp_path / "nameless", FakeRun(depths=(0,), identity={"checkpoint": None}))
    write_fake_run(tmp_path / "empty", FakeRun(depths=(0,)), keep=0)
    skipped = " ".join(track_runs(tmp_path).skipped)
    assert "nameless: its manifest names no checkpoint with a step" in skipped
    assert "no finished sample yet" in skipped


def test_nothing_to_track_is_an_error(tmp_path):
    write_fake_run(tmp_path / "nameless", FakeRun(depths=(0,), identity={"checkpoint": None}))
    with pytest.raises(DataError, match="no run below"):
        track_runs(tmp_path)


def test_write(tmp_path):
    for step in (10, 20):
        checkpoint(tmp_path / "runs", step)
    names = [path.name for path in write(track_runs(tmp_path / "runs"), tmp_path / "out")]
    assert names == ["track.json", "track.txt", "track.png", "track.csv"]
