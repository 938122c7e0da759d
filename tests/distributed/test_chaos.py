"""A few random kills of a run; scripts/chaos.sh does it hundreds of times."""

from __future__ import annotations

import pytest

from support import chaos

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def test_a_run_survives_random_kills(tmp_path):
    assert chaos.rampage(tmp_path, kills=3, seed=5, say=False).total() == 3


def test_what_a_broken_run_looks_like_is_seen(tmp_path):
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    for folder in (run, undisturbed):
        chaos.complete(folder, (1, 1, 1), "python")
    chaos.check(run, undisturbed)
    (run / "run.lock").touch()
    with pytest.raises(chaos.Failure, match="left behind"):
        chaos.check(run, undisturbed)
    (run / "run.lock").unlink()
    (samples,) = (run / "samples").glob("*.jsonl")
    first, *rest = samples.read_text().splitlines(keepends=True)
    samples.write_text(first + first + "".join(rest))
    with pytest.raises(chaos.Failure, match="more than once"):
        chaos.check(run, undisturbed)
