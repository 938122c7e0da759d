"""graphwalks: answers that a plain search of the prompt's own edges confirms, exact lengths, and the published layout."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.api import registry
from infini_eval.data.reading import load_data
from infini_eval.errors import ConfigError, DataError
from support.small_runs import answered, made, rows, sample_of, tokenizer

TASK = registry.task("graphwalks")


def distances(edges: list[list[str]], start: str) -> dict[str, int]:
    """Edges from `start` to each node, by trying every edge until nothing gets nearer (Bellman and Ford)."""
    far = {start: 0}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            if a in far and far[a] + 1 < far.get(b, len(edges)):
                far[b] = far[a] + 1
                changed = True
    return far


@pytest.mark.parametrize("length", [1_024, 3_001])
@pytest.mark.parametrize("steps", ["1", "3"])
def test_answers_follow_from_the_edges(length: int, steps: str) -> None:
    found = rows("graphwalks", length, num_prompts=4, options={"steps": steps, "answers": "20"})
    assert [row["problem_type"] for row in found] == ["bfs", "parents"] * 2
    for row in found:
        edges = [line.split(" -> ") for line in row["prompt"].split("\n") if re.fullmatch(r"[0-9a-f]+ -> \w+", line)]
        node = re.search(r"node ([0-9a-f]{10})\.? ?", row["prompt"].partition("Operation:")[2]).group(1)
        if row["problem_type"] == "parents":
            right = {a for a, b in edges if b == node}
        else:
            right = {name for name, far in distances(edges, node).items() if far == int(steps)}
        assert set(json.loads(row["outputs"])) == right and 1 <= len(right) <= 20
        assert row["token_count"] == length == tokenizer().count(row["prompt"])
        assert len(edges) == len({tuple(edge) for edge in edges}) and all(a != b for a, b in edges)
        for needle in json.loads(row["needles"]):
            assert needle.split(" -> ") in edges
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=4)
    assert TASK.validate([sample_of(row) for row in found]) == []


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="operation=both, bfs or parents"):
        rows("graphwalks", options={"operation": "dfs"})
    with pytest.raises(DataError, match="no node whose answer"):
        rows("graphwalks", 1_024, options={"operation": "bfs", "steps": "90"})


def published(folder: Path) -> Path:
    """Rows in the columns of openai/graphwalks; contents are ours."""
    held = [
        {"prompt": "Edges:\na1 -> b2\nParents of b2?", "answer_nodes": ["a1"], "problem_type": "parents"},
        {"prompt": "Edges:\na1 -> b2\nParents of a1?", "answer_nodes": [], "problem_type": "parents"},
        {"prompt": "Edges:\na1 -> b2\na1 -> c3\nFrom a1?", "answer_nodes": ["b2", "c3"], "problem_type": "bfs"},
    ]
    table = pa.Table.from_pylist([row | {"prompt_chars": len(row["prompt"]), "date_added": "x"} for row in held])
    pq.write_table(table, folder / "graphwalks_128k_and_shorter.parquet")
    return folder / "graphwalks_128k_and_shorter.parquet"


def test_the_published_layout_is_read_and_asked(tmp_path: Path) -> None:
    data = load_data(TASK, published(tmp_path), context_length=None)
    assert [sample.answer for sample in data.samples] == [
        "Final Answer: [a1]",
        "Final Answer: []",
        "Final Answer: [b2, c3]",
    ]
    assert [sample.columns["problem_type"] for sample in data.samples] == ["parents", "parents", "bfs"]
    assert TASK.validate(data.samples) == [] and [TASK.locate(sample) for sample in data.samples] == [None] * 3
    found = answered("graphwalks", published(tmp_path), tmp_path / "run")
    assert [record["correct"] for record in found] == [1.0] * 3


def test_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["x"], "answer": ["y"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no column answer_nodes, problem_type(.|\n)*openai/graphwalks"):
        load_data(TASK, tmp_path / "x.parquet")
    pq.write_table(pa.table({"prompt": ["x"], "answer_nodes": ["a"], "problem_type": ["bfs"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 0: answer_nodes is no list of names"):
        load_data(TASK, tmp_path / "x.parquet")


def test_the_commands(tmp_path: Path) -> None:
    data = made("graphwalks", tmp_path, 1_024, "--option", "operation=bfs")
    assert [record["correct"] for record in answered("graphwalks", data, tmp_path / "run")] == [1.0]
