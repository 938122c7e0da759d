"""Log lines for single samples: one line each, texts only where asked for, and the evaluation guide's format."""

from __future__ import annotations

import logging

import pytest

from infini_eval.config import EvalConfig
from infini_eval.evaluation.answer import SampleLog
from infini_eval.records import NeedlePosition, Response, Sample, SampleRecord, Score


def record(value: float | None = 1.0, *, error: str | None = None, depth: float = 25.0) -> SampleRecord:
    sample = Sample("passkey-17", "before 4711 after", "4711", depth, 1024)
    reason = "error" if error else "stop"
    response = Response("4711.", [1, 2], 1019, reason, 0.314, error)
    return SampleRecord(sample, response, {"exact": Score(value)}, "exact", NeedlePosition(None, None), "…4711…")


def logged(log: SampleLog, one: SampleRecord, caplog, monkeypatch) -> list[str]:
    monkeypatch.setattr(logging.getLogger("infini_eval"), "propagate", True)
    with caplog.at_level("INFO", logger="infini_eval"):
        log.write(one)
    return caplog.messages


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (record(), "✓ right   depth    25 %    1,019 tokens  score 1.00    0.31 s  passkey-17"),
        (record(0.0, depth=99.5), "✗ wrong   depth  99.5 %    1,019 tokens  score 0.00    0.31 s  passkey-17"),
        (record(0.5), "~ partly  depth    25 %    1,019 tokens  score 0.50    0.31 s  passkey-17"),
        (record(None, depth=float("nan")), "? asked     1,019 tokens    0.31 s  passkey-17"),
        (record(error="no\nanswer"), "! failed  depth    25 %    1,019 tokens    0.31 s  passkey-17  no answer"),
    ],
    ids=["right", "wrong", "partly", "unjudged", "failed"],
)
def test_one_line_a_sample(one, line, caplog, monkeypatch):
    assert logged(SampleLog(), one, caplog, monkeypatch) == [line]


def test_texts_where_they_are_asked_for(caplog, monkeypatch):
    line, prompt, answer = logged(SampleLog(texts=True), record(), caplog, monkeypatch)
    assert line.startswith("✓ right")
    assert (prompt, answer) == ("prompt: …4711…", "answer: 4711.")


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (record(), "Success"),
        (record(0.5), "Failure"),
        (record(error="no answer"), "Failure: no answer"),
        (record(None), "not judged yet"),
    ],
    ids=["right", "wrong", "failed", "unjudged"],
)
def test_the_guides_format(one, verdict, caplog, monkeypatch):
    lines = logged(SampleLog("guide", whole_prompts=True), one, caplog, monkeypatch)
    assert lines == ["input: before 4711 after", "generation: 4711.", f"{verdict}\n{'-' * 50}"]


@pytest.mark.parametrize(
    ("asked", "log"),
    [
        ({}, SampleLog()),
        ({"quiet": True, "verbose": True}, None),
        ({"verbose": True}, SampleLog(texts=True)),
        ({"log_prompts": True}, SampleLog(texts=True, whole_prompts=True)),
        ({"log_format": "guide"}, SampleLog("guide")),
    ],
)
def test_what_the_configuration_asks_for(asked, log):
    assert SampleLog.of(EvalConfig("m", "s", "d", **asked)) == log
