"""The stable feature map: sigma as fp64 has it, the same in naive, chunks, open segments, fixed decoding; bf16 memories."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.engine.fixed_decode import FixedDecoders, run_eagerly
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import ConfigError, NumericsError, RunFolderError
from infini_eval.evaluation.run import evaluate
from infini_eval.models import memory
from infini_eval.models.naive import feature_map, naive_logits
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "checkpoints/infini-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"


def load(path: Path, **settings) -> NativeModel:
    return NativeModel.load(Checkpoint(path), ModelSettings(device="cpu", **settings))


@pytest.fixture
def path(tmp_path) -> Path:
    """Queries and keys far enough below zero for the two maps to differ."""
    return write_tiny_checkpoint(tmp_path / "1", tiny_config(num_key_value_heads=2))


def test_the_stable_map_is_exact_below_zero_and_never_zero() -> None:
    u = torch.linspace(-80, 20, 4001, dtype=torch.float64)
    exact = torch.where(u > 0, u + 1, u.exp())
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 0.3)):  # of u itself once it is rounded
        stable = feature_map(u.to(dtype), "stable").double()
        assert ((stable - exact) / exact).abs().max() < error and stable.min() > 0
        assert feature_map(u.to(dtype)).min() == 0
    rounded = u.bfloat16()
    ours, truth = feature_map(rounded, "stable").double(), feature_map(rounded.double(), "stable")
    assert ((ours - truth) / truth).abs().max() <= 2**-8  # the last rounding alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_take_the_same_map_in_place(dtype) -> None:
    x = 9 * torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    for kind in ("reference", "stable"):
        expected = feature_map(x, kind)
        assert torch.equal(memory._to_features(x.clone(), kind), expected)


@pytest.mark.parametrize("tokens", [7, 8, 29, 63])
@pytest.mark.parametrize("chunk_segments", [1, 3])
def test_streaming_equals_naive(path, tokens: int, chunk_segments: int) -> None:
    model = load(path, feature_map="stable", chunk_segments=chunk_segments)
    for layer in model.llama.layers:
        layer.qkv.mul_(3)
    weights = {name: model.checkpoint.read(name) for name in model.checkpoint.specs}
    for name in weights:
        if "qkv" in name:
            weights[name] = weights[name] * 3
    ids = torch.randint(96, (2, tokens), generator=torch.Generator().manual_seed(tokens))
    expected, other = (
        naive_logits(weights, model.config, ids, memory="on", memory_query="rotary", features=kind)
        for kind in ("stable", "reference")
    )
    torch.testing.assert_close(model.logits(ids), expected, atol=1e-4, rtol=0)
    assert tokens <= 8 or not torch.equal(expected, other)


def test_decoding_over_borders_takes_it_too(path) -> None:
    asked = [list(range(3, 23)), list(range(40, 71))]
    model = load(path, feature_map="stable")
    expected = model.generate(asked, 20, stop_ids=())
    for prompt, answer in zip(asked, expected, strict=True):  # what reading all of it again says
        logits = model.logits([prompt + answer])[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer
    model.decoders = FixedDecoders(model.llama, run_eagerly)
    assert model.generate(asked, 20, stop_ids=()) == expected


def test_a_bf16_memory_works_where_the_reference_ends_in_nan() -> None:
    ids = torch.randint(1000, (1, 4096), generator=torch.Generator().manual_seed(0)).tolist()
    settings = {"dtype": "bfloat16", "memory_dtype": "model"}
    with pytest.raises(NumericsError):
        load(DEMO, **settings).generate(ids, 2, stop_ids=())
    assert len(load(DEMO, **settings, feature_map="stable").generate(ids, 2, stop_ids=())[0]) == 2


def test_a_plain_llama_has_no_feature_map(tmp_path) -> None:
    path = write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False))
    with pytest.raises(ConfigError, match=r"--feature-map stable, but .* plain Llama"):
        load(path, feature_map="stable")


def test_a_run_does_not_mix_feature_maps(tmp_path) -> None:
    def run(**settings) -> None:
        model = ModelSettings(device="cpu", **settings)
        config = EvalConfig(
            *(str(DEMO), str(tmp_path / "run"), str(DATA)),
            num_samples=1, depths=(0,), max_new_tokens=2, model=model, quiet=True,
        )  # fmt: skip
        evaluate(config)

    run()
    assert "feature_map" not in (tmp_path / "run/manifest.json").read_text()  # older runs continue
    with pytest.raises(RunFolderError, match=r'model.feature_map: \(absent\) -> "stable"'):
        run(feature_map="stable")
