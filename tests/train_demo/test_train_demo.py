"""The training script of the shipped checkpoint: it trains the function that is evaluated, and resumes exactly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.models.naive import naive_logits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is a package of the repository, not of the distribution

from scripts.train_demo.model import InfiniLlama, ModelConfig  # noqa: E402
from scripts.train_demo.saves import Progress, resume, save  # noqa: E402
from scripts.train_demo.train import make_optimizer  # noqa: E402


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(ROOT / "checkpoints/infini-demo")


def test_training_computes_what_evaluation_computes(checkpoint: Checkpoint) -> None:
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    model = InfiniLlama(ModelConfig(vocab_size=checkpoint.config.vocab_size), seed=0, product_type=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_weights().items():
            weight.copy_(weights[name])
    ids = torch.randint(5, 1000, (2, 512), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(512).expand(2, -1)
    for ablate, memory in ((False, "on"), (True, "ablate")):
        expected = naive_logits(weights, checkpoint.config, ids, memory=memory, memory_query="rotary")
        got = model(ids, positions, segment_length=128, ablate=ablate)
        torch.testing.assert_close(got, expected, atol=2e-4, rtol=0)


def one_step(model: InfiniLlama, optimizer: torch.optim.Optimizer, seed: int) -> None:
    ids = torch.randint(5, 90, (2, 128), generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(128).expand(2, -1)
    loss = torch.nn.functional.cross_entropy(model(ids, positions, 64)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_an_interrupted_run_ends_bit_equal(tmp_path: Path) -> None:
    config = ModelConfig(vocab_size=96)
    whole = InfiniLlama(config, seed=1)
    optimizer = make_optimizer(whole)
    for step in range(4):
        one_step(whole, optimizer, step)

    first = InfiniLlama(config, seed=1)
    optimizer = make_optimizer(first)
    for step in range(2):
        one_step(first, optimizer, step)
    save(tmp_path, first, optimizer, Progress(seed=1, step=2))
    second = InfiniLlama(config, seed=99)
    optimizer = make_optimizer(second)
    progress = resume(tmp_path, second, optimizer)
    assert progress is not None and progress.step == 2
    for step in range(2, 4):
        one_step(second, optimizer, step)
    for name, weight in whole.named_weights().items():
        assert torch.equal(weight, second.named_weights()[name]), name


def test_the_save_holds_no_pickle(tmp_path: Path) -> None:
    model = InfiniLlama(ModelConfig(vocab_size=96), seed=1)
    save(tmp_path, model, make_optimizer(model), Progress(seed=1))
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {"", ".safetensors", ".json"}
