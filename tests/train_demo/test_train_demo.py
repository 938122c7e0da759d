"""The training script of the shipped checkpoint: it trains the function that is evaluated, and resumes exactly."""

from __future__ import annotations

import math
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.models.naive import naive_logits

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the script is a package of the repository, not of the distribution

from scripts.train_demo import export, text  # noqa: E402
from scripts.train_demo.data import Mix, Source  # noqa: E402
from scripts.train_demo.model import InfiniLlama, ModelConfig, copy_weights, under  # noqa: E402
from scripts.train_demo.past import Past  # noqa: E402
from scripts.train_demo.saves import Progress, resume, save  # noqa: E402
from scripts.train_demo.train import make_optimizer  # noqa: E402


@pytest.fixture
def checkpoint() -> Checkpoint:
    return Checkpoint(ROOT / "checkpoints/infini-demo")


def test_training_computes_what_evaluation_computes(checkpoint: Checkpoint) -> None:
    weights = {name: checkpoint.read(name) for name in checkpoint.specs}
    model = InfiniLlama(ModelConfig(vocab_size=checkpoint.config.vocab_size), seed=0, product_type=torch.float32)
    copy_weights(model, checkpoint)
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


@pytest.fixture(scope="module")
def source() -> Source:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "checkpoints/infini-demo/tokenizer")
    return Source(tokenizer, seed=1, size=20_000)


def test_keys_and_distractors_have_one_to_nine_digits_alike() -> None:
    rng = random.Random(0)
    keys = {len(text.random_number(rng)) for _ in range(300)}
    stated = {len(word) for _ in range(600) for word in re.findall(r"\d+", text.distractor(rng))}
    assert keys == stated == set(range(1, 10))


def test_a_border_cuts_the_key_at_every_digit(source: Source) -> None:
    """Tokens of the answer before the border, of 9-digit keys: from none to all."""
    mix = Mix(64, (2,), straddle=1.0, digits=9, local_only=0.0)
    batch = source.batch(0, mix, sequences=200)
    cuts = (63 - batch.position_BK[:, 0]).tolist()  # the first position predicts the first digit
    assert set(cuts) == set(range(10))
    assert 0.2 < cuts.count(0) / len(cuts) < 0.5


def test_what_denominators_lack_is_counted_in_nats() -> None:
    assert under(1e-5, torch.tensor([1e-5, 1.0])) == 0
    torch.testing.assert_close(under(1e-5, torch.tensor([1e-6, 1.0])).item(), math.log(10) / 2, rtol=0.01, atol=0)
    assert under(1e-5, torch.zeros(1)).isfinite()


def test_weights_whose_reads_divide_by_almost_nothing_are_found(
    tmp_path: Path, checkpoint: Checkpoint, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "CHECKED", 2)
    model = InfiniLlama(ModelConfig(vocab_size=checkpoint.config.vocab_size), seed=0)
    copy_weights(model, checkpoint)
    mix = Mix(128, (2, 4))
    save_file(model.named_weights(), tmp_path / "sound.safetensors")
    assert export.unsafe_batches(tmp_path / "sound.safetensors", source, mix) == 0
    with torch.no_grad():
        model.named_weights()["model.decoder.1.pp_block.attn.qkv_proj.weight"][:256] *= 4
    save_file(model.named_weights(), tmp_path / "sharp.safetensors")
    assert export.unsafe_batches(tmp_path / "sharp.safetensors", source, mix) == 2


def test_a_past_is_as_if_its_segments_had_been_read(checkpoint: Checkpoint) -> None:
    model = InfiniLlama(ModelConfig(vocab_size=checkpoint.config.vocab_size), seed=0, product_type=torch.float32)
    copy_weights(model, checkpoint)
    ids = torch.randint(5, 1000, (2, 768), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(768).expand(2, -1)
    memory = model.absorb(ids[:, 128:384], 128, model.absorb(ids[:, :128], 128))
    past = Past(memory, torch.tensor([0, -1]))
    with torch.no_grad():
        whole = model(ids, positions, segment_length=128)[:, 384:]
        resumed, _ = model._run(ids[:, 384:], positions[:, :384], 128, None, False, past)
        alone = model(ids[:, 384:], positions[:, :384], segment_length=128)
    torch.testing.assert_close(resumed[0], whole[0], atol=2e-4, rtol=0)
    torch.testing.assert_close(resumed[1], alone[1], atol=2e-4, rtol=0)  # -1: no past
    assert (whole[1] - alone[1]).abs().max() > 0.1


def test_batches_with_a_past_say_where_it_was_read(checkpoint: Checkpoint) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ROOT / "checkpoints/infini-demo/tokenizer")
    source = Source(tokenizer, 1, size=20_000)
    batch = source.batch(3, Mix(128, (6,), past=0.5, local_only=0.0), sequences=40)
    assert {-1, *range(6)} >= set(batch.past_B.tolist()) > {-1}
    assert not (batch.past_B[batch.distance_B == 0] == 5).any()  # the question's own segment is never pushed away
