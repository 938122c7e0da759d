"""Progress over all replicas."""

from __future__ import annotations

import logging
import threading
import time

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


def test_the_longest_sample_in_hand_and_its_share(monkeypatch):
    with launch("cpu") as world, Progress(world, 2, 3000) as bar:
        bar.begin("a", "long", 2000, 2000)
        bar.begin("b", "short", 1000, 1000)  # another one in flight
        bar.add(tokens=500)
        bar._push()
        assert bar._look(None).line.endswith("; longest in hand 25 % read: long (2,000 tokens)")
        assert bar._look(None).share == pytest.approx(500 / 3000)
        bar.add(tokens=1600)
        bar.end("a")
        assert bar._look(None).line.endswith("; longest in hand 10 % read: short (1,000 tokens)")
        bar.end("b")
        assert "in hand" not in bar._look(None).line


def test_a_countdown_says_how_much_is_left(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    counted = progress.Countdown("tokenising", 1050, "samples", more=lambda: "2.0 GB")
    monkeypatch.setattr(progress.time, "monotonic", lambda: 110.0)
    assert counted.look().line == "tokenising: 0/1,050 samples, 0:00:10 so far, 2.0 GB"
    counted.add(350)
    assert counted.look() == ("tokenising: 350/1,050 samples, 0:00:20 left, 2.0 GB", pytest.approx(1 / 3))
    counted.set(5)
    assert progress.Countdown("reading", None, "rows").look().line == "reading: 0 rows, 0:00:00 so far"


def test_a_countdown_is_silent_where_it_is_soon_over(caplog, monkeypatch):
    said = []
    with progress.Countdown("tokenising", 2, "samples", say=said.append) as counted:
        counted.add(2)
    assert said == []
    seen = progress.threading.Event()
    with progress.Countdown("tokenising", 2, "samples", say=lambda line: (said.append(line), seen.set()), every_s=0.01):
        seen.wait(60)
    assert said[0].startswith("tokenising: 0/2 samples")


def work_alone_on_rank_1():
    """Rank 0 has no work; rank 1 ends when rank 0 has said three times how far it is."""
    lines = []
    progress.logger.info = lambda form, line: lines.append(line)
    with launch("cpu") as world:
        with Progress(world, 2, 1000, every_s=0.05) as bar:
            if world.rank == 1:
                bar.begin("batch", "the-long-one", 1000, 1000)
                bar.add(tokens=250)
                bar._push()
                assert world.store is not None
                world.store.wait(["seen"])
                bar.end("batch")
            else:
                store = world.new_client()
                threading.Thread(target=tell_when_seen, args=(lines, store), daemon=True).start()
        return lines


def tell_when_seen(lines, store):
    while sum("the-long-one" in line for line in lines) < 3:
        time.sleep(0.02)
    store.set("seen", "")


@pytest.mark.distributed
def test_lines_go_on_until_the_last_replica_has_ended():
    lines, others = run_distributed_test(work_alone_on_rank_1, 2, None)
    assert sum("; longest in hand 25 % read: the-long-one (1,000 tokens)" in line for line in lines) >= 3
    assert others == []


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
