"""The fake backend: a known horizon, near misses and failures at set rates, the same at every attempt."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from infini_eval.backends.fake import FORGOTTEN, near_miss
from infini_eval.config import EvalConfig, FakeSettings, ModelSettings
from infini_eval.errors import ConfigError, TopologyError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TOKENIZER = str(ROOT / "checkpoints/infini-demo/tokenizer")


def config(tmp_path: Path, **fields) -> EvalConfig:
    settings = (FakeSettings(**fields),)
    cpu = ModelSettings(device="cpu")
    return EvalConfig(
        "any", str(tmp_path), str(DATA), backend="fake", tokenizer=TOKENIZER, model=cpu, backend_settings=settings
    )


def test_it_forgets_exactly_beyond_its_horizon(tmp_path, opened) -> None:
    with opened(config(tmp_path), 30) as it:
        distances = [one.tokens - one.position.token_end for one in it.prepared]
    horizon = sorted(distances)[15]
    with opened(config(tmp_path, horizon=horizon), 30) as it:
        for distance, prepared in zip(distances, it.prepared, strict=True):
            knows = prepared.sample.answer in it.backend._respond(prepared).text
            assert knows == (distance <= horizon)


def test_rates_are_met_and_drawn_once_for_all(tmp_path, answers) -> None:
    wanted = config(tmp_path, near_miss_rate=0.3, failure_rate=0.2)
    got, again = answers(wanted, 400), answers(wanted, 400)
    assert [response.text for response in got] == [response.text for response in again]
    failed = sum(response.finish_reason == "error" for response in got)
    assert 0 < failed < len(got) and all(response.error for response in got if response.finish_reason == "error")
    assert abs(failed / len(got) - 0.2) < 0.15


def test_a_near_miss_differs_in_one_digit() -> None:
    for seed in range(50):
        missed = near_miss("48213", random.Random(seed))
        assert sum(a != b for a, b in zip(missed, "48213", strict=True)) == 1 and missed.isdigit()
    assert near_miss("", random.Random(0)) == "?"


def test_the_failure_rate_is_no_part_of_the_runs_identity(tmp_path, opened) -> None:
    with opened(config(tmp_path, failure_rate=0.5)) as one, opened(config(tmp_path)) as other:
        assert one.backend.identity() == other.backend.identity()
    with opened(config(tmp_path, horizon=10)) as one, opened(config(tmp_path)) as other:
        assert one.backend.identity() != other.backend.identity()


def test_settings_that_make_no_sense(tmp_path, opened) -> None:
    from dataclasses import replace

    from infini_eval.config import Topology

    with pytest.raises(ConfigError, match="--fake-failure-rate 2"), opened(config(tmp_path, failure_rate=2)):
        pass
    with pytest.raises(TopologyError, match="--tp 2"), opened(replace(config(tmp_path), topology=Topology(tp=2))):
        pass
    assert FORGOTTEN
