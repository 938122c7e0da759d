"""bitsandbytes with tiny models: what is really quantised, fused experts of a tiny Llama 4, and shapes its kernels refuse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from infini_eval.backends.huggingface import load as hf_load
from infini_eval.backends.huggingface import quantized as hf_quantized
from infini_eval.config import EvalConfig, LoadSettings, ModelSettings
from infini_eval.errors import BackendError
from infini_eval.testing.tiny_models import write_tiny_hf_model

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"


def config_of(model: Path, save_path: Path, quantization: str) -> EvalConfig:
    settings = (LoadSettings(quantization=quantization),)
    own = {"backend": "transformers", "model": ModelSettings(device="cpu"), "max_new_tokens": 4}
    return EvalConfig(str(model), str(save_path), str(DATA), backend_settings=settings, **own)


def write_tiny_llama4(folder: Path, **changes: Any) -> Path:
    """A random Llama 4 (text only) whose experts are fused parameters [experts, in, out], as in the published ones."""
    import transformers

    shape = {"hidden_size": 64, "intermediate_size": 64, "intermediate_size_mlp": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1040}
    shape |= {"num_local_experts": 4, "pad_token_id": 0, "max_position_embeddings": 4096}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**(shape | changes))).save_pretrained(folder)
    for file in TOKENIZER.glob("*.json"):
        shutil.copy(file, folder)
    return folder


def test_fused_experts_that_would_stay_large_are_refused_before_loading(tmp_path, opened) -> None:
    config = config_of(write_tiny_llama4(tmp_path / "m"), tmp_path / "run", "4bit")
    with pytest.raises(BackendError, match=r"converts only \d+ % .*experts"), opened(config):
        pass


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_the_plan_knows_that_fused_experts_keep_their_size(tmp_path, opened, monkeypatch, quantization) -> None:
    """The refusal is switched off, so that the claim behind it is measured: what the quantizer leaves is as large as planned."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    monkeypatch.setattr(hf_quantized, "refuse_what_stays_large", lambda *arguments: None)
    config = config_of(write_tiny_llama4(tmp_path / "m"), tmp_path / "run", quantization)
    with opened(config, 1) as it:
        it.backend.load(it.plan)
        model, planned = it.backend._generator._model, it.backend._planned
        fused = [each for name, each in model.named_parameters() if "experts" in name and each.ndim == 3]
        assert len(fused) == 4 and {each.dtype for each in fused} == {torch.float32}, "two of each layer, not converted"
        assert sum(each.numel() for each in fused) <= planned.left_out < 1.05 * sum(each.numel() for each in fused)
        real = model.get_memory_footprint(return_buffers=False)
        assert real == pytest.approx(planned.bytes, rel=0.02)
        hoped = planned.bytes - planned.left_out * (4 - hf_quantized.BITS[quantization] / 8)
        with pytest.raises(BackendError, match="not everything was quantised"):
            hf_quantized.check_footprint(model, replace(planned, bytes=int(hoped)), quantization)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantized_weights_take_what_was_planned(tmp_path, opened, quantization) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    model = write_tiny_hf_model(tmp_path / "m", TOKENIZER, hidden_size=64, intermediate_size=64)
    with opened(config_of(model, tmp_path / "run", quantization), 1) as it:
        it.backend.load(it.plan)
        real = it.backend._generator._model.get_memory_footprint(return_buffers=False)
        assert real == pytest.approx(it.backend._planned.bytes, rel=0.05)
        assert it.backend._planned.bytes < it.backend.model_facts()["parameters"] * 4


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
@pytest.mark.parametrize(("width", "inner"), [(32, 48), (48, 48), (40, 72), (64, 64)])
def test_every_width_answers(tmp_path, opened, answers, width, inner, quantization) -> None:
    """The packed CPU kernel of bitsandbytes takes multiples of 32 and 64 only."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    model = write_tiny_hf_model(tmp_path / "m", TOKENIZER, hidden_size=width, intermediate_size=inner)
    (response,) = answers(config_of(model, tmp_path / "run", quantization), 1)
    assert response.error is None and len(response.token_ids) == 4


@pytest.mark.parametrize("width", [48, 64])
def test_the_ordinary_kernel_computes_what_the_quantised_weights_say(tmp_path, width) -> None:
    """Logits equal those of the dequantised weights in plain matmuls, up to bfloat16's rounding."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate")
    path = write_tiny_hf_model(tmp_path / "m", TOKENIZER, hidden_size=width, intermediate_size=width)
    loading, ids_BT = LoadSettings(quantization="4bit"), torch.arange(20)[None]
    quantized = hf_load.load(str(path), ModelSettings(), loading, dtype="float32", device="cpu", tp=1)
    plain = hf_load.load(str(path), ModelSettings(), LoadSettings(), dtype="float32", device="cpu", tp=1)
    for name, module in quantized.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight.float()
    odd = hf_quantized.use_plain_kernels_where_needed(quantized)
    assert odd in (0, 14 if width == 48 else 0)  # none where the processor has no AVX512-BF16
    with torch.inference_mode():
        expected_BTV = plain(ids_BT).logits
        off = (quantized(ids_BT).logits - expected_BTV).norm() / expected_BTV.norm()
    assert off < 0.02, "NF4 itself moves these logits by some 10 %"
