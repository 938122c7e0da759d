"""The nanotron backend: memory that runs out, failing samples, vocabularies, names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from infini_eval.api.backend import Batch
from infini_eval.backends.nanotron import NanotronBackend, short_count
from infini_eval.config import EvalConfig, ModelSettings, Sampling
from infini_eval.data.reading import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.errors import DataError
from infini_eval.tasks.passkey import TASK

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "checkpoints/infini-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"


@pytest.fixture
def backend(tmp_path):
    config = EvalConfig(str(CHECKPOINT), str(tmp_path), str(DATA), model=ModelSettings(device="cpu"))
    with launch("cpu") as world:
        yield NanotronBackend(config, world)


@pytest.fixture
def prepared(backend):
    samples = load_samples(DATA, depths=(0, 100)).samples[:5]
    return [backend.prepare(sample, TASK.locate(sample)) for sample in samples]


def answer(backend, prepared, rows=(0, 1, 2, 3, 4)):
    return next(iter(backend.answer(iter([(Batch(rows, 1), prepared)]))))[1]


def fail_above(backend, monkeypatch, rows: int) -> list[int]:
    """Memory runs out in steps of more than `rows` rows; returns the batch sizes that were tried."""
    embed, tried = backend._model.llama.embed, []

    def limited(ids_BT):
        tried.append(len(ids_BT))
        if len(ids_BT) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return embed(ids_BT)

    monkeypatch.setattr(backend._model.llama, "embed", limited)
    return tried


def test_out_of_memory_halves_the_batch_and_loses_no_answer(backend, prepared, monkeypatch) -> None:
    backend.load(backend.plan(prepared))
    expected = [response.text for response in answer(backend, prepared)]
    tried = fail_above(backend, monkeypatch, 2)
    got = answer(backend, prepared)
    assert [response.text for response in got] == expected
    assert tried[0] == 5 and max(tried[1:]) == 3 and tried[-1] <= 2


def test_a_single_sample_that_does_not_fit_fails_with_its_reason(backend, prepared, monkeypatch) -> None:
    backend.load(backend.plan(prepared))
    fail_above(backend, monkeypatch, 0)
    got = answer(backend, prepared, rows=(0, 1))
    assert [response.finish_reason for response in got] == ["error", "error"]
    assert all("out of memory" in response.error and "1,008 tokens" in response.error for response in got)


def test_logprobs_of_a_text_are_those_of_its_logits(backend, prepared) -> None:
    backend.load(backend.plan(prepared))
    item, text = prepared[0], " 48151. Remember it."
    ids = backend.tokenizer.encode(text, add_special_tokens=False).tolist()
    logits_V = backend._model.logits([[*item.ids.tolist(), *ids]])[
        0, -len(ids) - 1 : -1, : backend.tokenizer.vocab_size
    ]
    expected = logits_V.log_softmax(dim=-1).gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    assert backend.logprobs(item, text) == pytest.approx(expected, abs=1e-5)
    assert backend.logprobs(item, "") == []


def test_a_draw_depends_on_the_sample_and_not_on_its_place_among_others(tmp_path) -> None:
    settings = {"model": ModelSettings(device="cpu"), "sampling": Sampling(temperature=3.0), "max_new_tokens": 6}
    with launch("cpu") as world:
        backend = NanotronBackend(EvalConfig(str(CHECKPOINT), str(tmp_path), str(DATA), **settings), world)
        samples = load_samples(DATA, depths=(0, 100)).samples[:4]
        prepared = [backend.prepare(sample, TASK.locate(sample)) for sample in samples]
        backend.load(backend.plan(prepared))
        texts = [response.text for response in answer(backend, prepared, (0, 1, 2, 3))]
        alone = [response.text for response in answer(backend, prepared[2:], (1, 0))]
    assert alone == [texts[3], texts[2]]
    assert len(set(texts)) == 4


def test_nan_fails_the_sample_not_the_run(backend, prepared) -> None:
    backend.load(backend.plan(prepared))
    backend._model.llama.layers[0].gates[1].fill_(float("nan"))
    assert all("NaN" in response.error for response in answer(backend, prepared))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path) -> None:
    from infini_eval.testing.tiny_models import write_tiny_checkpoint

    path = write_tiny_checkpoint(tmp_path / "1")
    tokenizer = str(CHECKPOINT / "tokenizer")
    config = EvalConfig(str(path), str(tmp_path), str(DATA), tokenizer=tokenizer, model=ModelSettings(device="cpu"))
    with launch("cpu") as world, pytest.raises(DataError, match="has 1024 tokens, the model's vocabulary 96"):
        NanotronBackend(config, world)


@pytest.mark.parametrize(
    ("count", "text"),
    [(302_000_000, "300M"), (734_000, "730K"), (8_030_000_000, "8B"), (1_240_000_000, "1.2B"), (7, "7")],
)
def test_parameter_counts_in_two_digits(count: int, text: str) -> None:
    assert short_count(count) == text
