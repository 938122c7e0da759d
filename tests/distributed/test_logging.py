"""Log lines with the rank's place on the mesh."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from infini_eval.distributed.logging import setup_logging


def test_the_line_is_as_the_guide_shows_it(capsys):
    setup_logging("DP=1|PP=0|TP=0")
    logging.getLogger("infini_eval.evaluation.run").info("generation: %s", "42857")
    line = capsys.readouterr().err
    assert re.fullmatch(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d \[INFO\|DP=1\|PP=0\|TP=0\]: generation: 42857\n", line)


def test_set_up_again_it_does_not_repeat_lines(capsys):
    setup_logging("DP=0|PP=0|TP=0")
    setup_logging("DP=0|PP=0|TP=0").info("once")
    assert capsys.readouterr().err.count("once") == 1


@pytest.mark.parametrize(("rank", "clears"), [("0", False), ("1", True)])
def test_other_ranks_clear_the_bar_of_rank_0_on_a_terminal(monkeypatch, capsys, rank, clears):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    setup_logging("DP=1|PP=0|TP=0").info("a line")
    assert capsys.readouterr().err.startswith("\r\x1b[2K") == clears


def test_peers_of_a_leader_only_warn(capsys):
    logger = setup_logging("DP=0|PP=1|TP=0", speaks=False)
    logger.info("hidden")
    logger.warning("shown")
    assert "hidden" not in capsys.readouterr().err
