"""A model that answers calls in a thread of its own: as it answers a list, whatever comes together, and no longer than wanted."""

from __future__ import annotations

import queue
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import infini_eval
from infini_eval.config import Sampling
from infini_eval.errors import BackendError, CheckpointError, ConfigError
from infini_eval.harnesses.batched import BatchedModel
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, tiny_config, write_tiny_checkpoint
from support.limits import PROCESS_S

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo/tokenizer"
PROMPTS = ["The passkey is 12345.", "What is it? Remember.", "The", "The passkey is 12345. What is it? " * 9]
GREEDY = Sampling()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: any token may come."""
    folder = tmp_path_factory.mktemp("tiny") / "1"
    write_tiny_checkpoint(folder, tiny_config(vocab_size=1024, num_hidden_layers=2))
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def batched(path: Path) -> Iterator[BatchedModel]:
    made = BatchedModel(str(path), batch_size=3, arguments={"device": "cpu"})
    yield made
    made.close()


def ask(model: BatchedModel, prompts: list[str], most: int = 12, **options: Any) -> list[Any]:
    """The answers to prompts that are all asked before one is there, in order."""
    found: queue.Queue[tuple[int, Any]] = queue.Queue()
    for number, prompt in enumerate(prompts):
        ids = model.prompt([("user", prompt)])
        model.submit(ids, most, **({"sampling": GREEDY} | options), done=lambda one, n=number: found.put((n, one)))
    return [answer for _, answer in sorted((found.get(timeout=PROCESS_S) for _ in prompts), key=lambda pair: pair[0])]


def test_answers_are_those_of_complete(batched: BatchedModel, path: Path) -> None:
    expected = infini_eval.load_model(path, device="cpu").complete(PROMPTS, 12)
    for found in (ask(batched, PROMPTS), [ask(batched, [prompt])[0] for prompt in PROMPTS]):
        assert [one.text for one in found] == [one.text for one in expected]
        assert [one.finish_reason for one in found] == [one.finish_reason for one in expected]
        assert [one.new_tokens for one in found] == [len(one.token_ids) for one in expected]


def test_draws_depend_on_the_prompt_and_how_often_it_was_asked(path: Path) -> None:
    warm = Sampling(temperature=1.0, seed=3)
    texts = []
    for prompts in (["The", "What", "The"], ["The", "The", "What"]):
        model = BatchedModel(str(path), batch_size=2, arguments={"device": "cpu"})
        texts.append(dict(enumerate(ask(model, prompts, sampling=warm))))
        model.close()
    (the, what, again), (same, same_again, same_what) = ([one.text for one in found.values()] for found in texts)
    assert (the, again, what) == (same, same_again, same_what) and the != again


def test_stop_strings_limits_and_logprobs(batched: BatchedModel) -> None:
    (whole,) = ask(batched, ["The"], 12, top=2)
    assert whole.finish_reason == "length" and len(whole.scores) == whole.new_tokens == 12
    for score in whole.scores:
        assert score.top[0][0] == score.token_id and score.top[0][1] == pytest.approx(score.logprob, abs=1e-5)
        assert len(score.top) == 2 and score.top[0][1] >= score.top[1][1]
    stop = whole.text[3:5]
    (cut,) = ask(batched, ["The"], 12, stop=[stop])
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop" and cut.scores is None
    (short,) = ask(batched, ["The"], 2)
    assert short.token_ids == whole.token_ids[:2]


def test_a_chat_is_its_template_or_its_transcript(batched: BatchedModel, path: Path, tmp_path: Path) -> None:
    chat = [("system", "Be short."), ("user", "Hi."), ("assistant", "Yes?"), ("user", "What?")]
    decode = batched.tokenizer.decode
    assert decode(batched.prompt(chat)) == "Be short.\n\nUser: Hi.\n\nAssistant: Yes?\n\nUser: What?\n\nAssistant:"
    assert decode(batched.prompt(chat[:3])) == "Be short.\n\nUser: Hi.\n\nAssistant: Yes?"
    assert np.array_equal(batched.prompt([("user", "Hi.")]), batched.tokenizer.encode("Hi."))
    file = tmp_path / "template.jinja"
    file.write_text(CHAT_TEMPLATE)
    model = BatchedModel(str(path), batch_size=1, chat_template=str(file), arguments={"device": "cpu"})
    messages = [{"role": role, "content": text} for role, text in chat]
    rendered = model.tokenizer.render_chat(messages)
    assert np.array_equal(model.prompt(chat), model.tokenizer.encode(rendered, add_special_tokens=False))
    assert decode(model.prompt(chat[:3])).rstrip().endswith("Yes?")
    model.close()


def test_an_engine_that_ends_tells_those_who_wait(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BatchedModel(str(path), batch_size=2, arguments={"device": "cpu"})

    def breaks(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(model.model, "run", breaks)
    (answer,) = ask(model, ["The"])
    assert isinstance(answer, BackendError) and "no such kernel" in str(answer)
    with pytest.raises(BackendError, match="has ended"):
        ask(model, ["The"])
    model.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"tp": 2}, "tp=2"), ({"memori": "on"}, "memori"), ({"memory": "none"}, "memory=none")],
)
def test_wrong_arguments(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchedModel(str(path), batch_size=1, arguments=arguments)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        BatchedModel(str(tmp_path / "none"), batch_size=1, arguments={})


def test_yaml_reads_on_as_true(path: Path) -> None:
    model = BatchedModel(str(path), batch_size=1, arguments={"memory": False, "device": "cpu"})
    assert model.model.resolved.attention.memory == "off"
    model.close()
