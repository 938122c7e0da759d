"""The same logits and the same tokens at every topology, on real gloo processes, with NaN in every fresh tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.native_model import NativeModel, load_replica
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import tiny_config, tiny_qwen2_config, write_tiny_checkpoint
from support.shared_material import shared_path

TOPOLOGIES = [(2, 1, 1), (4, 1, 1), (1, 2, 1), (1, 4, 1), (1, 1, 2), (1, 1, 4), (1, 2, 2), (2, 2, 1), (2, 1, 2)]
VARIANTS = ["nanotron/mha", "nanotron/gqa_neox", "nanotron/tied", "nanotron/act_orig_tanh", "nanotron/memory_off"]
VARIANTS += ["nanotron/bf16_disk", "nanotron-main/llama_gqa", "nanotron-main/llama_mha_tied", "nanotron-main/llama_mup"]
VARIANTS += [f"nanotron-main-qwen2/qwen2_{name}" for name in ("gqa", "gqa_bias", "norope", "swa", "rope_interp")]
QWEN2 = {  # two kv heads, so that tp=4 shares them; every second layer without rotary and window
    "num_key_value_heads": 2,
    "attention_bias": True,
    "no_rope_layer": 2,
    "sliding_window_size": 11,
    "rope_seq_len_interpolation_factor": 2.0,
    "tie_word_embeddings": True,
}
LENGTHS = (1, 7, 8, 9, 29, 63, 333)


def load_here(path: str, shape: MeshShape, chunk_segments: int = 2) -> NativeModel:
    import os

    mesh = Mesh.build(shape, int(os.environ["RANK"]))
    settings = ModelSettings(dtype="float32", chunk_segments=chunk_segments)
    return load_replica(Checkpoint(path), settings, mesh, "cpu")


def compute_fixtures(folders: list[str], dp: int, tp: int, pp: int) -> list[tuple[float, bool]]:
    """In each process: largest difference from the reference's logits, and whether the greedy tokens are its own."""
    found = []
    for folder in folders:
        reference = load_file(f"{folder}/logits.safetensors")
        generation = json.loads(Path(folder, "generation.json").read_text())
        model = load_here(str(sorted(Path(folder).glob("tp*"))[-1]), MeshShape(dp, tp, pp))
        difference = (model.logits(reference["input_ids"]) - reference["logits"]).abs().max().item()
        tokens = model.generate(generation["prompt_ids"], generation["new_tokens"], stop_ids=(), batch_size=1)
        found.append((difference, tokens == generation["generated"]))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(("dp", "tp", "pp"), TOPOLOGIES)
def test_fixtures_at_every_topology(dp: int, tp: int, pp: int) -> None:
    folders = [str(shared_path("fixtures", *variant.split("/"))) for variant in VARIANTS]
    for rank in run_distributed_test(compute_fixtures, dp * tp * pp, args=(folders, dp, tp, pp)):
        for variant, (difference, same_tokens) in zip(VARIANTS, rank, strict=True):
            assert difference <= 1e-4, variant
            assert same_tokens, variant


def answers_here(path: str, shape: MeshShape, **settings) -> dict:
    """Logits at odd lengths, and answers to many unequal prompts in flight at once, greedy and drawn."""
    model = load_here(path, shape)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 96, size) for size in LENGTHS]
    return {
        "logits": [model.logits(prompt[None]).sum(dim=(0, 1))[:8].tolist() for prompt in prompts],
        "greedy": model.generate(prompts, 19, stop_ids=(), batch_size=2),
        "drawn": model.generate(prompts, 9, stop_ids=(), temperature=1.0, top_p=0.9, seed=5),
        "stopped": model.generate(prompts, 19, stop_ids=range(0, 96, 5)),
    }


def answers_of_rank(path: str, dp: int, tp: int, pp: int) -> dict:
    return answers_here(path, MeshShape(dp, tp, pp))


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (1, 4), (2, 2)])
@pytest.mark.parametrize("kind", ["infini", "llama", "qwen2"])
def test_unequal_prompts_give_the_same_answers_as_one_process(
    tmp_path, monkeypatch, kind: str, tp: int, pp: int
) -> None:
    if kind == "qwen2":
        config = tiny_qwen2_config(**QWEN2)
    else:
        config = tiny_config(infini=kind == "infini", num_key_value_heads=2)
    path = str(write_tiny_checkpoint(tmp_path / "1", config, tp=2))
    monkeypatch.setenv("RANK", "0")
    expected = answers_here(path, MeshShape())
    for rank in run_distributed_test(answers_of_rank, tp * pp, args=(path, 1, tp, pp)):
        torch.testing.assert_close(torch.tensor(rank["logits"]), torch.tensor(expected["logits"]), atol=1e-3, rtol=1e-4)
        assert rank["greedy"] == expected["greedy"]
        assert rank["drawn"] == expected["drawn"]
        assert rank["stopped"] == expected["stopped"]


@pytest.mark.parametrize("config", [tiny_config(num_key_value_heads=1), tiny_qwen2_config(**QWEN2)])
def test_more_kv_replicas_than_kv_heads(tmp_path, monkeypatch, config) -> None:
    """tp=4 with one kv head, or two: several ranks hold it."""
    path = str(write_tiny_checkpoint(tmp_path / "1", config))
    monkeypatch.setenv("RANK", "0")
    expected = answers_here(path, MeshShape())
    for rank in run_distributed_test(answers_of_rank, 4, args=(path, 1, 4, 1)):
        assert rank["greedy"] == expected["greedy"]
