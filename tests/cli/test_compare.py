"""`infini-eval compare` and `infini-eval track` from the command line."""

from __future__ import annotations

import json

from infini_eval.cli.main import main
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

RUN = FakeRun(depths=(0, 50), per_cell=4, identity={"checkpoint": {"path": "ck/300m/500"}})


def test_compare_prints_and_writes(tmp_path, capsys):
    runs = [str(write_fake_run(tmp_path / name, RUN)) for name in "ab"]
    assert main(["compare", *runs, "--output", str(tmp_path / "out")]) == 0
    assert "no clear difference" in capsys.readouterr().out
    assert (tmp_path / "out" / "plots" / "compare.png").exists()
    assert main(["compare", *runs, "--json-only"]) == 0
    assert len(json.loads(capsys.readouterr().out)["comparisons"]) == 1


def test_compare_refuses_different_data_with_status_2(tmp_path, capsys):
    a = write_fake_run(tmp_path / "a", RUN)
    b = write_fake_run(tmp_path / "b", FakeRun(depths=(0, 50), per_cell=4, seed=5))
    assert main(["compare", str(a), str(b)]) == 2
    assert "not run on the same data" in capsys.readouterr().err


def test_track_prints_json(tmp_path, capsys):
    write_fake_run(tmp_path / "a", RUN)
    assert main(["track", str(tmp_path), "--json-only"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["step"] == 500
