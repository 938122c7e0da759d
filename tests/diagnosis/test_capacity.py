"""Capacity: the leak by head against the equations, the multiplied haystack, the length at which prompts break."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.diagnosis.calibration import passkeys, written
from infini_eval.diagnosis.capacity import (
    Held,
    capacity,
    equal_tokens,
    features,
    haystack_segments,
    held,
    least_denominators,
    median_interval,
    quantile,
)
from infini_eval.diagnosis.sample import Diagnoser, open_diagnoser
from infini_eval.diagnosis.text import capacity_text
from infini_eval.engine.text import open_tokenizer
from infini_eval.errors import ConfigError, DataError
from infini_eval.models import naive
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

DEMO = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo"


@pytest.fixture(scope="module")
def diagnoser() -> Diagnoser:
    checkpoint = Checkpoint(DEMO)
    return open_diagnoser(checkpoint, open_tokenizer(None, checkpoint))


@pytest.fixture(scope="module")
def prompts(diagnoser: Diagnoser) -> list[WorkItem]:
    return passkeys(diagnoser.tokenizer, 128, 5, 1)


def test_the_smallest_denominator_is_that_of_the_equations(diagnoser: Diagnoser) -> None:
    """Of layer 0, written out: each query and key against the sum of the keys of all earlier segments."""
    weights, config = diagnoser.weights, diagnoser.checkpoint.config
    ids = torch.randint(1024, (2, 320), generator=torch.Generator().manual_seed(0))
    q, k = next(features(weights, config, ids))
    expected = torch.full((4,), math.inf)
    for position in range(128, 320):
        z = k[:, :, : position // 128 * 128].sum(2)
        for asked in (q, k):
            expected = expected.minimum((asked[:, :, position] * z).sum(-1).amin(0))
    torch.testing.assert_close(least_denominators(weights, config, ids)[0], expected)


def test_features_are_those_of_the_memory(diagnoser: Diagnoser) -> None:
    """z after two segments is the sum of the keys' features."""
    weights, config = diagnoser.weights, diagnoser.checkpoint.config
    ids = torch.randint(1024, (1, 256), generator=torch.Generator().manual_seed(0))
    layer = {n.split("pp_block.")[1]: w for n, w in weights.items() if n.startswith("model.decoder.0.")}
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    x = naive.rms_norm(embedding[ids], layer["input_layernorm.weight"], config.rms_norm_eps)
    state = None
    for segment in x.split(128, dim=1):
        _, state = naive.one_segment(segment, state, layer, config, "on", "rotary")
    assert state is not None
    torch.testing.assert_close(next(features(weights, config, ids))[1].sum(2), state[1])


def test_head_1_3_of_the_demo_has_by_far_the_least_leak(diagnoser: Diagnoser, prompts: list[WorkItem]) -> None:
    item = prompts[0]
    equal = equal_tokens(diagnoser.weights, diagnoser.checkpoint.config, item, diagnoser.tokens(item))
    assert equal.argmax() == 1 * 4 + 3
    assert equal[1, 3] > 5 and equal[0].max() < 3 and equal[2].max() < 3


def test_segments_of_needle_question_and_instructions_are_not_repeated(prompts: list[WorkItem]) -> None:
    for item in prompts:
        found = haystack_segments(item, 128)
        needle = range(item.position.token_start or 0, item.position.token_end or 0)
        assert 0 not in found and 4 not in found
        assert not {token // 128 for token in needle} & set(found)


def test_a_haystack_that_is_not_multiplied_gives_the_models_own_answer(
    diagnoser: Diagnoser, prompts: list[WorkItem]
) -> None:
    for item in prompts:
        found = held(diagnoser, item, longest=item.tokens)
        assert found.tokens == (item.tokens,)
        assert found.right == (diagnoser.is_right(item),)


def test_sharper_heads_hold_longer_and_blunter_ones_shorter(
    diagnoser: Diagnoser, prompts: list[WorkItem], tmp_path: Path
) -> None:
    reports = []
    for scale in (0.6, 1.0, 1.2):
        folder = written(diagnoser.checkpoint, ((1, 2), (1, 3)), scale, tmp_path / str(scale) / "1")
        reports.append(capacity(open_diagnoser(Checkpoint(folder), diagnoser.tokenizer), prompts, 2**30))
    lengths = [report["breaks"]["tokens"] for report in reports]
    assert lengths[0] < lengths[1] / 10 and lengths[1] < lengths[2] / 4
    equal = [max(row["equal_tokens"] for row in report["heads"]) for report in reports]
    assert equal[0] < equal[1] < equal[2]
    assert "expected to hold to about" in capacity_text(reports[0])


def test_a_prompt_breaks_between_the_last_right_length_and_the_next() -> None:
    assert Held((100, 200, 400), (True, True, False)).breaks_at == pytest.approx(math.sqrt(200 * 400))
    assert Held((100, 200, 400), (True, False, True)).breaks_at == pytest.approx(math.sqrt(100 * 200))
    assert Held((100, 200), (False, True)).breaks_at == 0
    assert math.isinf(Held((100, 200), (True, True)).breaks_at)


def test_the_medians_interval_is_that_of_order_statistics() -> None:
    """Ten values: the 2nd and the 9th, whose interval covers the median with 97.9 %."""
    found = median_interval([float(n) for n in np.random.default_rng(0).permutation(10)])
    assert (found["low"], found["high"], found["n"]) == (1.0, 8.0, 10)
    assert median_interval([5.0, math.inf, math.inf])["high"] is None
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0 and quantile([math.inf], 0.5) is None


def test_prompts_without_haystack_to_repeat_are_refused(diagnoser: Diagnoser) -> None:
    short = passkeys(diagnoser.tokenizer, 128, 2, 1)
    with pytest.raises(DataError, match="segment of haystack beside it"):
        capacity(diagnoser, short)


def test_a_model_without_memory_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False)))
    with pytest.raises(ConfigError, match="no compressive memory"):
        open_diagnoser(checkpoint, open_tokenizer(str(DEMO / "tokenizer"), checkpoint))
