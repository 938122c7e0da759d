"""The vllm backend against a stand-in for vLLM: what is passed on, and in which order answers come back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infini_eval.config import BackendSettings, EvalConfig, LoadSettings, ModelSettings, Sampling, Topology
from infini_eval.errors import BackendError, ConfigError
from infini_eval.testing.fake_vllm import fake_vllm

DATA = Path(__file__).resolve().parents[2] / "examples/infinite-context-length/data/demo-1024-passkey-eval"

NO_LOADING = LoadSettings()


def config_of(model: Path, save_path: Path, loading=NO_LOADING, **fields) -> EvalConfig:
    settings = BackendSettings(loading=loading)
    common = {"backend": "vllm", "model": ModelSettings(device="cpu", dtype="bfloat16"), "backend_settings": settings}
    return EvalConfig(str(model), str(save_path), str(DATA), **(common | fields))


def test_sizes_and_sampling_are_passed_on(hf_model, tmp_path, answers, monkeypatch) -> None:
    calls: list = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(calls))
    sampling = Sampling(0.5, 20, 0.9, 4)
    got = answers(config_of(hf_model, tmp_path, topology=Topology(tp=4, pp=2), sampling=sampling))
    assert [one.text for one in got] == [" 12345."] * 3 and got[0].prompt_tokens == 1008
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
