"""aa_lcr_judge: a judge reads the answers of an aa_lcr run; each answer is a sample, the reply is its verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infini_eval.api.task import LoadedData, Task
from infini_eval.errors import ConfigError
from infini_eval.records import Sample
from infini_eval.tasks.aa_lcr.answers import Generation, Generations, read_generations
from infini_eval.tasks.aa_lcr.data import NO_DEPTH
from infini_eval.tasks.aa_lcr.protocols import OUR_NOTES, Protocol, protocol_named, protocol_of_data

OPTIONS = {"protocol": "auto", "notes": ""}
PLAIN_PROTOCOL = "v1.0"


def load(path: str, *, options: Mapping[str, str], **filters: Any) -> LoadedData:
    """One sample for each answer that is not empty; failed ones are not judged, empty ones are wrong without a call."""
    generations = read_generations(Path(path))
    protocol, notes = chosen_protocol(generations, options["protocol"])
    wording = notes_text(options["notes"], protocol)
    if protocol.takes_notes and wording is None:
        notes.append(f"protocol {protocol.name} with {OUR_NOTES} is a deviation: --notes FILE takes the data card's")
    samples = [_sample(one, protocol, wording) for one in generations.items if one.status == "ok" and one.text.strip()]
    sha = None if wording is None else hashlib.sha256(wording.encode()).hexdigest()[:16]
    settings = {"protocol": protocol.name, "grading_notes": sha}
    return LoadedData(samples, generations.fingerprint, str(path), notes, settings)


def chosen_protocol(generations: Generations, asked: str) -> tuple[Protocol, list[str]]:
    """The protocol asked for, or ("auto") the one of the data; ConfigError where they are known not to fit."""
    belongs = protocol_of_data(generations.settings.get("revision"))
    name = (belongs or PLAIN_PROTOCOL) if asked == "auto" else asked
    protocol = protocol_named(name)
    if belongs is None:
        note = (
            f"nothing says which revision the data are; judged by protocol {name}, whose data are {protocol.revision}"
        )
        return protocol, [note]
    if belongs != name:
        raise ConfigError(
            f"the answers were made on data {belongs}, protocol {name} belongs to the answers of data {name}",
            valid=f"--protocol {belongs}",
            next_step=f"or generate again with --option revision={name}",
        )
    return protocol, []


def notes_text(file: str, protocol: Protocol) -> str | None:
    """The grading notes of a file; None where none is given."""
    if not file:
        return None
    if not protocol.takes_notes:
        raise ConfigError(f"protocol {protocol.name} takes no grading notes", valid="--protocol v1.1, or no --notes")
    try:
        text = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the grading notes {file!r} cannot be read: {error}") from None
    if not text.strip():
        raise ConfigError(f"the grading notes {file!r} are empty")
    return text


def _sample(one: Generation, protocol: Protocol, notes: str | None) -> Sample:
    """`answer` is what comparing the words would say: for the record, and for the fake backend."""
    contained = one.answer.casefold() in one.text.casefold()
    columns = {
        "question_id": one.question_id,
        "repeat": one.repeat,
        "protocol": protocol.name,
        "generation_key": one.key,
        "candidate_sha256": one.text_sha256,
    }
    text = protocol.prompt(one.question, one.answer, one.text, notes)
    return Sample(
        one.question_id, text, protocol.reply(contained), NO_DEPTH, columns=columns, occurrence=one.repeat - 1
    )


TASK = Task(
    name="aa_lcr_judge",
    scorers=("judge_verdict",),
    max_new_tokens=64,
    validate=lambda samples: [],
    locate=lambda sample: None,
    load=load,
    options=OPTIONS,
    report="none",
)
