"""Library calls in processes of their own: configurations as JSON, results and failures, launches of several."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.api import registry
from infini_eval.cli import isolated
from infini_eval.config import (
    EvalConfig,
    FakeSettings,
    JudgeConfig,
    LoadSettings,
    ModelSettings,
    PromptSettings,
    Sampling,
    Topology,
)
from infini_eval.errors import EXIT_USAGE, ConfigError
from support.tiny_aa_lcr import write_tiny_aa_lcr

FULL = EvalConfig(
    "m",
    "run",
    "data",
    backend="transformers",
    depths=(0.0, 50.0),
    model=ModelSettings(dtype="bfloat16", rope_interleaved=False),
    topology=Topology(tp=2),
    sampling=Sampling(temperature=0.5, seed=7),
    backend_settings=(PromptSettings("off"), LoadSettings(quantization="4bit")),
    task_options=(("revision", "v1.1"),),
)


def through_json(config):
    kinds = registry.backend_face(getattr(config, "judge", config).backend).settings
    return type(config).from_json(json.loads(json.dumps(config.to_json())), kinds)


def test_configurations_survive_json() -> None:
    assert through_json(FULL) == FULL
    asked = JudgeConfig("answers.json", FULL, "v1.1", "notes.txt", "strict")
    assert through_json(asked) == asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tempo": 1}, "EvalConfig has no field 'tempo'"),
        ({"backend_settings": {"FakeSettings": {}}}, "FakeSettings"),
        ({"sampling": {"heat": 1}}, "Sampling has no field 'heat'"),
    ],
)
def test_what_is_not_known_is_refused(change: dict, message: str) -> None:
    kinds = registry.backend_face("transformers").settings
    with pytest.raises(ConfigError, match=message):
        EvalConfig.from_json(FULL.to_json() | change, kinds)


def test_settings_that_the_backend_does_not_read_are_refused() -> None:
    with pytest.raises(ConfigError, match="FakeSettings: the backend transformers reads no such settings"):
        registry.for_backend(replace(FULL, backend_settings=(FakeSettings(),)))


def fake_aa_lcr(tmp_path: Path) -> EvalConfig:
    data = write_tiny_aa_lcr(tmp_path / "data")
    config = EvalConfig(
        "m", str(tmp_path / "run"), str(data), task="aa_lcr", backend="fake", scorer="judge", max_new_tokens=64
    )
    return registry.for_backend(config)


def test_a_mistake_comes_back_as_its_message(tmp_path: Path) -> None:
    wrong = replace(fake_aa_lcr(tmp_path), eval_dataset_path=str(tmp_path / "nowhere"))
    made = isolated.call("evaluate", wrong, quiet=True)
    assert made.status == EXIT_USAGE
    assert made.value is None
    assert made.error is not None and "nowhere" in made.error


@pytest.mark.distributed
def test_several_processes_make_one_result_and_one_message(tmp_path: Path) -> None:
    config = fake_aa_lcr(tmp_path)
    made = isolated.call("evaluate", config, processes=2, quiet=True)
    assert (made.error, made.value) == (None, {"folder": config.save_path})
    wrong = replace(config, eval_dataset_path=str(tmp_path / "nowhere"), save_path=str(tmp_path / "other"))
    failed = isolated.call("evaluate", wrong, processes=2, quiet=True)
    assert failed.status != 0
    assert failed.error is not None and "nowhere" in failed.error


def test_a_process_that_leaves_nothing_is_named_by_its_status() -> None:
    assert isolated._last_words("", -9) == "the process ended with status -9 and left no result"
    said = "log\nerror: no such thing\n  valid: another\nTraceback of the launcher\n=====\n"
    assert isolated._last_words(said, 1) == "no such thing\n  valid: another"


def test_memory_and_progress_of_a_process_are_watched(monkeypatch) -> None:
    from infini_eval.planning.devices import Gpu

    used = iter([1000, 3000, 2000, *[500] * 10_000])
    monkeypatch.setattr(isolated, "find_gpus", lambda: [Gpu("H100", 81920, next(used), "570")])
    monkeypatch.setattr(isolated, "SAMPLE_S", 0.01)
    head = "08/12/2025 18:41:23 [INFO|DP=0|PP=0|TP=0]: "
    lines = [f"{head}loading the model: 1.0 GB", f"{head}secret"]
    said = f"import sys, time; print(*{lines}, sep='\\n', file=sys.stderr); time.sleep(1)"
    watch = isolated.ProcessWatch()
    stderr, status = isolated._wait_for([sys.executable, "-c", said], dict(os.environ), quiet=True, watch=watch)
    assert (status, len(stderr.splitlines()), watch.said) == (0, 2, "loading the model: 1.0 GB")
    assert watch.host_peak_bytes > 1_000_000
    assert watch.peaks()["gpu_peak_bytes"] == [3000 * 2**20]
    watch.host_bytes = 2_000_000_000
    assert watch.words() == "2.0 GB of the host's memory, GPU 0 524.3 MB"
