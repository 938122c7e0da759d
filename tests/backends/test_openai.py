"""The openai backend against a scripted server: retries, refusals, time limits, truncation, the cache, the key."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from infini_eval.errors import BackendError, ConfigError
from infini_eval.testing.limits import PROCESS_S
from infini_eval.testing.scripted_server import GOOD, Step

pytest.importorskip("openai")
ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = str(ROOT / "checkpoints/infini-demo/tokenizer")


def read(tokens: str = TOKENIZER):
    from infini_eval.datasets.tokenizer import load_tokenizer

    return load_tokenizer(tokens).count


def test_right_answers_with_usage_and_the_servers_model_name(serve, remote_config, answers) -> None:
    got = answers(remote_config(serve(count=read()), tokenizer=TOKENIZER))
    assert [response.finish_reason for response in got] == ["stop"] * 3
    assert all(response.prompt_tokens == 1008 and response.token_ids for response in got)
    assert got[0].details == {
        "model_version": "scripted-001",
        "completion_tokens": 4,
        "attempts": 1,
        "cached_reply": False,
    }


@pytest.mark.parametrize(
    ("mode", "tokenizer", "path"),
    [
        ("auto", None, "/v1/chat/completions"),
        ("auto", TOKENIZER, "/v1/completions"),
        ("on", TOKENIZER, "/v1/chat/completions"),
        ("off", None, "/v1/completions"),
    ],
)
def test_base_models_are_asked_for_completions(serve, remote_config, answers, mode, tokenizer, path) -> None:
    server = serve()
    answers(remote_config(server, chat_template=mode, tokenizer=tokenizer), 1)
    assert [asked for asked, _, _ in server.asked] == [path]


def test_greedy_requests_say_so_and_sampled_ones_are_seeded(serve, remote_config, answers) -> None:
    from infini_eval.config import Sampling

    server = serve()
    answers(remote_config(server, extra='{"reasoning_effort": "low"}'), 1)
    answers(remote_config(server, sampling=Sampling(0.5, 40, 0.9, 7)), 1)
    greedy, sampled = (body for _, _, body in server.asked)
    assert (greedy["temperature"], greedy["max_tokens"], greedy["reasoning_effort"]) == (0.0, 15, "low")
    assert "seed" not in greedy and "top_k" not in greedy
    assert (sampled["temperature"], sampled["top_p"], sampled["top_k"], sampled["seed"]) == (0.5, 0.9, 40, 7)


@pytest.mark.parametrize(
    "trouble",
    [
        Step(status=429, headers={"retry-after": "0.01"}),
        Step(status=500),
        Step(status=503),
        Step(cut_off=True),
        Step(malformed="<html>bad gateway</html>"),
        Step(malformed='{"id": "1", "choices": []}'),
        Step(malformed="{}"),
    ],
    ids=["429", "500", "503", "cut off", "not json", "no choices", "empty object"],
)
def test_what_may_pass_is_tried_again(serve, remote_config, answers, trouble) -> None:
    server = serve([trouble, trouble])
    (response,) = answers(remote_config(server), 1)
    assert response.error is None and response.text.strip(" .").isdigit()
    assert response.details["attempts"] == len(server.asked) == 3


def test_after_the_last_attempt_the_sample_fails_and_the_run_goes_on(serve, remote_config, answers) -> None:
    server = serve([Step(status=500)] * 3)
    got = answers(remote_config(server))
    assert [response.finish_reason for response in got].count("error") == 1
    assert "tried 3 times" in next(response.error for response in got if response.error)
    assert len(server.asked) == 3 + 2


@pytest.mark.parametrize(
    ("status", "words"), [(401, "key was refused"), (403, "access"), (404, "model"), (422, "refused")]
)
def test_what_every_sample_would_get_ends_the_run_once(serve, remote_config, answers, status, words) -> None:
    server = serve(otherwise=Step(status=status))
    with pytest.raises(BackendError, match=words):
        answers(remote_config(server))
    assert len(server.asked) == 1


def test_no_credit_left_is_not_asked_again(serve, remote_config, answers) -> None:
    server = serve(otherwise=Step(status=429, code="insufficient_quota"))
    with pytest.raises(BackendError, match="429"):
        answers(remote_config(server))
    assert len(server.asked) == 1


def test_a_timed_out_prefill_is_not_asked_again(serve, remote_config, answers) -> None:
    server = serve([Step(slow_s=3600.0)])
    slow, *others = sorted(
        answers(remote_config(server, timeout_s=5.0, concurrency=1)), key=lambda one: one.error is None
    )
    assert "no reply within 5 s" in slow.error and all(other.error is None for other in others)
    assert len(server.asked) == 3


def test_a_prompt_too_long_for_the_server_is_an_error(serve, remote_config, answers) -> None:
    server = serve(otherwise=Step(status=400, message="This model's maximum context length is 512 tokens"))
    (response,) = answers(remote_config(server), 1)
    assert "too long" in response.error and len(server.asked) == 1


@pytest.mark.parametrize(("tokenizer", "tokens"), [(TOKENIZER, 1007), (None, 100)], ids=["exactly", "roughly"])
def test_truncation_is_an_error_not_an_answer(serve, remote_config, answers, tokenizer, tokens) -> None:
    config = remote_config(serve(otherwise=Step(read=tokens)), tokenizer=tokenizer)
    (response,) = answers(config, 1)
    assert response.finish_reason == "error" and "truncated" in response.error
    assert not list(Path(config.save_path).rglob("*.json")), "a truncated reply must not be kept"


def test_an_answer_that_the_servers_window_cuts_is_an_error(serve, remote_config, answers) -> None:
    """Some servers lower max_tokens without a word; the scripted one says that it gave 4 tokens."""
    server = serve(otherwise=Step(text="12", finish="length"))
    (response,) = answers(remote_config(server), 1)
    assert response.finish_reason == "error" and "after 4 of 15 tokens" in response.error
    (response,) = answers(remote_config(server, max_new_tokens=4), 1)
    assert response.error is None and response.finish_reason == "length", "the whole budget was used"


def test_a_budget_spent_on_reasoning_is_an_error(serve, remote_config, answers) -> None:
    (response,) = answers(remote_config(serve(otherwise=Step(text="", finish="length", reasoning=15))), 1)
    assert "reasoning" in response.error and "--max-new-tokens" in response.error


def test_an_unreachable_server_ends_the_run_before_the_first_sample(serve, remote_config, answers) -> None:
    config = remote_config(serve(), base_url="http://127.0.0.1:9/v1")
    with pytest.raises(BackendError, match=r"cannot connect to http://127\.0\.0\.1:9/v1/.*tried 3 times"):
        answers(config)


def test_requests_are_in_flight_together_up_to_the_limit(serve, remote_config, answers) -> None:
    server = serve(otherwise=replace(GOOD, slow_s=0.05))
    got = answers(remote_config(server, concurrency=3), 9)
    assert server.most_at_once == 3 and all(response.error is None for response in got)


def test_replies_on_disk_are_not_asked_for_again(serve, remote_config, answers) -> None:
    server = serve()
    first = answers(remote_config(server))
    again = answers(remote_config(server))
    assert len(server.asked) == 3
    assert [response.text for response in again] == [response.text for response in first]
    assert all(response.details["cached_reply"] for response in again)
    answers(remote_config(server, overwrite=True))
    assert len(server.asked) == 6, "--overwrite asks anew"
    answers(remote_config(server, max_new_tokens=5))
    assert len(server.asked) == 9, "another request has another address"


def test_a_kept_reply_that_a_tokenizer_shows_to_be_truncated_is_asked_for_again(serve, remote_config, answers) -> None:
    server = serve([Step(read=900)], count=read())
    assert answers(remote_config(server, chat_template="on"), 1)[0].error is None, "900 of 1008 is not noticed roughly"
    again = answers(remote_config(server, chat_template="on", tokenizer=TOKENIZER), 1)[0]
    assert again.prompt_tokens == 1008 and len(server.asked) == 2


def test_a_damaged_reply_is_asked_for_again(serve, remote_config, answers) -> None:
    server = serve()
    config = remote_config(server)
    answers(config, 1)
    (file,) = Path(config.save_path).rglob("*.json")
    file.write_text("{")
    answers(config, 1)
    assert len(server.asked) == 2


def test_without_a_cache_nothing_is_kept(serve, remote_config, answers) -> None:
    config = remote_config(serve(), replies="off")
    answers(config, 1)
    assert not Path(config.save_path).exists()


def test_openais_own_service_needs_a_key(remote_config, serve, opened, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(BackendError, match="needs a key"), opened(remote_config(serve(), base_url=None)):
        pass


@pytest.mark.parametrize(
    ("url", "error"),
    [("localhost:8000", ConfigError), ("http://user:pw@localhost/v1", BackendError)],
    ids=["no scheme", "password"],
)
def test_addresses_that_cannot_be_used(remote_config, serve, opened, url, error) -> None:
    with pytest.raises(error, match="--base-url"), opened(remote_config(serve(), base_url=url)):
        pass


def test_an_early_end_waits_for_no_request(serve, remote_config, answers) -> None:
    server = serve([Step(slow_s=3600.0), Step(status=401)])
    with pytest.raises(BackendError, match="401"):
        answers(remote_config(server, concurrency=2))
    deadline = time.monotonic() + PROCESS_S  # the server may still be closing the refused one
    while server.in_hand > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.in_hand == 1, "the slow one is still being answered"
