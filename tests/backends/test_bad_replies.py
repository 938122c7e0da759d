"""Replies that no server should give: wrong kinds, absurd sizes, half characters, drips; they cost an attempt or a sample."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from infini_eval.backends import _remote
from infini_eval.backends._remote import Reply, ReplyCache, delay_s
from infini_eval.evaluation.run import evaluate
from infini_eval.results.merge import samples_table
from support.scripted_server import ScriptedStep

pytest.importorskip("openai")
BASE = {"id": "1", "object": "x", "created": 0, "model": "m", "usage": {"prompt_tokens": 1000, "completion_tokens": 4}}


def reply(text: Any = " 5.", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {**BASE, "choices": [{"index": 0, "finish_reason": "stop", "message": message}], **more}


def usage(tokens: Any) -> dict[str, Any]:
    return reply(usage={"prompt_tokens": tokens, "completion_tokens": 4})


MALFORMED = {
    "choices are a number": json.dumps({**BASE, "choices": 5}),
    "a choice is a text": json.dumps({**BASE, "choices": ["x"]}),
    "the text is a number": json.dumps(reply(5)),
    "the text is a list": json.dumps(reply([{"type": "text"}])),
    "the message is a list": json.dumps({**BASE, "choices": [{"message": []}]}),
    "usage is a text": json.dumps(reply(usage="many")),
    "tokens are a text": json.dumps(usage("many")),
    "tokens are below 0": json.dumps(usage(-5)),
    "tokens of 401 digits": json.dumps(usage(10**400)),
    "tokens of 6,000 digits": json.dumps(usage(0)).replace('"prompt_tokens": 0', '"prompt_tokens": ' + "9" * 6000),
    "tokens are infinite": json.dumps(usage(float("inf"))),
    "tokens are NaN": json.dumps(usage(float("nan"))),
    "the model is a list": json.dumps(reply(model=["m"])),
    "deep": "[" * 200_000,
    "a list": "[]",
    "a number": "5",
    "nothing": "",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_reply_of_the_wrong_kind_is_asked_for_again(serve, remote_config, answers, body) -> None:
    server = serve([ScriptedStep(malformed=body)])
    (response,) = answers(remote_config(server, replies="off"), 1)
    assert (response.finish_reason, len(server.asked)) == ("stop", 2)


def test_replies_that_stay_malformed_fail_the_sample_and_not_the_run(serve, remote_config, answers) -> None:
    bad = ScriptedStep(malformed=MALFORMED["tokens of 401 digits"])
    got = answers(remote_config(serve([bad, bad, bad]), replies="off"), 2)
    assert [response.finish_reason for response in got] == ["error", "stop"]
    assert "malformed reply" in got[0].error and len(got[0].error) < 500


def test_half_a_character_is_replaced_noted_and_merged(serve, remote_config) -> None:
    body = json.dumps(reply("5 \ud800 \U0001f600"))
    config = remote_config(serve(otherwise=ScriptedStep(malformed=body)))
    evaluate(config)
    rows = samples_table(config.save_path).to_pylist()
    assert {row["generation_text"] for row in rows} == {"5 \ufffd \U0001f600"}
    assert {row["replacement_characters"] for row in rows} == {1}


def test_a_reply_longer_than_the_budget_allows_is_refused(serve, remote_config, answers, monkeypatch) -> None:
    monkeypatch.setattr(_remote, "MOST_CHARS", 100)
    server = serve([ScriptedStep(text="x" * 2_000)])
    first, second = answers(remote_config(server, max_new_tokens=15), 2)
    assert "has 2,000 characters" in first.error and second.error is None


@pytest.mark.parametrize("packed", [False, True], ids=["large", "packed"])
def test_a_reply_is_not_read_beyond_its_bound(serve, remote_config, answers, monkeypatch, packed) -> None:
    monkeypatch.setattr(_remote, "MOST_BYTES", 5_000)
    large = ScriptedStep(malformed=json.dumps(reply("x" * 10_000)))
    bomb = ScriptedStep(malformed="not gzip at all", headers={"content-encoding": "gzip"})
    server = serve([bomb if packed else large])
    first, second = answers(remote_config(server, max_new_tokens=15), 2)
    assert ("packed" if packed else "more than 5,000 bytes") in first.error and second.error is None
    assert all(headers["accept-encoding"] == "identity" for _, headers, _ in server.asked)


def test_the_time_limit_is_of_the_whole_request(serve, remote_config, answers) -> None:
    server = serve([ScriptedStep(drip_s=0.05)])  # some 300 bytes: silence is never longer than a moment
    first, second = answers(remote_config(server, timeout_s=5.0), 2)
    assert "no reply within 5 s" in first.error
    assert second.error is None and len(server.asked) == 2


REPLY = {"text": "a", "finish_reason": "stop", "prompt_tokens": 5, "details": {}}
KEPT = {
    "text": {**REPLY, "text": 5},
    "tokens": {**REPLY, "prompt_tokens": "many"},
    "absurd": {**REPLY, "prompt_tokens": 10**400},
    "reason": {**REPLY, "finish_reason": "tired"},
    "nested": {**REPLY, "details": {"a": [[]]}},
    "list": [],
    "none": None,
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_a_kept_reply_of_the_wrong_kind_is_asked_for_again(tmp_path, kept) -> None:
    cache = ReplyCache(tmp_path)
    cache.put({"q": 1}, Reply("a", "stop", 5))
    (path,) = tmp_path.rglob("*.json")
    assert cache.get({"q": 1}) == Reply("a", "stop", 5)
    path.write_text(json.dumps({"version": 1, "reply": kept}))
    assert cache.get({"q": 1}) is None


@pytest.mark.parametrize("asked", ["nan", "inf", "-1", "9" * 5000, "soon"])
def test_a_wait_that_makes_no_sense_is_not_waited(asked) -> None:
    from infini_eval.backends.openai import _retry_after_s

    assert 0 <= delay_s(1, _retry_after_s({"retry-after": asked})) < 3


def test_planted_keys_are_written_nowhere(serve, remote_config, monkeypatch, capfd, tmp_path) -> None:
    """Keys in variables of any name, in addresses and in --request-extra, quoted by the server in every field."""
    keys = [f"planted-{name}-0123456789" for name in ("variable", "password", "extra", "bearer")]
    monkeypatch.setenv("MY_OWN_SECRET", keys[0])
    monkeypatch.setenv("TRACKER_ADDRESS", f"http://me:{keys[1]}@host/")
    extra = {"api_key": keys[2], "headers": {"Authorization": f"Bearer {keys[3]}"}}
    said = " ".join(keys)
    monkeypatch.setattr(sys, "argv", ["infini-eval", "--request-extra", json.dumps(extra)])
    script = [ScriptedStep(status=500, message=said), ScriptedStep(status=400, message=said)]
    good = ScriptedStep(malformed=json.dumps(reply(said, model=said)))
    config = remote_config(serve(script, good), extra=json.dumps(extra), verbose=True)
    evaluate(config)
    evaluate(config)  # a key that was hidden is the same setting
    shown = "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "[key]" in shown and len(files) > 3
    for key in keys:
        assert key not in shown
        assert not [path for path in files if key.encode() in path.read_bytes()]


def test_what_acts_on_a_terminal_is_written_out_in_the_log(serve, remote_config, capfd) -> None:
    config = remote_config(serve(otherwise=ScriptedStep(text="a\x1b[31m\r\u202eb")), verbose=True)
    evaluate(config)
    shown = "".join(capfd.readouterr())
    assert "a\\x1b[31m\\r\\u202eb" in shown
    assert not set("\x1b\r\u202e") & set(shown)
