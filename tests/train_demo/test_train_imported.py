"""The script that continues an imported demo: it trains the function that was imported, and writes the next step."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import infini_eval
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.models.naive import naive_logits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is a module of the repository, not of the distribution

from scripts import train_imported  # noqa: E402


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("imported") / "out"
    infini_eval.import_model(ROOT / "checkpoints/llama-demo", folder, segment_length=64, gate_init=0.5)
    return Checkpoint(folder)


def test_training_computes_what_evaluation_computes(imported: Checkpoint) -> None:
    weights = {name: imported.read(name) for name in imported.specs}
    ids = torch.randint(5, 1000, (2, 256), generator=torch.Generator().manual_seed(0))
    model = train_imported.model_of(imported, seed=0, product_type=torch.float32)
    with torch.no_grad():
        got = model(ids, torch.arange(256).expand(2, -1), segment_length=64)
    expected = naive_logits(weights, imported.config, ids, memory="on", memory_query="rotary")
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=0)


def test_the_next_step_is_a_checkpoint_that_can_be_exported(imported: Checkpoint, tmp_path: Path) -> None:
    model = train_imported.model_of(imported, seed=0)
    with torch.no_grad():
        model.named_weights()["model.final_layer_norm.pp_block.weight"].mul_(2)
    save_file({name: weight.detach() for name, weight in model.named_weights().items()}, tmp_path / "w.safetensors")
    folder = train_imported.write(imported, tmp_path / "w.safetensors", tmp_path / "next", 7)
    written = Checkpoint(tmp_path / "next")
    assert folder == written.folder == tmp_path / "next" / "7"
    assert replace(written.config, saved_tp=1) == imported.config
    name = "model.final_layer_norm.pp_block.weight"
    assert torch.equal(written.read(name), 2 * imported.read(name))
    infini_eval.export(folder, format="hf", output=tmp_path / "hf")
    assert (tmp_path / "hf" / "tokenizer.json").is_file()


def test_gates_that_are_shut_have_a_gradient(tmp_path: Path) -> None:
    infini_eval.import_model(ROOT / "checkpoints/llama-demo", tmp_path / "out", segment_length=64)
    model = train_imported.model_of(Checkpoint(tmp_path / "out"), seed=0, product_type=torch.float32)
    ids = torch.randint(5, 1000, (2, 192), generator=torch.Generator().manual_seed(0))
    logits = model(ids, torch.arange(191).expand(2, -1), segment_length=64)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    gates = [weight for name, weight in model.named_weights().items() if name.endswith("balance_factors")]
    assert all(bool((weight.grad != 0).all()) for weight in gates)
