"""The gemini backend: Google's real client against a scripted server on loopback."""

from __future__ import annotations

import pytest

from infini_eval.errors import BackendError, ConfigError
from infini_eval.testing.scripted_server import Step

pytest.importorskip("google.genai")


def test_right_answers_with_usage_and_model_version(serve, remote_config, answers) -> None:
    server = serve()
    got = answers(remote_config(server, "gemini"))
    assert all(response.text.strip(" .").isdigit() and response.finish_reason == "stop" for response in got)
    assert got[0].details == {
        "model_version": "scripted-001",
        "completion_tokens": 4,
        "attempts": 1,
        "cached_reply": False,
    }
    assert got[0].prompt_tokens > 0
    path, headers, body = server.asked[0]
    assert path.endswith("scripted:generateContent") and "x-goog-api-key" in headers
    assert body["generationConfig"] == {"temperature": 0.0, "maxOutputTokens": 15}


def test_settings_of_the_users_own_reach_the_service(serve, remote_config, answers) -> None:
    server = serve()
    answers(remote_config(server, "gemini", extra='{"thinking_config": {"thinking_budget": 0}}'), 1)
    assert list(server.asked[0][2]["generationConfig"]["thinkingConfig"].values()) == [0]


@pytest.mark.parametrize(
    "trouble",
    [
        Step(status=429),
        Step(status=500),
        Step(status=503),
        Step(cut_off=True),
        Step(malformed="{}"),
        Step(malformed="<html>"),
    ],
    ids=["429", "500", "503", "cut off", "empty object", "not json"],
)
def test_what_may_pass_is_tried_again(serve, remote_config, answers, trouble) -> None:
    server = serve([trouble, trouble])
    (response,) = answers(remote_config(server, "gemini"), 1)
    assert response.error is None and response.details["attempts"] == len(server.asked) == 3


def test_after_the_last_attempt_the_sample_fails_and_the_run_goes_on(serve, remote_config, answers) -> None:
    got = answers(remote_config(serve([Step(status=429)] * 3), "gemini"))
    assert [response.finish_reason for response in got].count("error") == 1


@pytest.mark.parametrize(
    "refusal", [Step(status=401), Step(status=403), Step(status=404), Step(status=400, message="API key not valid.")]
)
def test_what_every_sample_would_get_ends_the_run_once(serve, remote_config, answers, refusal) -> None:
    server = serve(otherwise=refusal)
    with pytest.raises(BackendError):
        answers(remote_config(server, "gemini"))
    assert len(server.asked) == 1


def test_a_timed_out_prefill_is_not_asked_again(serve, remote_config, answers) -> None:
    server = serve([Step(slow_s=3600.0)])
    (response,) = answers(remote_config(server, "gemini", timeout_s=5.0), 1)
    assert "no reply within 5 s" in response.error and len(server.asked) == 1


def test_reading_less_than_was_counted_is_an_error(serve, remote_config, answers) -> None:
    (response,) = answers(remote_config(serve(otherwise=Step(read=100)), "gemini"), 1)
    assert "truncated: the service read 100 of" in response.error


@pytest.mark.parametrize(
    ("step", "words"),
    [(Step(text="", finish="max_tokens", reasoning=15), "thinking"), (Step(text="", finish="safety"), "withheld")],
)
def test_no_answer_is_not_a_wrong_answer(serve, remote_config, answers, step, words) -> None:
    (response,) = answers(remote_config(serve(otherwise=step), "gemini"), 1)
    assert words in response.error


def test_an_unreachable_service_ends_the_run(serve, remote_config, answers) -> None:
    with pytest.raises(BackendError, match="cannot connect"):
        answers(remote_config(serve(), "gemini", base_url="http://127.0.0.1:9"))


def test_settings_that_the_service_does_not_know_are_refused(serve, remote_config, opened) -> None:
    with (
        pytest.raises(ConfigError, match="no_such_thing"),
        opened(remote_config(serve(), "gemini", extra='{"no_such_thing": 1}')),
    ):
        pass


def test_it_needs_a_key_and_always_chats(serve, remote_config, opened, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="only chat"), opened(remote_config(serve(), "gemini", chat_template="off")):
        pass
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(BackendError, match="needs a key"), opened(remote_config(serve(), "gemini")):
        pass
    monkeypatch.setenv("GOOGLE_API_KEY", "another-key")
    with opened(remote_config(serve(), "gemini")):
        pass
