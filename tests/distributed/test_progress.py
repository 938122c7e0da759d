"""Progress over all replicas."""

from __future__ import annotations

import logging

import pytest

from infini_eval.distributed import progress
from infini_eval.distributed.launch import launch
from infini_eval.distributed.progress import Progress, Totals
from infini_eval.testing.distributed import run_distributed_test


@pytest.mark.parametrize(
    ("totals", "planned_tokens", "line"),
    [
        (Totals(0, 0, 0, 0.0), None, "0/10 samples, 0 tokens/s, time left unknown"),
        (Totals(5, 2048, 4, 3.0), None, "5/10 samples, 1,024 tokens/s, accuracy 75.0 % (n=4), 0:00:02 left"),
        (Totals(1, 2048, 1, 0.0), 2_048_000, "1/10 samples, 1,024 tokens/s, accuracy 0.0 % (n=1), 0:33:18 left"),
    ],
)
def test_the_line(totals, planned_tokens, line):
    assert totals.line(10, planned_tokens, 2.0) == line


def test_plain_lines_where_there_is_no_terminal(monkeypatch, caplog):
    monkeypatch.setattr(progress, "PLAIN_S", 0.01)
    monkeypatch.setattr(logging.getLogger("infini_eval"), "propagate", True)
    with caplog.at_level("INFO", logger="infini_eval"), launch("cpu") as world, Progress(world, 2) as bar:
        bar.add(samples=1, tokens=3, score=1.0)
        bar.add(samples=1, tokens=4, score=0.5)
    assert caplog.messages[-1].startswith("2/2 samples")
    assert "accuracy 75.0 % (n=2), 0:00:00 left" in caplog.messages[-1]


def test_the_bar_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "BAR_S", 0.01)
    with launch("cpu") as world, Progress(world, 2) as bar:
        bar.add(samples=2, tokens=3, score=1.0)
    assert "2/2 samples" in capsys.readouterr().err.replace("\n", " ")


def count_together():
    with launch("cpu") as world:
        with Progress(world, 6, name="first") as bar:
            for _ in range(world.rank + 1):
                bar.add(samples=1, tokens=10, score=0.5)
        world.barrier("counted")
        return bar.totals()


@pytest.mark.distributed
def test_all_replicas_count():
    assert run_distributed_test(count_together, 3, None) == [Totals(6, 60, 6, 3.0)] * 3
