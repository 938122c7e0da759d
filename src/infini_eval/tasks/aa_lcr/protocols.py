"""AA-LCR's judge protocols: what the judge is asked, how strictly its reply is read, and the data each belongs to.

The questions put to the judge and the pinned revisions are those of the data card (ArtificialAnalysis/AA-LCR,
Apache-2.0). Scores of different protocols are not comparable: 16 official answers differ too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from infini_eval.errors import ConfigError

Ask = Callable[[str], str]  # a judge: from a prompt to its reply
VERDICTS = {"CORRECT": True, "INCORRECT": False}
_ONE_WORD = re.compile(r"\W*(correct|incorrect)\W*", re.IGNORECASE)
_TASK = (
    "Assess whether the following CANDIDATE ANSWER is CORRECT or INCORRECT.\n"
    "For the CANDIDATE ANSWER to be correct, it must be consistent with the OFFICIAL ANSWER.\n"
)
_WORD_PROMPT = (
    "{task}\nThe question, for reference only: {question}\nThe OFFICIAL ANSWER: {official}\n"
    "CANDIDATE ANSWER TO ASSESS: {candidate}\n\nReply only with CORRECT or INCORRECT."
)
_JSON_PROMPT = (
    "{notes}\n\n{task}\nThe question, for reference only: START QUESTION {question}\n\nEND QUESTION\n\n"
    "The OFFICIAL ANSWER: {official}\n\nEND OFFICIAL ANSWER\n\nBEGIN CANDIDATE ANSWER TO ASSESS\n\n{candidate}\n\n"
    "END CANDIDATE ANSWER TO ASSESS\n\nReply as JSON, with a verdict of CORRECT or INCORRECT: "
    '{{"verdict": "CORRECT"}} or {{"verdict": "INCORRECT"}}.'
)
OUR_NOTES = "grading notes in our wording"
NOTES = (
    "You compare a CANDIDATE ANSWER with an OFFICIAL ANSWER.\n"
    "- The same value in another notation or scale is the same value.\n"
    "- A format that the question demands must be met; without such a demand any equivalent form will do.\n"
    "- Titles and articles may change where an entry of an ordered list stands: accept either order.\n"
    "- Judge the one value that the candidate settles on; several values without a choice are incorrect."
)


@dataclass(frozen=True)
class Protocol:
    """One way of judging. `revision` is the data's commit on the hub, `csv_sha256` its CSV (None where not known).

    `takes_notes`: grading notes precede the question to the judge.
    """

    name: str
    revision: str
    csv_sha256: str | None
    takes_notes: bool
    _template: str
    _parse: Callable[[str], bool | None]

    def prompt(self, question: str, official: str, candidate: str, notes: str | None = None) -> str:
        """What the judge is asked about one answer; `notes` replace this package's wording of the grading notes."""
        parts = {"task": _TASK, "notes": (notes or NOTES).strip()}
        return self._template.format(question=question, official=official, candidate=candidate, **parts)

    def parse(self, reply: str) -> bool | None:
        """True for CORRECT, False for INCORRECT, None for anything else: never a guess."""
        return self._parse(reply)

    def reply(self, correct: bool) -> str:
        """A reply that says so, as a judge should give it."""
        word = "CORRECT" if correct else "INCORRECT"
        return json.dumps({"verdict": word}) if self.takes_notes else word


def _one_word(reply: str) -> bool | None:
    """The one word, whatever punctuation stands around it ("CORRECT" is a part of "INCORRECT": no substring search)."""
    match = _ONE_WORD.fullmatch(reply.strip())
    return VERDICTS[match[1].upper()] if match else None


def _strict_json(reply: str) -> bool | None:
    """An object with the one key "verdict", once, and one of the two words."""
    try:
        pairs = json.loads(reply, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, tuple) or len(pairs) != 1 or pairs[0][0] != "verdict" or not isinstance(pairs[0][1], str):
        return None
    return VERDICTS.get(pairs[0][1])


PROTOCOLS = {
    "v1.0": Protocol(
        name="v1.0",
        revision="bdae010bbce259820c0e34c1d7cce210d966fb75",
        csv_sha256="2f90d9c30cfb4dd8df2c0f46547c384065e4c76917bd347a9a97bf797235c1ea",
        takes_notes=False,
        _template=_WORD_PROMPT,
        _parse=_one_word,
    ),
    "v1.1": Protocol(
        name="v1.1",
        revision="9a77ef56b717057ade24ceab4d273712a0b4f19e",
        csv_sha256=None,
        takes_notes=True,
        _template=_JSON_PROMPT,
        _parse=_strict_json,
    ),
}


@dataclass(frozen=True)
class Judgement:
    """`correct` is None where the verdict cannot be read; `reply` is the judge's own text, None without a call."""

    correct: bool | None
    reply: str | None
    protocol: str


def judge(
    question: str, official: str, candidate: str, ask: Ask, protocol: Protocol, notes: str | None = None
) -> Judgement:
    """The verdict on one answer; `ask` sends a prompt to a judge and returns its reply.

    An empty answer is wrong without a call: a judge was once seen to call one correct.
    """
    if not candidate.strip():
        return Judgement(False, None, protocol.name)
    reply = ask(protocol.prompt(question, official, candidate, notes))
    return Judgement(protocol.parse(reply), reply, protocol.name)


def protocol_named(name: str) -> Protocol:
    """A protocol by its name; ConfigError that lists them."""
    if name not in PROTOCOLS:
        raise ConfigError(f"judge protocol {name!r} is not known", valid=", ".join(PROTOCOLS))
    return PROTOCOLS[name]


def protocol_of_data(revision: str | None) -> str | None:
    """The protocol that belongs to data of this name ("v1.0"), None where the data's revision is not known."""
    return revision if revision in PROTOCOLS else None


def known_revision(csv_sha256: str, commit: str | None) -> str | None:
    """The name of a data revision, by its CSV or its commit on the hub; None for any other copy."""
    for name, protocol in PROTOCOLS.items():
        if csv_sha256 == protocol.csv_sha256 or (commit is not None and commit == protocol.revision):
            return name
    return None
