"""Prefixes read once give the answers of prompts read whole: in a batch, across batches, at every topology, in little memory."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Sampling
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.batching import plan_batches
from infini_eval.engine.generation import BatchGeneration, Limits
from infini_eval.engine.native_model import NativeModel, load_replica, prefixes_of
from infini_eval.engine.prefix_sharing import Snapshot
from infini_eval.engine.prefixes import border_digests
from infini_eval.errors import CacheError
from infini_eval.testing.distributed import poisoned_memory, run_distributed_test
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

NEW = 19


def haystack_prompts(segment: int, whole: int, rests: tuple[int, ...]) -> list[np.ndarray]:
    """Prompts of one haystack with a needle each, and one that shares nothing; lengths differ inside the last segment."""
    rng = np.random.default_rng(segment)
    haystack = rng.integers(3, 96, (whole + 1) * segment)
    prompts = []
    for number, rest in enumerate(rests):
        tokens = haystack[: whole * segment + rest].copy()
        start = len(tokens) * number // len(rests)
        tokens[start : start + 5] = rng.integers(3, 96, 5)
        prompts.append(tokens)
    return [*prompts, rng.integers(3, 96, whole * segment + rests[0])]


def load(path, **settings) -> NativeModel:
    return NativeModel.load(Checkpoint(path), ModelSettings(device="cpu", **settings))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "1")


def first_logits(model: NativeModel, prompts: list[np.ndarray], prefixes) -> torch.Tensor:
    """What the first new token of each prompt is drawn from, [B, V]."""
    sampler = model._sampler([0] * len(prompts), Sampling(), None)
    generation = BatchGeneration(model.llama, model.links, sampler, prompts, Limits(NEW), model.chunk_tokens, prefixes)
    with torch.inference_mode():
        while not generation.awaits_tokens:
            generation.run_unit()
        return model.llama.logits(generation._last_BD)


@pytest.mark.parametrize(
    ("segment", "whole", "rests"), [(8, 13, (1, 7, 3, 0, 5)), (8, 4, (0, 0, 0)), (64, 5, (13, 63, 1))]
)
@pytest.mark.parametrize("chunk_segments", [None, 1, 2, 7])
@pytest.mark.parametrize("memory", ["on", "off", "ablate"])
def test_logits_are_those_of_prompts_read_whole(tmp_path, segment, whole, rests, chunk_segments, memory) -> None:
    path = write_tiny_checkpoint(tmp_path / "1", tiny_config(segment_length=segment, num_key_value_heads=2))
    model = load(path, chunk_segments=chunk_segments, memory=memory)
    prompts = haystack_prompts(segment, whole, rests)
    digests = [border_digests(prompt, segment) for prompt in prompts]
    batches = plan_batches([len(prompt) for prompt in prompts], segment, prefixes=digests)
    assert len(batches[0].rows) > 1, "something is shared"
    cache = model.new_prefix_cache()
    with poisoned_memory():
        for batch in batches:
            rows = [prompts[row] for row in batch.rows]
            warm, cold = first_logits(model, rows, prefixes_of(batch, digests, cache)), first_logits(model, rows, None)
            torch.testing.assert_close(warm, cold, atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
@pytest.mark.parametrize("limit_gb", [1.0, 1e-4, 1e-9])
def test_answers_are_those_of_prompts_read_whole(path, batch_size, limit_gb: float) -> None:
    """Also where states are kept between batches, and where there is room for hardly one of them, or none."""
    prompts = haystack_prompts(8, 13, (1, 7, 3, 0, 5, 2, 4, 0, 6))
    prompts += [prompts[3].copy(), prompts[0].copy()]  # alike to the end
    cold = load(path, prefix_cache_gb=0).generate(prompts, NEW, stop_ids=())
    assert load(path, prefix_cache_gb=limit_gb).generate(prompts, NEW, stop_ids=(), batch_size=batch_size) == cold


def computed(model: NativeModel, prompts: list[np.ndarray], batch_size: int, cache) -> tuple[int, int]:
    """Tokens computed and reused in batches of `batch_size`."""
    digests = [border_digests(prompt, 8) for prompt in prompts]
    batches = plan_batches([len(prompt) for prompt in prompts], 8, batch_size, prefixes=digests)
    work = (
        (b, [prompts[row] for row in b.rows], list(map(str, b.rows)), prefixes_of(b, digests, cache)) for b in batches
    )
    units: list[int] = []
    completions = [each for _, batch in model.run(work, Limits(1), Sampling(), None, units.append) for each in batch]
    return sum(units), sum(each.reused_tokens for each in completions)


def test_every_shared_segment_is_computed_once_and_said_to_be_reused(path) -> None:
    model, prompts = load(path), haystack_prompts(8, 13, (1, 7, 3, 0, 5))
    tokens = sum(map(len, prompts))
    once = computed(model, prompts, 16, model.new_prefix_cache())
    assert once[0] < 0.85 * tokens
    assert sum(once) == tokens
    assert computed(model, prompts, 2, model.new_prefix_cache()) == once  # by states kept between batches
    assert computed(model, prompts, 2, None) == (tokens, 0)
    tight = model.new_prefix_cache()
    tight.limit_bytes = 0
    assert once[0] < computed(model, prompts, 2, tight)[0] < tokens
    assert len(tight) == 0


def test_the_cache_drops_the_longest_unused(path) -> None:
    cache = load(path).new_prefix_cache()
    cache.limit_bytes = 2 * cache.kind.counted_bytes
    state = load(path).llama.new_state(1, 8)
    for name in (b"a" * 16, b"b" * 16):
        cache.save(name, 1, state.snapshot(0))
    cache.restore(b"a" * 16)
    cache.save(b"c" * 16, 1, state.snapshot(0))
    assert [name in cache for name in (b"a" * 16, b"b" * 16, b"c" * 16)] == [True, False, True]
    assert cache.longest(b"x" * 16, 1) is None and cache.longest(b"c" * 16, 1) == b"c" * 16
    assert cache.longest(b"c" * 16, 0) is None


def test_a_state_of_another_model_settings_or_tokens_is_refused(path, tmp_path) -> None:
    digest = b"d" * 16
    model = load(path)
    snapshot = model.llama.new_state(1, 8).snapshot(0)
    caches = {
        "weights": load(write_tiny_checkpoint(tmp_path / "2", seed=1)).new_prefix_cache(),
        "settings": load(path, memory_query="plain").new_prefix_cache(),
        "dtype": load(path, dtype="bfloat16", memory_dtype="model").new_prefix_cache(),
    }
    own = model.new_prefix_cache()
    own.save(digest, 1, snapshot)
    for name, other in caches.items():
        other._snapshots[digest] = own._snapshots[digest]
        with pytest.raises(CacheError, match="another model"):
            other.restore(digest)
        assert name
    own._snapshots[b"e" * 16] = own._snapshots[digest]
    with pytest.raises(CacheError, match="other tokens"):
        own.restore(b"e" * 16)
    own._snapshots[digest] = Snapshot(own._key(digest), 1, tuple(part[:1] for part in snapshot))
    with pytest.raises(CacheError, match="layers"):
        own.restore(digest)


def test_nothing_is_shared_where_it_is_switched_off_or_there_are_no_segments(path, tmp_path) -> None:
    assert load(path, prefix_cache_gb=0).new_prefix_cache() is None
    plain = write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False))
    assert load(plain).new_prefix_cache() is None


def answers_of_rank(path: str, tp: int, pp: int) -> list:
    mesh = Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"]))
    prompts = haystack_prompts(8, 13, (1, 7, 3, 0, 5, 2, 4))
    found = []
    for size, limit in ((None, 1.0), (2, 1.0), (1, 2e-5)):
        settings = ModelSettings(dtype="float32", chunk_segments=2, prefix_cache_gb=limit)
        model = load_replica(Checkpoint(path), settings, mesh, "cpu")
        found.append(model.generate(prompts, NEW, stop_ids=(), batch_size=size))
    return found


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (1, 4), (2, 2)])
def test_shards_and_stages_give_the_same_answers(path, tp: int, pp: int) -> None:
    """The last limit holds two states of the largest stage's size: every rank drops the same ones."""
    prompts = haystack_prompts(8, 13, (1, 7, 3, 0, 5, 2, 4))
    expected = load(path, prefix_cache_gb=0).generate(prompts, NEW, stop_ids=())
    for rank in run_distributed_test(answers_of_rank, tp * pp, args=(str(path), tp, pp)):
        assert rank == [expected] * 3
