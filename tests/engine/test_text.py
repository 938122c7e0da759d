"""Texts in and out of the native model: stop strings across tokens, reasons to end, scores, states kept between calls."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import infini_eval
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.native_model import load_replica
from infini_eval.engine.text import cut_at_stop
from infini_eval.errors import ConfigError, DataError, NumericsError
from infini_eval.testing.distributed import run_distributed_test
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, tiny_config, write_tiny_checkpoint

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo/tokenizer"
PROMPTS = ["The passkey is 12345.", "What is it? Remember.", "The"]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Random weights: any token may come."""
    folder = tmp_path_factory.mktemp("tiny") / "1"
    write_tiny_checkpoint(folder, tiny_config(vocab_size=1024, num_hidden_layers=2))
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def model(path):
    return infini_eval.load_model(path, device="cpu")


def test_texts_are_those_of_generate(model) -> None:
    ids = [model.tokenizer.encode(prompt) for prompt in PROMPTS]
    expected = model.generate(ids, 12, stop_ids=(), vocabulary=model.tokenizer.vocab_size)
    for found in (model.complete(PROMPTS, 12, stop_ids=()), model.complete(ids, 12, stop_ids=(), batch_size=1)):
        assert [one.token_ids for one in found] == expected
        assert [one.text for one in found] == [model.tokenizer.decode(tokens) for tokens in expected]
        assert [one.prompt_tokens for one in found] == [len(each) for each in ids]
        assert {one.finish_reason for one in found} == {"length"}


def test_a_stop_string_across_tokens_ends_the_answer_and_is_cut_off(model) -> None:
    free = model.complete(PROMPTS, 12, stop_ids=())[0]
    decode = model.tokenizer.decode
    at = len(decode(free.token_ids[:5]))
    stop = free.text[at - 2 : at + 2]  # the end of one token and the beginning of the next
    place = free.text.find(stop)
    found = model.complete(PROMPTS, 12, stop=["never", stop], stop_ids=())[0]
    assert (found.text, found.stop, found.finish_reason) == (free.text[:place], stop, "stop")
    assert len(found.token_ids) < 12 and decode(found.token_ids).startswith(free.text[:place] + stop)


def test_an_end_token_stops_too(model) -> None:
    free = model.complete(PROMPTS[:1], 12, stop_ids=())[0]
    found = model.complete(PROMPTS[:1], 12, stop_ids=[free.token_ids[4]])[0]
    assert found.finish_reason == "stop" and found.stop is None
    assert found.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[4])]


@pytest.mark.parametrize("logprobs", [None, 0])
def test_one_prompt_of_nan_does_not_lose_the_answers_of_others(path, model, logprobs) -> None:
    prompts = [PROMPTS[0], [1023, 5], PROMPTS[2]]  # a token that no tokenizer gives
    whole = model.complete(prompts, 3, stop_ids=(), logprobs=logprobs)
    spoilt = infini_eval.load_model(path, device="cpu")
    spoilt.llama.embedding[1023] = float("nan")
    with pytest.raises(NumericsError, match="prompt 1") as caught:
        spoilt.complete(prompts, 3, stop_ids=(), logprobs=logprobs)
    first, lost, last = caught.value.answers
    assert lost is None and [first.text, last.text] == [whole[0].text, whole[2].text]
    assert (first.scores is None) == (logprobs is None)


def test_each_prompt_may_have_a_limit_of_its_own(model) -> None:
    free = model.complete(PROMPTS, 9, stop_ids=())
    found = model.complete(PROMPTS, [9, 1, 4], stop_ids=())
    assert [one.token_ids for one in found] == [one.token_ids[:n] for one, n in zip(free, (9, 1, 4), strict=True)]
    assert {one.finish_reason for one in found} == {"length"}


def test_every_token_is_told_once_and_in_order(model) -> None:
    told: dict[int, list[list[int]]] = {}
    found = model.complete(
        PROMPTS, [6, 3, 1], stop_ids=(), on_token=lambda n, ids: told.setdefault(n, []).append([*ids])
    )
    for number, one in enumerate(found):
        assert told[number] == [one.token_ids[: end + 1] for end in range(len(one.token_ids))]


def test_scores_of_an_answer_are_those_of_its_tokens(model) -> None:
    cache = model.new_prefix_cache()
    found = model.complete(PROMPTS, 7, stop_ids=(), logprobs=3, prefix_cache=cache)
    for prompt, one in zip(PROMPTS, found, strict=True):
        row = np.concatenate((model.tokenizer.encode(prompt), one.token_ids))
        alone = model.score([row], [7], top=3, vocabulary=model.tokenizer.vocab_size)[0]
        np.testing.assert_allclose(one.scores.logprobs, alone.logprobs, atol=1e-5)
        assert one.scores.greedy.all() and (one.scores.top_ids[:, 0] == one.token_ids).all()
    assert sum(one.scores.reused_tokens for one in found) > 0, "the prompts are not read a second time from the start"


def test_states_are_kept_between_calls(model) -> None:
    cache = model.new_prefix_cache()
    ids = np.random.default_rng(0).integers(3, 900, 8 * 9 + 5)
    first = model.complete([ids], 5, stop_ids=(), prefix_cache=cache)[0]
    longer = np.concatenate((ids, first.token_ids, [7, 8, 9]))  # the next turn of a chat
    again = model.complete([longer], 5, stop_ids=(), prefix_cache=cache)[0]
    assert (first.reused_tokens, again.reused_tokens) == (0, 72)
    assert again.token_ids == model.complete([longer], 5, stop_ids=())[0].token_ids
    scored = model.score([longer, ids], [2, 1], prefix_cache=cache)
    assert [one.reused_tokens for one in scored] == [80, 72]


def test_facts_of_a_model(model, path, tmp_path) -> None:
    assert model.chat_template is None and model.max_length == 4096 and not model.has_length_limit
    with pytest.raises(DataError, match="has no chat template"):
        model.tokenizer.render_chat([{"role": "user", "content": "hello"}])
    shutil.copytree(TOKENIZER, tmp_path / "chat")
    (tmp_path / "chat/chat_template.jinja").write_text(CHAT_TEMPLATE + "{{ eos_token }}")
    other = infini_eval.load_model(path, device="cpu", tokenizer=str(tmp_path / "chat"))
    assert (
        other.tokenizer.render_chat([{"role": "user", "content": " hello "}]) == "[user]hello[assistant]<|endoftext|>"
    )
    (tmp_path / "chat/chat_template.jinja").write_text("{{ raise_exception('only users') }}")
    refusing = infini_eval.load_model(path, device="cpu", tokenizer=str(tmp_path / "chat"))
    with pytest.raises(DataError, match="refuses a chat of the roles system: only users"):
        refusing.tokenizer.render_chat([{"role": "system", "content": "x"}])
    llama = write_tiny_checkpoint(tmp_path / "llama", tiny_config(infini=False))
    assert infini_eval.load_model(llama, device="cpu").has_length_limit


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path) -> None:
    small = infini_eval.load_model(write_tiny_checkpoint(tmp_path / "1"), device="cpu", tokenizer=str(TOKENIZER))
    with pytest.raises(DataError, match="the model's vocabulary 96"):
        small.complete(["a"], 1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"prompts": ["a"], "stop": [""]}, "a stop string is empty"),
        ({"prompts": ["a", "b"], "max_new_tokens": [1]}, "2 prompts, and max_new_tokens for 1"),
        ({"prompts": ["a"], "max_new_tokens": [0]}, "at least 1"),
        ({"prompts": [""]}, "at least one token"),
    ],
)
def test_wrong_arguments_are_refused(model, arguments, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        model.complete(**{"max_new_tokens": 2} | arguments)
    assert model.complete([], 3) == []


def test_the_stop_string_that_begins_first_counts() -> None:
    assert cut_at_stop("one two three", ["three", "two", "two t"]) == ("one ", "two")
    assert cut_at_stop("one", ["two"]) == ("one", None)


def completions_of_rank(path: str, tp: int, pp: int, stop: list[str]) -> list:
    model = load_replica(
        Checkpoint(path),
        ModelSettings(dtype="float32"),
        Mesh.build(MeshShape(1, tp, pp), int(os.environ["RANK"])),
        "cpu",
    )
    return told_and_found(model, stop)


def told_and_found(model, stop: list[str]) -> list:
    told: list = []
    found = model.complete(
        PROMPTS,
        [30, 5, 20],
        stop=stop,
        stop_ids=(),
        logprobs=2,
        batch_size=1,
        on_token=lambda n, ids: told.append((n, *ids)),
    )
    return [sorted(told), [(one.text, one.token_ids, one.finish_reason, one.stop) for one in found]]


@pytest.mark.distributed
@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2)])
def test_all_ranks_end_alike(path, model, tp: int, pp: int) -> None:
    free = model.complete(PROMPTS, 30, stop_ids=())
    stop = [free[0].text[9:12], free[2].text[20:23]]
    expected = told_and_found(model, stop)
    assert {one[2] for one in expected[1]} == {"stop", "length"}
    for rank in run_distributed_test(completions_of_rank, tp * pp, args=(str(path), tp, pp, stop)):
        assert rank == expected
