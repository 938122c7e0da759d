"""Which samples of a run share a haystack: by name, by place in the pool, by start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infini_eval.reports.statistics.samples import Scored, scored_samples
from infini_eval.results.reader import read_run


def clusters(folder: Path, rows: list[dict[str, Any]]) -> list[int] | None:
    lines = [
        {"depth_percent": 50, "answer": "12", "generation_text": "12", "correct": 1.0, "sample_key": str(number), **row}
        for number, row in enumerate(rows)
    ]
    (folder / "samples").mkdir()
    (folder / "samples" / "replica0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = scored_samples(read_run(folder)).cluster
    return None if found is None else found.tolist()


def place(start: int, end: int, pool: str = "p", **more: Any) -> dict[str, Any]:
    return {"haystack_pool": pool, "haystack_start": start, "haystack_end": end, "haystack_hash": f"{start}", **more}


def test_haystacks_that_overlap_are_one(tmp_path):
    rows = [place(0, 1000), place(400, 1400), place(1390, 2400), place(0, 1000, pool="q")]
    assert clusters(tmp_path, rows) == [0, 0, 1, 2]


def test_a_name_given_by_the_data_goes_first(tmp_path):
    assert clusters(tmp_path, [place(0, 9, haystack_id="x"), place(0, 9, haystack_id="y")]) == [0, 1]


@pytest.mark.parametrize(("source", "expected"), [("english", [0, 1]), ("filler", [0, 0]), ("noise", [0, 0])])
def test_older_data_know_the_start_only(tmp_path, source, expected):
    assert clusters(tmp_path, [{"haystack_hash": h, "haystack": source} for h in ("a", "b")]) == expected


def test_unknown_unless_every_sample_says_so(tmp_path):
    assert clusters(tmp_path, [{"haystack_hash": "a"}, {}]) is None


def test_a_place_that_some_samples_lack_is_no_place(tmp_path):
    assert clusters(tmp_path, [place(0, 1000), {"haystack_hash": "400"}]) == [0, 1]


def test_the_samples_of_each_length_keep_their_order_and_have_their_own_clusters():
    n = 6
    columns = {name: np.arange(n, dtype=float) for name in ("correct", "depth", "tokens", "compressions")}
    columns |= {name: np.zeros(n) for name in ("straddles", "phase", "answer_crosses")}
    length = np.array([2048, np.nan, 1024, 2048, np.nan, 1024])
    scored = Scored(row=np.arange(n), length=length, cluster=np.array([0, 1, 2, 0, 3, 1]), **columns)
    parts = scored.by_length()
    assert list(parts) == scored.lengths() == [1024, 2048, None]
    assert {key: part.row.tolist() for key, part in parts.items()} == {1024: [2, 5], 2048: [0, 3], None: [1, 4]}
    assert {key: part.cluster.tolist() for key, part in parts.items()} == {1024: [1, 0], 2048: [0, 0], None: [0, 1]}
