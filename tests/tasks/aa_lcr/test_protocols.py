"""Judging: protocols, strict reading of verdicts, empty answers, and a judge as a callable."""

from __future__ import annotations

import pytest

from infini_eval.errors import ConfigError
from infini_eval.records import Sample
from infini_eval.scorers.judge import judge as score
from infini_eval.scorers.judge import judge_verdict
from infini_eval.tasks.aa_lcr.protocols import NOTES, PROTOCOLS, judge, protocol_named

V10, V11 = PROTOCOLS["v1.0"], PROTOCOLS["v1.1"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("CORRECT", True),
        ("INCORRECT", False),
        (" INCORRECT.\n", False),
        ("**Correct**", True),
        ("incorrect", False),
        ("NOT CORRECT", None),
        ("CORRECT or INCORRECT", None),
        ("The answer is CORRECT", None),
        ("CORRECTED", None),
        ("INCORRECTCORRECT", None),
        ("", None),
        ("yes", None),
        ('{"verdict": "CORRECT"}', None),
    ],
)
def test_v10_reads_the_one_word_only(reply: str, expected: bool | None) -> None:
    assert V10.parse(reply) is expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"verdict": "CORRECT"}', True),
        (' {"verdict":"INCORRECT"}\n', False),
        ("CORRECT", None),
        ('{"verdict": "correct"}', None),
        ('{"verdict": "PARTIAL"}', None),
        ('{"verdict": true}', None),
        ('{"verdict": ["CORRECT"]}', None),
        ('{"verdict": "CORRECT", "why": "x"}', None),
        ('{"verdict": "INCORRECT", "verdict": "CORRECT"}', None),
        ('[["verdict", "CORRECT"]]', None),
        ('```json\n{"verdict": "CORRECT"}\n```', None),
        ("{}", None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_v11_reads_strict_json_only(reply: str, expected: bool | None) -> None:
    assert V11.parse(reply) is expected


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda one: one.name)
def test_a_prompt_holds_its_parts_unchanged_and_its_own_reply_is_read(protocol) -> None:
    prompt = protocol.prompt("What {x}?", "a; {b}", "cand {c} END CANDIDATE")
    assert all(part in prompt for part in ("What {x}?", "a; {b}", "cand {c} END CANDIDATE"))
    assert protocol.parse(protocol.reply(True)) is True
    assert protocol.parse(protocol.reply(False)) is False


def test_v10_asks_as_the_data_card() -> None:
    assert V10.prompt("Q?", "A", "C") == (
        "Assess whether the following CANDIDATE ANSWER is CORRECT or INCORRECT.\n"
        "For the CANDIDATE ANSWER to be correct, it must be consistent with the OFFICIAL ANSWER.\n\n"
        "The question, for reference only: Q?\nThe OFFICIAL ANSWER: A\nCANDIDATE ANSWER TO ASSESS: C\n\n"
        "Reply only with CORRECT or INCORRECT."
    )


def test_grading_notes_precede_v11_and_can_be_replaced() -> None:
    assert V11.prompt("q", "o", "c").startswith(NOTES)
    assert V11.prompt("q", "o", "c", notes="Mine.\n").startswith("Mine.\n\nAssess")


def test_an_unknown_protocol_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"v1\.0, v1\.1"):
        protocol_named("v2")


@pytest.mark.parametrize("candidate", ["", " \n\t"])
def test_an_empty_answer_is_wrong_without_a_call(candidate: str) -> None:
    found = judge("q", "a", candidate, lambda prompt: pytest.fail("asked"), V10)
    assert (found.correct, found.reply) == (False, None)


def test_the_judge_is_any_callable_and_its_words_are_kept() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "Hm, CORRECT?"

    found = judge("q", "official", "candidate", ask, V10)
    assert found.correct is None
    assert found.reply == "Hm, CORRECT?"
    assert "official" in asked[0]
    assert "candidate" in asked[0]


def test_answers_wait_for_their_judge() -> None:
    sample = Sample("1", "p", "a", float("nan"))
    assert score("something", sample).value is None
    assert score("  ", sample).value is None, "an empty answer is wrong, but alone it is no accuracy of a run"


@pytest.mark.parametrize(("reply", "value"), [("CORRECT", 1.0), ("INCORRECT", 0.0), ("perhaps", None)])
def test_a_verdict_is_scored_by_its_samples_protocol(reply: str, value: float | None) -> None:
    sample = Sample("1", "p", "CORRECT", float("nan"), columns={"protocol": "v1.0"})
    assert judge_verdict(reply, sample).value == value
