"""Ending with the run's first error: its status stays, and it is shown once, also when the store has gone before us."""

from __future__ import annotations

import os

import pytest

from infini_eval.distributed.ending import Ending
from infini_eval.distributed.faults import Fault

FAULT = Fault(rank=1, activity="sample 7", message="this cannot be used", details="", status=2)


class Store:
    """A store that has been shown the error, has not, or is gone."""

    def __init__(self, state: str) -> None:
        self.state = state

    def check(self, keys: list[str]) -> bool:
        if self.state == "gone":
            raise RuntimeError("Connection reset by peer")
        return self.state == "shown"

    def set(self, key: str, value: str) -> None:
        self.state = "shown"


@pytest.mark.parametrize(
    ("state", "rank", "shown"), [("gone", 1, 0), ("shown", 1, 0), ("empty", 0, 1), ("empty", 1, 1)]
)
def test_the_status_is_the_faults(monkeypatch, capsys, state: str, rank: int, shown: int) -> None:
    monkeypatch.setattr("infini_eval.distributed.ending.SHOW_S", 0.1)
    monkeypatch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    with pytest.raises(SystemExit) as left:
        Ending(rank).leave_with(Store(state), FAULT)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("this cannot be used") == shown
