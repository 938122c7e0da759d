"""json_kv: a whole JSON object of exact length, the asked pair at its depth, judged as published."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from infini_eval.api import registry
from infini_eval.errors import DataError
from infini_eval.records import Sample
from support.small_runs import answered, made, rows, tokenizer


@pytest.mark.parametrize("length", [512, 2_048, 5_001])
def test_the_object_holds_the_pair_at_its_depth(length: int) -> None:
    for row in rows("json_kv", length, depths=(0, 50, 100)):
        held = json.loads(row["prompt"][row["prompt"].index("{") : row["prompt"].rindex("}") + 1])
        key = row["prompt"].rpartition('key "')[2].partition('"')[0]
        assert held[key] == row["answer"]
        assert list(held).index(key) == round((len(held) - 1) * row["depth_percent"] / 100)
        assert row["token_count"] == length == tokenizer().count(row["prompt"])
        assert row["real_depth"] == pytest.approx(row["depth_percent"], abs=100 / len(held) + 3)
        assert row["prompt"].count(row["answer"]) == 1


def test_every_row_has_pairs_of_its_own() -> None:
    prompts = [row["prompt"] for row in rows("json_kv", 1_024, depths=(50,), num_prompts=3)]
    keys = [set(json.loads(p[p.index("{") : p.rindex("}") + 1])) for p in prompts]
    assert not keys[0] & keys[1] and not keys[1] & keys[2]


def test_a_length_below_two_pairs_is_refused() -> None:
    with pytest.raises(DataError, match="tokens are too few"):
        rows("json_kv", 128, depths=(50,))


def test_judged_as_published_on_random_answers() -> None:
    """Published rule: the value occurs in the answer, both in lower case."""
    draw = random.Random(3)
    judge = registry.scorer("contains")
    for _ in range(10_000):
        value = "".join(draw.choices("ab-", k=3))
        text = "".join(draw.choices("aAbB- \n", k=draw.randrange(12)))
        if "-" in value:  # a UUID has neither white space nor letters whose cases are not each other's
            expected = float(value.lower() in text.lower())
            assert judge(text, Sample("a", "", value, 0.0)).value == expected


def test_the_commands(tmp_path: Path) -> None:
    data = made("json_kv", tmp_path, 1_024, "--depths", "0,100")
    assert [record["correct"] for record in answered("json_kv", data, tmp_path / "run")] == [1.0, 1.0]
