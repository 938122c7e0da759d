"""The vllm backend against a stand-in for vLLM: what is passed on, and in which order answers come back."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, LoadSettings, ModelSettings, Sampling, Topology, VllmSettings
from infini_eval.data.tokenizer import load_tokenizer
from infini_eval.errors import BackendError, CheckpointError, ConfigError, TopologyError
from support.fake_vllm import fake_vllm

DATA = Path(__file__).resolve().parents[2] / "examples/infinite-context-length/data/demo-1024-passkey-eval"

NO_LOADING = LoadSettings()


def config_of(model: Path, save_path: Path, loading=NO_LOADING, **fields) -> EvalConfig:
    settings = (loading,)
    common = {"backend": "vllm", "model": ModelSettings(device="cpu", dtype="bfloat16"), "backend_settings": settings}
    return EvalConfig(str(model), str(save_path), str(DATA), **(common | fields))


def test_sizes_and_sampling_are_passed_on(hf_model, tmp_path, answers, monkeypatch) -> None:
    calls: list = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(calls))
    sampling = Sampling(0.5, 20, 0.9, 4)
    got = answers(config_of(hf_model, tmp_path, topology=Topology(tp=4, pp=2), sampling=sampling))
    assert [one.token_ids for one in got] == [[21, 22, 23]] * 3 and got[0].prompt_tokens == 1008
    assert got[0].text == load_tokenizer(str(hf_model)).decode([21, 22, 23]) and got[0].finish_reason == "stop"
    (_, loaded), (_, (prompts, settings)) = calls
    sizes = {
        name: loaded[name] for name in ("tensor_parallel_size", "pipeline_parallel_size", "max_model_len", "dtype")
    }
    assert sizes == {
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
        "max_model_len": 1008 + 15,
        "dtype": "bfloat16",
    }
    assert [len(prompt["prompt_token_ids"]) for prompt in prompts] == [1008] * 3
    assert (settings[0].max_tokens, settings[0].temperature, settings[0].top_k) == (15, 0.5, 20)
    assert len({one.seed for one in settings}) == 3


def test_a_cut_prompt_is_an_error(hf_model, tmp_path, answers, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([], reads=500))
    (response,) = answers(config_of(hf_model, tmp_path), 1)
    assert response.finish_reason == "error" and "500 of 1,008" in response.error


def test_without_vllm_the_other_road_is_named(hf_model, tmp_path, opened, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BackendError) as caught, opened(config_of(hf_model, tmp_path)):
        pass
    assert "vllm serve" in str(caught.value) and "pip install 'infini-eval[vllm]'" in str(caught.value)


def test_flags_that_it_does_not_take_are_refused(hf_model, tmp_path, opened, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([]))
    with pytest.raises(ConfigError), opened(config_of(hf_model, tmp_path, LoadSettings(quantization="4bit"))):
        pass
    with (
        pytest.raises(ConfigError, match="--device cuda"),
        opened(replace(config_of(hf_model, tmp_path), model=ModelSettings(device="cuda"))),
    ):
        pass
    with (
        pytest.raises(TopologyError, match="--dp 2: vLLM starts"),
        opened(config_of(hf_model, tmp_path, topology=Topology(dp=2))),
    ):
        pass


def test_the_checkpoints_dtype_is_kept(hf_model, tmp_path, answers, monkeypatch) -> None:
    """vLLM's own choice for float32 weights is bfloat16."""
    calls: list = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(calls))
    answers(replace(config_of(hf_model, tmp_path), model=ModelSettings(device="cpu")), 1)
    assert calls[0][1]["dtype"] == "float32"


def test_further_arguments_reach_vllm_and_only_what_changes_answers_is_identity(
    hf_model, tmp_path, opened, monkeypatch
):
    calls: list = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(calls))
    own = {"distributed_executor_backend": "ray", "nnodes": 2, "kv_cache_dtype": "fp8"}
    extra = VllmSettings(json.dumps(own))
    with opened(config_of(hf_model, tmp_path, extra), 1) as it:
        it.backend.load(it.plan)
        assert calls[0][1].items() >= own.items()
        assert it.backend.identity()["model"]["vllm_extra"] == {"kv_cache_dtype": "fp8"}
        assert it.backend.environment()["packages"]["vllm"] == "0.0.stand-in"
    with (
        pytest.raises(ConfigError, match="--vllm-extra"),
        opened(config_of(hf_model, tmp_path, VllmSettings("[]"))),
    ):
        pass


def test_prompts_beyond_max_model_len_fail_and_the_others_are_answered(
    hf_model, tmp_path, answers, monkeypatch
) -> None:
    calls: list = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(calls))
    for limit, failed in ((1008 + 15, False), (1008 + 14, True)):
        extra = VllmSettings(json.dumps({"max_model_len": limit}))
        (response,) = answers(config_of(hf_model, tmp_path, extra), 1)
        assert (response.error is not None) == failed
    assert "too long" in response.error and f"{limit:,}" in response.error
    assert len([name for name, _ in calls if name == "generate"]) == 1, "what cannot be read is not sent"


def test_an_engine_that_stops_ends_the_run_with_one_message(hf_model, tmp_path, opened, in_order, monkeypatch) -> None:
    engine_error = type("EngineDeadError", (Exception,), {"__module__": "vllm.v1.engine.exceptions"})
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([]))
    with opened(config_of(hf_model, tmp_path), 1) as it:
        it.backend.load(it.plan)
        for error, seen in ((engine_error("worker 0 died"), BackendError), (KeyError("ours"), KeyError)):

            def stops(*arguments, error=error, **settings):
                raise error

            it.backend._llm.generate = stops
            with pytest.raises(seen, match=r"worker 0 died|ours"):
                in_order(it.backend, it.prepared)


def test_a_model_that_is_none_is_said_so(tmp_path, opened, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm([]))
    with pytest.raises(CheckpointError, match=r"no config\.json"), opened(config_of(tmp_path, tmp_path)):
        pass
