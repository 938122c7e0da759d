"""Judges' verdicts on the answers of a run: read from judges/*, joined with the very words that were judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infini_eval.results.manifest import MANIFEST, read_manifest
from infini_eval.results.reader import natural_key
from infini_eval.results.samples import iter_samples, unique_records
from infini_eval.tasks.aa_lcr.answers import Generation, Generations
from infini_eval.tasks.aa_lcr.protocols import OUR_NOTES, PROTOCOLS

NOBODY = "nobody, for every answer is empty"
COUNTED = ("right", "wrong", "empty")
STATES = (*COUNTED, "unparsed", "judge failed", "pending", "failed")
WAITING = {"unparsed", "judge failed", "pending"}
Key = tuple[str, str]  # the answer's key and the sha256 of its words


@dataclass(frozen=True)
class Judge:
    """One judge's verdicts. `records` are its replies by answer; `notes` is the sha256 of grading notes given to it."""

    name: str
    model: str
    protocol: str
    notes: str | None
    records: Mapping[Key, Mapping[str, Any]]
    failed_as_wrong: bool = False

    def state(self, one: Generation) -> str:
        """What is known of an answer, one of STATES; an empty one is wrong without a call."""
        if one.status != "ok":
            return "failed"
        if not one.text.strip():
            return "empty"
        record = self.records.get((one.key, one.text_sha256))
        if record is None:
            return "pending"
        if record["status"] != "ok":
            return "judge failed"
        if record["correct"] is None:
            return "unparsed"
        return "right" if record["correct"] > 0.5 else "wrong"

    def value(self, one: Generation) -> float | None:
        """1.0 right, 0.0 wrong, None not to be counted."""
        state = self.state(one)
        if state == "failed" and self.failed_as_wrong:
            return 0.0
        return float(state == "right") if state in COUNTED else None

    def values(self, items: Sequence[Generation]) -> list[float | None]:
        """The value of each answer; none has one before the first verdict, for empty answers alone are no accuracy."""
        states = {self.state(one) for one in items}
        if states & WAITING and not states & {"right", "wrong"}:
            return [None] * len(items)
        return [self.value(one) for one in items]

    def not_counted(self, items: Sequence[Generation]) -> dict[str, int]:
        """How many answers have no value, by state; states without any are left out."""
        found = Counter(self.state(one) for one in items if self.value(one) is None)
        return {state: found[state] for state in STATES if found[state]}

    @property
    def deviations(self) -> list[str]:
        """In what these verdicts depart from their protocol."""
        ours = self.protocol in PROTOCOLS and PROTOCOLS[self.protocol].takes_notes and self.notes is None
        return [OUR_NOTES] if ours else []

    def raw(self, one: Generation) -> str | None:
        """The judge's own words."""
        record = self.records.get((one.key, one.text_sha256))
        return None if record is None else record["generation_text"]

    def counts(self, items: Sequence[Generation]) -> dict[str, int]:
        found = Counter(self.state(one) for one in items)
        return {state: found[state] for state in STATES}

    def unparsed(self, items: Sequence[Generation]) -> list[dict[str, Any]]:
        """Replies that are no verdict, whole."""
        ids = [(one, self.raw(one)) for one in items if self.state(one) == "unparsed"]
        return [{"question_id": one.question_id, "repeat": one.repeat, "raw": raw} for one, raw in ids]

    def errors(self) -> list[str]:
        return sorted({str(record["error"]) for record in self.records.values() if record["status"] != "ok"})[:10]

    @property
    def said(self) -> dict[str, bool | None]:
        """Verdicts by answer, None where the reply is none; for comparing judges."""
        return {
            "/".join(key): None if record["status"] != "ok" or record["correct"] is None else record["correct"] > 0.5
            for key, record in self.records.items()
        }


def read_judges(generations: Generations, *, failed_as_wrong: bool = False) -> list[Judge]:
    """Every judge that has verdicts on these answers, by name; verdicts on other words are left aside."""
    folder = generations.judges_folder
    places = sorted((path.parent for path in folder.glob(f"*/{MANIFEST}")), key=natural_key)
    texts = [one.text.strip() for one in generations.items if one.status == "ok"]
    if not places and texts and not any(texts):
        return [Judge(NOBODY, NOBODY, "any", None, {}, failed_as_wrong)]
    return [_judge(place, generations.items, failed_as_wrong) for place in places]


def _judge(folder: Path, items: Sequence[Generation], failed_as_wrong: bool) -> Judge:
    manifest = read_manifest(folder)
    settings = manifest.identity.get("data_settings") or {}
    lines = (line.record for line in iter_samples(folder) if line.record is not None)
    return Judge(
        name=folder.name,
        model=str(manifest.model.get("name") or "unknown model"),
        protocol=str(settings.get("protocol")),
        notes=settings.get("grading_notes"),
        records=_joined(unique_records(lines), items),
        failed_as_wrong=failed_as_wrong,
    )


def _joined(records: Sequence[Mapping[str, Any]], items: Sequence[Generation]) -> dict[Key, Mapping[str, Any]]:
    """Replies by the answer that they judge, those to other words left aside.

    A key that no answer has any more (of a duplicate, of another listing of the same answers) gives way to question,
    repeat and words: the judge, who has replied, would not be asked again, and the answer would wait for ever.
    """
    keys = {one.key for one in items}
    wanted = {(one.key, one.text_sha256) for one in items}
    by_place = {(one.question_id, one.repeat, one.text_sha256): one.key for one in items}
    found = {}
    for row in records:
        key, words = row["generation_key"], row["candidate_sha256"]
        if key not in keys:
            key = by_place.get((row["question_id"], row["repeat"], words), key)
        if (key, words) in wanted:
            found[key, words] = row
    return found
