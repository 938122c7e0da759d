"""Early stop: the same scores from fewer tokens, alone and in batches, in the backends that draw token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.api.backend import EarlyStop
from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.datasets.tokenizer import load_tokenizer
from infini_eval.evaluation.answer import Scoring
from infini_eval.evaluation.run_folder import describe_run
from infini_eval.records import Sample
from infini_eval.tasks.passkey import TASK

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
MODELS = {"nanotron": "infini-demo", "transformers": "llama-demo"}


@pytest.fixture(params=MODELS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> EvalConfig:
    model = str(ROOT / "checkpoints" / MODELS[request.param])
    return EvalConfig(model, str(tmp_path), str(DATA), backend=request.param, model=ModelSettings(device="cpu"))


def never_ends(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped models end their answers themselves; here they talk on, as most base models do."""
    if hasattr(backend, "_stop_ids"):
        monkeypatch.setattr(backend, "_stop_ids", frozenset)
    else:
        monkeypatch.setattr(backend._generator, "_stops", frozenset())


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_same_scores_from_fewer_tokens(
    config: EvalConfig,
    batch_size: int,
    opened: Callable[..., Any],
    in_order: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score = registry.scorer("contains")
    tokenizer = load_tokenizer(str(ROOT / "checkpoints/infini-demo/tokenizer"))
    with opened(replace(config, batch_size=batch_size), 4) as it:
        it.backend.load(it.plan)
        never_ends(it.backend, monkeypatch)
        whole = in_order(it.backend, it.prepared)
        early = in_order(it.backend, it.prepared, EarlyStop((score,)))
    for sample, long, short in zip(it.samples, whole, early, strict=True):
        assert score(short.text, sample).value == score(long.text, sample).value
        assert list(long.token_ids[: len(short.token_ids)]) == list(short.token_ids)
        if short.finish_reason == "settled":
            before = tokenizer.decode(short.token_ids[:-1])
            assert score.is_settled(short.text, sample) and not score.is_settled(before, sample)
            assert len(short.token_ids) < config.max_new_tokens
        else:
            assert short.text == long.text and short.finish_reason == "length"
    assert any(short.finish_reason == "settled" for short in early)
    assert {long.finish_reason for long in whole} == {"length"}


def test_the_manifest_tells_runs_apart_that_record_other_texts(config: EvalConfig, opened: Callable[..., Any]) -> None:
    from infini_eval.datasets.parquet import load_samples

    with opened(config, 2) as it:
        data = load_samples(DATA, depths=(0,))
        rule = Scoring.of(TASK, config.scorer).early_stop(it.backend)
        early = describe_run(config, data, it.backend, 2, rule).identity
        whole = describe_run(config, data, it.backend, 2).identity
    assert early["early_stop"] is True
    assert {key: value for key, value in early.items() if key != "early_stop"} == whole


def test_a_scorer_that_wants_the_whole_text_forbids_it(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(config, 1) as it:
        assert Scoring.of(TASK, "rouge_l").early_stop(it.backend) is None
        assert Scoring.of(TASK, config.scorer).early_stop(it.backend, allowed=False) is None
        settled = Scoring.of(TASK, config.scorer).early_stop(it.backend)
    assert settled is not None
    sample = Sample("1", "", "48", 0.0)
    assert settled("it is 48.", sample)
    assert not settled("it is 48", sample), "the number may grow"
    assert not settled("it is 48\ufffd", sample), "half a character may become a digit"
    assert not settled("it is 47.", sample), "contains may still find it"


def test_backends_that_get_whole_texts_never_stop_early(config: EvalConfig, opened: Callable[..., Any]) -> None:
    with opened(replace(config, backend="fake"), 1) as it:
        assert Scoring.of(TASK, config.scorer).early_stop(it.backend) is None
