"""Models for other harnesses: arguments as harnesses pass them, devices by their names, rows over replicas."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from infini_eval.config import ModelSettings, Topology
from infini_eval.errors import ConfigError
from infini_eval.harnesses.opened import deal, open_model, read_settings, usable_device
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import write_tiny_checkpoint


def test_arguments_are_settings() -> None:
    given = {
        "memory": "ablate",
        "dtype": "float32",
        "tp": 2,
        "prefix_cache_gb": 0.5,
        "compile": "True",
        "rope_interleaved": False,
    }
    settings, topology = read_settings(given | {"chunk_segments": None})
    assert settings == ModelSettings(
        memory="ablate", dtype="float32", prefix_cache_gb=0.5, compile=True, rope_interleaved=False
    )
    assert topology == Topology(tp=2)


def test_yaml_reads_on_and_off_as_booleans() -> None:
    assert [read_settings({"memory": given})[0].memory for given in (True, False, "on")] == ["on", "off", "on"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"memroy": "on"}, "unknown model argument 'memroy'; did you mean memory"),
        ({"memory": "maybe"}, r"memory=maybe\n  valid: on, off, ablate"),
        ({"tp": 0}, "model argument tp: '0' is not"),
        ({"compile": "perhaps"}, "compile=perhaps"),
    ],
)
def test_wrong_arguments_are_refused(arguments, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        read_settings(arguments)


def test_cuda_is_the_cpu_where_there_is_none_and_a_note_says_so(monkeypatch, caplog) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert [usable_device(name) for name in (None, "auto", "cpu")] == [None, None, "cpu"] and not caplog.records
        assert usable_device("cuda:0") == "cpu"
    assert "torch sees no GPU here: this runs on the CPU" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_device("cuda:0") == "cuda:0"
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        usable_device("tpu")


def test_families_stay_together_and_loads_are_even() -> None:
    assert deal([5, 1, 5, 1, 4, 1], ["a", "b", "a", "b", "c", "d"], 2) == [[0, 2], [1, 3, 4, 5]]
    assert deal([1, 2], ["a", "b"], 3) == [[1], [0], []]


def scores_over_replicas(path: str) -> tuple[list[list[float]], list[int]]:
    opened = open_model(path, None, "cpu", {"dp": 2})
    rows, mine = [[1, 2, 3 + n] for n in range(5)], []

    def work(numbers: list[int]) -> list[list[float]]:
        mine.extend(numbers)
        return [one.logprobs.tolist() for one in opened.model.score([rows[n] for n in numbers], [2] * len(numbers))]

    found = opened.over_replicas([1] * 5, range(5), work)
    opened.close()
    return found, mine


@pytest.mark.distributed
def test_replicas_share_the_rows(tmp_path: Path) -> None:
    path = write_tiny_checkpoint(tmp_path / "1")
    alone = open_model(str(path), None, "cpu", {})
    expected = [one.logprobs.tolist() for one in alone.model.score([[1, 2, 3 + n] for n in range(5)], [2] * 5)]
    (first, ours), (second, theirs) = run_distributed_test(scores_over_replicas, 2, None, args=(str(path),))
    assert first == second
    torch.testing.assert_close(torch.tensor(first), torch.tensor(expected), atol=1e-5, rtol=0)
    assert sorted(ours + theirs) == [0, 1, 2, 3, 4] and len(ours) in (2, 3)
