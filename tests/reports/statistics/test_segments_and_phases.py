"""Within, across and on borders by real spans; phases and the warning about a single one."""

from __future__ import annotations

import numpy as np
import pytest

from infini_eval.reports.statistics.samples import Scored, by_compressions, phase_groups, phase_warning, segment_groups

NAN = float("nan")


def scored(correct, **columns) -> Scored:
    n = len(correct)
    filled = {
        name: np.array(columns.get(name, [NAN] * n), float)
        for name in ("depth", "length", "tokens", "compressions", "straddles", "phase", "answer_crosses")
    }
    return Scored(row=np.arange(n), correct=np.array(correct, float), cluster=None, **filled)


def test_groups_follow_the_needle_s_span():
    found = segment_groups(scored([1, 0, 1, 0, 1], compressions=[0, 0, 2, 1, NAN], straddles=[0, 1, 0, 1, NAN]))
    assert (found.within.correct, found.within.n) == (1, 1)
    assert (found.cross.correct, found.cross.n) == (1, 2)
    assert (found.straddling.correct, found.straddling.n) == (0, 2)
    assert found.unknown.n == 1


def test_few_compressions_are_shown_one_by_one_and_many_in_powers_of_two():
    few = by_compressions(scored([1, 0, 1], compressions=[3, 0, 3]))
    assert [(low, high, cell.correct, cell.n) for low, high, cell in few] == [(0, 0, 0, 1), (3, 3, 2, 2)]
    many = by_compressions(scored(np.ones(40), compressions=np.arange(40)))
    assert [(low, high, cell.n) for low, high, cell in many] == [
        (0, 0, 1), (1, 1, 1), (2, 2, 1), (3, 4, 2), (5, 8, 4), (9, 16, 8), (17, 32, 16), (33, 64, 7),
    ]  # fmt: skip


def test_a_cell_of_one_phase_is_warned_about():
    cells = {"depth": [0, 0, 50, 50], "length": [1024] * 4, "answer_crosses": [1, 1, 0, 1]}
    one = phase_groups(scored([1, 1, 0, 1], phase=[127] * 4, **cells))
    assert (one.cells, one.fixed_cells, one.only_phase) == (2, 2, 127)
    assert "offset 127" in phase_warning(one)
    mixed = phase_groups(scored([1, 1, 0, 1], phase=[127, 127, 3, 4], **cells))
    assert (mixed.fixed_cells, mixed.only_phase, mixed.phases) == (1, None, 3)
    assert "in 1 of 2 cells" in phase_warning(mixed)
    assert (mixed.inside.n, mixed.inside.correct, mixed.crossing.n) == (1, 0, 3)
    spread = phase_groups(scored([1, 1, 0, 1], phase=[1, 2, 3, 4], **cells))
    assert phase_warning(spread) is None


@pytest.mark.parametrize("phase", [[NAN, NAN]])
def test_no_phases_no_groups(phase):
    assert phase_groups(scored([1, 0], phase=phase, depth=[0, 0])) is None
    assert phase_warning(None) is None
