"""The server by the real client of OpenAI: answers, log-probabilities, streams, and what it refuses."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import time
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infini_eval.serve.protocol import CompletionRequest
from support.limits import PROCESS_S

PROMPT = "There is an important info hidden inside a lot of irrelevant text. The pass key is"


def native(model, tokenizer, prompts, tokens: int, **sampling) -> list[str]:
    """What the model itself answers."""
    rows = [tokenizer.encode(prompt) if isinstance(prompt, str) else np.array(prompt) for prompt in prompts]
    answers = model.generate(rows, tokens, stop_ids=(), vocabulary=tokenizer.vocab_size, **sampling)
    return [tokenizer.decode(answer) for answer in answers]


def ask(server, **fields):
    return server.client.completions.create(
        **({"model": "tiny", "prompt": PROMPT, "temperature": 0, "max_tokens": 12} | fields)
    )


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict]:
    """What the server says to a request that the client would not send."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
    connection.request("POST", f"{parts.path}/completions", body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found["error"]


def wait_for(what) -> None:
    deadline = time.monotonic() + PROCESS_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_completions_of_texts_and_token_ids_are_the_models(serve, model, tokenizer):
    server = serve()
    prompts = [PROMPT, "The grass is green. " * 9, "short"]
    expected = native(model, tokenizer, prompts, 12)
    answer = ask(server, prompt=prompts)
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    ids = [tokenizer.encode(prompt).tolist() for prompt in prompts]
    assert answer.usage.prompt_tokens == sum(map(len, ids)) and answer.usage.completion_tokens == 36
    assert [choice.text for choice in ask(server, prompt=ids).choices] == expected
    assert ask(server, prompt=ids[1]).choices[0].text == expected[1]


def test_n_draws_with_a_seed_are_the_models(serve, model, tokenizer):
    server = serve()
    sampling = {"temperature": 0.9, "top_p": 0.95, "seed": 7}
    answer = ask(server, prompt=[PROMPT, "other"], n=2, **sampling)
    assert [one.text for one in answer.choices] == native(
        model, tokenizer, [PROMPT, PROMPT, "other", "other"], 12, **sampling
    )
    assert answer.choices[0].text != answer.choices[1].text
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode(prompt)) for prompt in (PROMPT, "other"))
    unseeded = {one.text for one in ask(server, n=3, temperature=1.5).choices}
    assert len(unseeded) == 3


@pytest.mark.parametrize("max_tokens", [0, 1, 4], ids=["prompt only", "in one pass", "after the answer"])
def test_echoed_logprobs_are_the_scores(serve, model, tokenizer, max_tokens):
    ids = tokenizer.encode(PROMPT)
    server = serve()
    (choice,) = ask(server, echo=True, logprobs=3, max_tokens=max_tokens).choices
    (answer,) = model.generate([ids], max_tokens, stop_ids=(), vocabulary=tokenizer.vocab_size) if max_tokens else [[]]
    row = np.concatenate([ids, np.array(answer, dtype=ids.dtype)])
    (scored,) = model.score([row], [len(row) - 1], top=3, vocabulary=tokenizer.vocab_size)
    told = choice.logprobs
    assert choice.text == PROMPT + tokenizer.decode(answer)
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    np.testing.assert_allclose(told.token_logprobs[1:], scored.logprobs, atol=1e-5)
    assert len(told.tokens) == len(told.text_offset) == len(row)
    for token_id, token, offset in zip(row, told.tokens, told.text_offset, strict=True):
        half_a_character = "\ufffd" in tokenizer.decode([token_id])
        assert half_a_character or choice.text[offset:].startswith(token)
    for place, (token, top) in enumerate(zip(told.tokens[1:], told.top_logprobs[1:], strict=True)):
        assert list(top)[:3] == [server.service.token_text(one) for one in scored.top_ids[place].tolist()]
        assert top[token] == pytest.approx(told.token_logprobs[1 + place])


def test_logprobs_without_echo_are_of_the_answer_alone(serve):
    server = serve()
    whole, answer = ask(server, echo=True, logprobs=2, max_tokens=5), ask(server, logprobs=2, max_tokens=5)
    assert answer.choices[0].logprobs.token_logprobs == pytest.approx(whole.choices[0].logprobs.token_logprobs[-5:])
    assert answer.choices[0].logprobs.text_offset[0] == 0


@pytest.mark.parametrize("fields", [{}, {"echo": True}, {"logprobs": 1}, {"logprobs": 0, "echo": True}, {"n": 2}])
def test_a_stream_joined_is_the_answer(serve, fields):
    server = serve()
    whole = ask(server, stop=["q", "7"], **fields)
    chunks = list(ask(server, stop=["q", "7"], stream=True, stream_options={"include_usage": True}, **fields))
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in chunks[:-1] if chunk.choices[0].index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        assert [one.finish_reason for one in mine if one.finish_reason] == [choice.finish_reason]
        assert [one.logprobs for one in mine if one.logprobs] == ([choice.logprobs] if choice.logprobs else [])


def test_parts_come_while_the_answer_is_computed(serve):
    server = serve(max_new_tokens=1 << 16)
    stream = ask(server, stream=True, max_tokens=1 << 16)
    assert next(iter(stream)).choices[0].text
    stream.close()


def test_a_stop_string_ends_the_answer_before_it(serve):
    server = serve()
    whole = ask(server).choices[0].text
    stop = whole[5:8]
    choice = ask(server, stop=stop, logprobs=0).choices[0]
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert "".join(choice.logprobs.tokens).startswith(choice.text)


def test_an_end_token_ends_the_answer(serve, replica, model, tokenizer):
    server = serve()
    ((token,),) = model.generate([tokenizer.encode(PROMPT)], 1, stop_ids=(), vocabulary=tokenizer.vocab_size)
    replica.stop_ids = frozenset([token])
    for fields in ({}, {"max_tokens": 1, "echo": True, "logprobs": 1}):
        choice = ask(server, **fields).choices[0]
        assert (choice.text, choice.finish_reason) == (PROMPT if fields else "", "stop")


def test_a_chat_is_its_template(serve, model, tokenizer):
    server = serve()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "it?"}]},
    ]
    fields = {"model": "tiny", "messages": messages, "temperature": 0, "max_completion_tokens": 9}
    text = native(model, tokenizer, ["[user]Be brief.[user]What is it?[assistant]"], 9)[0]
    answer = server.client.chat.completions.create(**fields, logprobs=True, top_logprobs=2)
    assert answer.choices[0].message.content == text and answer.choices[0].message.role == "assistant"
    told = answer.choices[0].logprobs.content
    assert len(told) == 9 and all(one.logprob == one.top_logprobs[0].logprob for one in told)
    chunks = list(server.client.chat.completions.create(**fields, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert (chunks[0].choices[0].delta.role, chunks[-1].choices[0].finish_reason) == ("assistant", "length")


def test_without_a_template_a_chat_is_refused(serve):
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        serve(chat=False).client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a"}])


def test_models_and_health(serve):
    server = serve()
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").owned_by == "infini-eval"
    for find in (server.client.models.retrieve, lambda name: ask(server, model=name)):
        with pytest.raises(openai.NotFoundError, match="not served here"):
            find("another/one")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": [[5], []]}, "prompt", "empty"),
        ({"prompt": [4096]}, "prompt", "vocabulary"),
        ({"prompt": [2**40]}, "prompt", "vocabulary"),
        ({"prompt": "a " * 200}, "prompt", "maximum context length"),
        ({"max_tokens": 65}, "max_tokens", "up to 64"),
        ({"max_tokens": -1}, "max_tokens", "greater than"),
        ({"temperature": 1e-9}, "temperature", "at least"),
        ({"temperature": 1e9}, "temperature", "less than"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 0}, "n", "greater than"),
        ({"n": 128}, "n", "up to 8"),
        ({"logprobs": 21}, "logprobs", "less than"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"best_of": 3}, None, "best_of"),
        ({"suffix": "x"}, None, "suffix"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "leave it out"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "leave it out"),
        ({"extra_body": {"guided_regex": "a"}}, "guided_regex", "not a field"),
    ],
)
def test_what_a_request_may_not_ask_for(serve, fields, param, says):
    with pytest.raises(openai.BadRequestError, match=says) as caught:
        ask(serve(max_prompt_tokens=100, max_new_tokens=64, max_queue=8), **fields)
    assert (caught.value.body["type"], caught.value.param) == ("invalid_request_error", param)


SOMETHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("tiny"), st.lists(st.integers()),
    st.lists(st.lists(st.integers(0, 2000), max_size=3), max_size=3), st.dictionaries(st.text(), st.integers(), max_size=2),
)  # fmt: skip
FIELDS = [*CompletionRequest.model_fields, "other"]


def test_whatever_a_request_says_the_reply_has_the_protocols_form(serve):
    server = serve(max_new_tokens=4, max_prompt_tokens=9, max_queue=4)

    @settings(max_examples=150)
    @given(st.dictionaries(st.sampled_from(FIELDS), SOMETHING), st.booleans())
    def check(fields: dict, complete: bool) -> None:
        body = json.dumps(fields | ({"model": "tiny", "prompt": "a", "stream": False} if complete else {})).encode()
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = answer.read()
        assert answer.status in (200, 400, 404)
        if answer.getheader("Content-Type", "").startswith("application/json"):
            assert ("error" in json.loads(found)) == (answer.status != 200)
        connection.close()

    check()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 5000, b'{"model": "tiny"}', b'{"prompt": NaN}']
)
def test_what_is_no_request_is_refused_in_the_protocols_form(serve, body):
    status, error = post(serve().url, body)
    assert status == 400 and error["type"] == "invalid_request_error" and error["message"]


def test_half_a_character_is_read_as_one_that_is_missing(serve, model, tokenizer):
    server = serve()
    body = b'{"model": "tiny", "prompt": "a\\ud800b", "temperature": 0, "max_tokens": 5}'
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    found = json.loads(connection.getresponse().read())
    assert found["choices"][0]["text"] == native(model, tokenizer, ["a\ufffdb"], 5)[0]


def test_a_body_that_is_not_declared_as_json_is_not_read(serve):
    status, _ = post(serve().url, b'{"model": "tiny", "prompt": "a"}', **{"Content-Type": "text/plain"})
    assert status == 400


def test_a_request_that_is_too_large_is_refused_announced_or_not(serve):
    server = serve(max_body_mb=1)
    large = json.dumps({"model": "tiny", "prompt": "a" * 2_000_000}).encode()
    with pytest.raises(openai.APIStatusError) as caught:
        ask(server, prompt="a" * 2_000_000)
    assert caught.value.status_code == 413
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
    pieces = (large[start : start + 65_536] for start in range(0, len(large), 65_536))
    try:
        connection.request("POST", "/v1/completions", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    except (BrokenPipeError, ConnectionResetError):
        return  # refused before everything was sent
    assert connection.getresponse().status == 413


def test_a_key_is_asked_for_everywhere_but_for_health(serve):
    server = serve(key="sk-right-0123456789")
    assert ask(server).choices
    for wrong in ("sk-wrong", "sk-right-0123456789x", "schlüssel"):
        status, error = post(server.url, b"{", Authorization=f"Bearer {wrong}".encode("latin-1"))
        assert (status, error["code"]) == (401, "invalid_api_key")
    with pytest.raises(openai.AuthenticationError):
        server.client.with_options(api_key="sk-wrong").models.list()
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200


def test_a_page_that_calls_this_machine_by_a_name_of_its_own_gets_nothing(serve):
    status, error = post(serve().url, b'{"model": "tiny", "prompt": "a"}', Host="evil.example")
    assert (status, error["code"]) == (421, "wrong_host")


def test_requests_that_come_together_are_computed_together_and_answered_as_alone(serve, replica, model, tokenizer):
    server = serve(paused=True)
    prompts = [f"{PROMPT} {number}." for number in range(4)] + [
        "The sky is blue. " * (5 + number) for number in range(3)
    ]
    batches: list[int] = []
    run = model.run

    def counted(work, *rest):
        def watched():
            for item in work:
                batches.append(len(item[1]))
                yield item

        return run(watched(), *rest)

    model.run = counted
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        asked = [pool.submit(ask, server, prompt=prompt) for prompt in prompts]
        wait_for(lambda: server.service.scheduler.waiting == len(prompts))
        server.resume()
        answers = [one.result().choices[0].text for one in asked]
    model.run = run
    assert sum(batches) == len(prompts) and len(batches) < len(prompts)
    assert answers == [native(model, tokenizer, [prompt], 12)[0] for prompt in prompts]


def test_a_full_queue_sends_away_and_a_late_answer_is_none(serve):
    server = serve(paused=True, max_queue=2, request_timeout_s=1.0)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, server, prompt=["a", "b"])
        wait_for(lambda: server.service.scheduler.waiting == 2)
        with pytest.raises(openai.RateLimitError, match="wait already") as caught:
            ask(server)
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.InternalServerError, match="no answer within") as late:
            waiting.result()
    assert late.value.status_code == 503


def test_a_stopping_server_takes_nothing_new_and_finishes_what_it_has(serve):
    server = serve(paused=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, server)
        wait_for(lambda: server.service.scheduler.waiting == 1)
        server.service.scheduler.close()
        with pytest.raises(openai.InternalServerError, match="stopping") as caught:
            ask(server)
        assert caught.value.status_code == 503
        server.resume()
        assert waiting.result().choices[0].text


def test_a_client_that_goes_ends_its_answer(serve):
    server = serve(max_new_tokens=1 << 20)
    stream = ask(server, stream=True, max_tokens=1 << 20)
    next(iter(stream))
    stream.close()
    assert ask(server).choices[0].text  # which would not be computed before the other one has ended
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PROCESS_S)
    body = json.dumps({"model": "tiny", "prompt": PROMPT, "max_tokens": 1 << 20})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    wait_for(lambda: server.service.scheduler._in_hand)
    connection.close()
    assert ask(server).choices[0].text


def test_a_prompt_that_nobody_waits_for_is_not_read_to_its_end(serve, model, monkeypatch):
    server = serve(request_timeout_s=1.0)
    run, steps = model.run, []

    def deserted(work, limits, sampling, vocabulary, on_tokens, ends):
        def step(tokens: int) -> None:
            steps.append(tokens)
            for job in server.service.scheduler._in_hand[0]:
                job.cancelled = True
            on_tokens(tokens)

        return run(work, limits, sampling, vocabulary, step, ends)

    monkeypatch.setattr(model, "run", deserted)
    with pytest.raises(openai.InternalServerError, match="no answer within"):
        ask(server, prompt=[5] * 5000)
    monkeypatch.undo()
    assert len(steps) == 1 and sum(steps) < 5000
    assert ask(server).choices[0].text


def test_a_row_that_becomes_nan_fails_alone(serve, model, tokenizer):
    server = serve(paused=True)
    token = tokenizer.encode(" green", add_special_tokens=False).tolist()[-1]
    expected = native(model, tokenizer, ["The sky is blue"], 12)[0]
    model.llama.embedding[token] = float("nan")
    for fields in ({}, {"echo": True, "logprobs": 1, "max_tokens": 1}):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            bad = pool.submit(ask, server, prompt="The sky is green", **fields)
            good = pool.submit(ask, server, prompt="The sky is blue", **fields)
            if not fields:
                wait_for(lambda: server.service.scheduler.waiting == 2)
                server.resume()
            with pytest.raises(openai.InternalServerError, match="NaN or infinite"):
                bad.result()
            assert good.result().choices[0].text == (expected if not fields else "The sky is blue" + expected[:1])


def test_what_memory_does_not_hold_together_is_computed_alone(serve, replica, model, tokenizer, monkeypatch):
    server = serve(paused=True)
    run, tried = model.run, []

    def scarce(work, *rest):
        def checked():
            for item in work:
                tried.append(len(item[1]))
                if len(item[1]) > 1 or len(item[1][0]) > 50:
                    raise torch.OutOfMemoryError("out of memory. Tried to allocate")
                yield item

        return run(checked(), *rest)

    monkeypatch.setattr(model, "run", scarce)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        both = pool.submit(ask, server, prompt=["one", "two"])
        wait_for(lambda: server.service.scheduler.waiting == 2)
        server.resume()
        answers = [choice.text for choice in both.result().choices]
    assert tried == [2, 1, 1]
    monkeypatch.undo()
    assert answers == native(model, tokenizer, ["one", "two"], 12)
    monkeypatch.setattr(model, "run", scarce)
    with pytest.raises(openai.InternalServerError, match="out of memory with a prompt of"):
        ask(server, prompt="The grass is green. " * 20)


def test_states_of_what_requests_have_in_common_are_kept(serve, model, tokenizer):
    server = serve()
    text = "The grass is green. The sky is blue. " * 6
    reused = []
    for number in range(3):
        answer = ask(server, prompt=f"{text}{number} is it")
        reused.append(answer.usage.prompt_tokens_details.cached_tokens)
        assert answer.choices[0].text == native(model, tokenizer, [f"{text}{number} is it"], 12)[0]
    again = ask(server, prompt=f"{text}0 is it. And so on")
    assert reused[:2] == [0, 0] and reused[2] > 0.8 * answer.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens > 0.8 * again.usage.prompt_tokens
