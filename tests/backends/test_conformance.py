"""What every backend must do, asked of all of them alike: one test body a promise."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infini_eval.api import registry
from infini_eval.config import EvalConfig, FakeSettings, ModelSettings
from infini_eval.evaluation.guard import plan_memory
from infini_eval.records import Response
from infini_eval.results.files import to_jsonable
from infini_eval.testing.fake_vllm import fake_vllm

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
FACTS = {"name", "kind", "parameters", "segment_length", "dtype", "memory", "memory_query"}
BACKENDS = ("fake", "gemini", "nanotron", "openai", "transformers", "vllm")
SECRET = "sk-secret-0123456789"


@pytest.fixture(params=BACKENDS)
def config(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvalConfig:
    """A working configuration of each backend."""
    name = request.param
    if name in ("openai", "gemini"):
        pytest.importorskip("openai" if name == "openai" else "google.genai")
        server = request.getfixturevalue("serve")()
        return request.getfixturevalue("remote_config")(server, name)
    model = "any"
    if name == "nanotron":
        model = str(ROOT / "checkpoints/infini-demo")
    elif name in ("transformers", "vllm"):
        model = str(request.getfixturevalue("hf_model"))
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([]))
    return EvalConfig(
        model, str(tmp_path / "run"), str(DATA), backend=name, model=ModelSettings(device="cpu"), max_new_tokens=5
    )


def test_the_suite_knows_every_backend() -> None:
    assert tuple(registry.names("backends")) == BACKENDS


def test_facts_identity_and_environment_are_json_without_a_key(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 1) as it:
        assert set(it.backend.model_facts()) >= FACTS
        assert isinstance(it.backend.model_facts()["name"], str)
        assert {"ckpt_path", "topology"} <= set(it.backend.environment())
        for said in (it.backend.model_facts(), it.backend.identity(), it.backend.environment()):
            text = json.dumps(said)
            assert SECRET not in text and json.loads(text) == to_jsonable(said)


def test_the_identity_has_what_changes_an_answer_and_nothing_else(
    config: EvalConfig, opened: Callable[..., Any]
) -> None:
    def identity(changed: EvalConfig) -> Any:
        with opened(changed, 1) as it:
            return to_jsonable(it.backend.identity())

    own = identity(config)
    assert own == identity(replace(config, save_path=config.save_path + "2", batch_size=2, quiet=True))
    assert own != identity(replace(config, sampling=replace(config.sampling, temperature=0.5)))
    assert own != identity(replace(config, backend_settings=(FakeSettings(horizon=9),))) or (config.backend != "fake")


def test_prepared_samples_keep_the_sample_and_know_its_needle(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config) as it:
        for sample, prepared in zip(it.samples, it.prepared, strict=True):
            assert prepared.sample is sample and sample.answer in prepared.excerpt
            assert prepared.ids.dtype == np.int32 and len(prepared.ids) in (0, prepared.tokens)
            if prepared.tokens:
                assert 0 <= prepared.position.token_start < prepared.position.token_end <= prepared.tokens


def test_the_plan_has_every_sample_once(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 7) as it:
        batches = it.backend.plan(it.prepared).batches
        assert sorted(row for batch in batches for row in batch.rows) == list(range(7))
        assert batches == it.backend.plan(it.prepared).batches
        assert all(batch.cost > 0 for batch in batches)
        smaller = it.backend.plan(it.prepared, 2).batches
        assert max(len(batch.rows) for batch in smaller) <= 2
        assert sorted(row for batch in smaller for row in batch.rows) == list(range(7))


def test_what_computes_here_says_what_it_needs(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 1) as it:
        footprint = it.backend.footprint(it.plan)
        assert (footprint is not None) == (config.backend in ("nanotron", "transformers"))
        if footprint is not None:
            plan = plan_memory(footprint, [(1, it.prepared[0].tokens + config.max_new_tokens)])
            parameters, dtype_bytes = it.backend.model_facts()["parameters"], 4
            assert plan.fits and plan.weights == pytest.approx(parameters * dtype_bytes, rel=0.01)


def test_every_sample_is_answered_once_and_again_alike(
    config: EvalConfig, answers: Callable[..., list[Response]]
) -> None:
    got = answers(config, 4)
    assert len(got) == 4
    for response in got:
        assert response.error is None and response.finish_reason in ("stop", "length")
        assert isinstance(response.text, str) and response.seconds >= 0 and response.prompt_tokens > 0
        assert json.loads(json.dumps(dict(response.details))) == response.details
    assert [one.text for one in answers(config, 4)] == [one.text for one in got]


def test_tokens_are_counted_for_the_progress_bar(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 2) as it:
        it.backend.load(it.plan)
        counted: list[int] = []
        work = ((batch, it.prepared) for batch in it.plan.batches)
        list(it.backend.answer(work, on_tokens=counted.append))
        assert sum(counted) > 0


def test_no_work_is_no_answer(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 1) as it:
        it.backend.load(it.plan)
        assert list(it.backend.answer(iter([]))) == []
