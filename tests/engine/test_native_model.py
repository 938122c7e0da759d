"""The public door: load_model, generate's stopping and sampling, and its errors."""

from __future__ import annotations

import pytest
import torch

import infini_eval
from infini_eval.config import Sampling
from infini_eval.distributed.tensor_parallel import TensorParallel, first_argmax
from infini_eval.engine.batching import plan_batches, plan_prefill
from infini_eval.engine.sampling import Sampler, filtered
from infini_eval.errors import CheckpointError, ConfigError, NumericsError
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint


@pytest.fixture
def model(tmp_path):
    return infini_eval.load_model(write_tiny_checkpoint(tmp_path / "1"), device="cpu")


def test_generate_stops_before_a_stop_token(model) -> None:
    free = model.generate([[5, 6, 7]], 12, stop_ids=())[0]
    assert len(free) == 12
    stop = free[4]
    assert model.generate([[5, 6, 7]], 12, stop_ids=[stop])[0] == free[: free.index(stop)]


def test_sampling_is_seeded_and_does_not_depend_on_companions(model) -> None:
    prompts = [[5, 6, 7], [8, 9], [10]]
    settings = {"temperature": 1.0, "top_k": 20, "top_p": 0.9, "stop_ids": ()}
    first = model.generate(prompts, 9, seed=3, **settings)
    assert first == model.generate(prompts, 9, seed=3, batch_size=1, **settings)
    assert first != model.generate(prompts, 9, seed=4, **settings)


def test_padding_rows_of_the_head_are_never_drawn(model) -> None:
    answers = model.generate([[token] for token in range(30)], 10, stop_ids=(), vocabulary=20)
    assert max(max(answer) for answer in answers) < 20


@pytest.mark.parametrize(("ids", "wrong"), [([[1, 96]], "96"), ([[-1]], "-1")])
def test_ids_outside_the_vocabulary_are_refused(model, ids, wrong) -> None:
    with pytest.raises(ConfigError, match=f"token id {wrong} "):
        model.generate(ids, 1)


def test_nan_is_reported_not_hidden(model) -> None:
    model.llama.layers[0].gates[1].fill_(float("nan"))
    with pytest.raises(NumericsError, match="prompt 0"):
        model.generate([[1, 2, 3]], 2)


def spoil_token(model, token: int) -> None:
    """Make the logits of prompts with this token NaN."""
    model.llama.embedding[token] = float("nan")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_one_prompt_of_nan_does_not_lose_the_answers_of_others(model, batch_size) -> None:
    prompts = [[5, 6, 7], [95, 6, 8], [9, 8, 7]]
    whole = model.generate(prompts, 4, stop_ids=(), batch_size=batch_size, vocabulary=95)
    spoil_token(model, 95)
    with pytest.raises(NumericsError, match="of prompt 1 became") as caught:
        model.generate(prompts, 4, stop_ids=(), batch_size=batch_size, vocabulary=95)
    assert caught.value.answers == [whole[0], None, whole[2]]


def test_one_row_of_nan_does_not_lose_the_scores_of_others(model) -> None:
    rows = [[5, 6, 7], [95, 6, 8], [9, 8, 95, 6]]
    whole = model.score(rows, [2, 1, 1], vocabulary=95)
    spoil_token(model, 95)
    with pytest.raises(NumericsError, match="of rows 1, 2 became") as caught:
        model.score(rows, [2, 1, 1], vocabulary=95)
    assert caught.value.answers[0].logprobs.tolist() == whole[0].logprobs.tolist()
    assert caught.value.answers[1:] == [None, None]


@pytest.mark.parametrize("ids", [[1.0, 2.0], [1.5], [True, False], ["1"]])
def test_token_ids_that_are_no_integers_are_refused(model, ids) -> None:
    for ask in (lambda: model.generate([ids], 1), lambda: model.score([[*ids, *ids]], [1])):
        with pytest.raises(ConfigError, match="token ids are of type"):
            ask()
    if not isinstance(ids[0], str):
        with pytest.raises(ConfigError, match="token ids are of type"):
            model.logits([ids])


def test_zero_denominator_is_reported(tmp_path) -> None:
    """elu(k)+1 is exactly 0 for very negative keys; 0/0 must surface."""
    model = infini_eval.load_model(write_tiny_checkpoint(tmp_path / "1"), device="cpu")
    for layer in model.llama.layers:
        layer.input_norm.mul_(1e4)
        layer.qkv.abs_().neg_()
    model.llama.embedding.abs_()
    with pytest.raises(NumericsError):
        model.generate([list(range(3, 30))], 2)


def test_missing_checkpoint_names_its_neighbours(tmp_path) -> None:
    write_tiny_checkpoint(tmp_path / "run" / "200")
    with pytest.raises(CheckpointError, match="run/200"):
        infini_eval.load_model(tmp_path / "run" / "300")


def test_memory_flag_is_refused_for_a_plain_llama(tmp_path) -> None:
    path = write_tiny_checkpoint(tmp_path / "1", tiny_config(infini=False))
    with pytest.raises(ConfigError, match="plain Llama"):
        infini_eval.load_model(path, memory="ablate", device="cpu")


def test_state_does_not_grow_with_the_context(model) -> None:
    sizes = []
    for tokens in (64, 4096):
        state = model.llama.new_state(1, tokens)
        state.layers[0].open_segment()
        sizes.append(state.nbytes())
    assert sizes[0] == sizes[1]


def test_batches_share_their_number_of_whole_segments_and_cover_every_row() -> None:
    lengths = [1, 8, 9, 15, 16, 100, 101, 104, 7]
    batches = plan_batches(lengths, 8, batch_size=2)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(lengths)))
    for batch in batches:
        assert len({lengths[row] // 8 for row in batch.rows}) == 1
    assert [batch.cost for batch in batches] == sorted((batch.cost for batch in batches), reverse=True)


@pytest.mark.parametrize("lengths", [[1], [8], [17, 23], [64, 65, 71]])
def test_prefill_steps_cover_each_prompt_once(lengths) -> None:
    steps = plan_prefill(lengths, 8, chunk_tokens=24)
    for row, length in enumerate(lengths):
        assert sum(step.counts[row] for step in steps) == length
        assert sum(row in step.ending for step in steps) == 1


def test_top_k_and_top_p_keep_the_best() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert torch.isfinite(filtered(logits, Sampling(1.0, top_k=2))).tolist() == [[True, True, False, False]]
    assert torch.isfinite(filtered(logits, Sampling(1.0, top_p=0.6))).tolist() == [[True, False, False, False]]
    assert torch.isfinite(filtered(logits, Sampling(1.0, top_p=0.7))).tolist() == [[True, True, False, False]]


def test_greedy_takes_the_lowest_index_of_a_tie() -> None:
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert first_argmax(logits).tolist() == [1, 0]
    sampler = Sampler(Sampling(), TensorParallel(), 4, 4, ["0", "1"])
    assert sampler.next_tokens(logits).tolist() == [1, 0]
