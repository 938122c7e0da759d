"""The records that travel through an evaluation: sample, response, score, sample record, manifest. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """One question with its context.

    `answer` is text even where the data set stores a number. `columns` holds every column of the data set except the
    prompt, unchanged, for the record. `context_length` is the data set's label in tokens (None where it has none);
    the real length is measured with the model's tokenizer and stands in the record as `prompt_tokens`. `depth_percent`
    is NaN where a task has no depths (null in the record).
    """

    id: str
    prompt: str
    answer: str
    depth_percent: float
    context_length: int | None = None
    num_shots: int | None = None
    num_digits: int | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    occurrence: int = 0  # tells apart rows that are alike in everything

    @property
    def key(self) -> str:
        """Identity by content: the same row has the same key in every run and at every topology (16 hex digits)."""
        parts = [self.id, self.prompt, self.answer, self.depth_percent, self.context_length, self.occurrence]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def prompt_sha256(self) -> str:
        return hashlib.sha256(self.prompt.encode()).hexdigest()


@dataclass(frozen=True)
class Response:
    """What a backend answered to one sample.

    `finish_reason`: "stop" (the model ended its answer), "length" (max_new_tokens reached), "settled" (no further token
    could change a score, so none was drawn) or "error" (see `error`).
    `seconds` is the sample's share of its batch's time. `details` are further columns of the record: what a server
    said about its model and its usage; "completion_tokens" stands for the number of `token_ids` where these are unknown.
    """

    text: str
    token_ids: Sequence[int]
    prompt_tokens: int
    finish_reason: Literal["stop", "length", "settled", "error"]
    seconds: float
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A scorer's judgement: `value` in 0..1 and what it read as the answer (None where it found none).

    `value` is None where nothing can be said: the answer waits for a judge, or a judge's verdict cannot be read.
    """

    value: float | None
    extracted: str | None = None


@dataclass(frozen=True)
class NeedlePosition:
    """Where the needle and the question stand, counted in tokens and segments (DESIGN's vocabulary).

    `token_start`/`token_end` is the needle's half-open token span. Segments are None for models without segments.
    `phase` is the offset, in its segment, of the position that predicts the answer's first token; the answer
    `crosses_border` when later tokens of it are predicted from a new segment.
    """

    token_start: int | None
    token_end: int | None
    needle_segment: int | None = None
    question_segment: int | None = None
    compressions: int | None = None
    straddles_border: bool | None = None
    phase: int | None = None
    answer_crosses_border: bool | None = None


@dataclass(frozen=True)
class SampleRecord:
    """One finished sample, as one line of `samples/*.jsonl`. It never holds the prompt.

    `number_from`: where a wrong number comes from, "shot", "prompt" or "nowhere"; None where that is not the question.
    """

    sample: Sample
    response: Response
    scores: Mapping[str, Score]
    scorer: str
    position: NeedlePosition
    excerpt: str
    replica: int = 0
    number_from: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Flat columns: the data set's own first, then ours (ours win where a name is the same)."""
        failed = self.response.finish_reason == "error"
        ours: dict[str, Any] = {
            "sample_key": self.sample.key,
            "id": self.sample.id,
            "answer": self.sample.answer,
            "context_length": self.sample.context_length,
            "depth_percent": self.sample.depth_percent,
            "num_shots": self.sample.num_shots,
            "num_digits": self.sample.num_digits,
            "generation_text": self.response.text,
            "generation_tokens": len(self.response.token_ids) or self.response.details.get("completion_tokens", 0),
            "finish_reason": self.response.finish_reason,
            "status": "failed" if failed else "ok",
            "error": self.response.error,
            "correct": None if failed else self.scores[self.scorer].value,
            "extracted": None if failed else self.scores[self.scorer].extracted,
        }
        for name, score in self.scores.items():
            ours[name] = None if failed else score.value
        ours |= {
            "prompt_tokens": self.response.prompt_tokens,
            "needle_token_start": self.position.token_start,
            "needle_token_end": self.position.token_end,
            "needle_segment": self.position.needle_segment,
            "question_segment": self.position.question_segment,
            "compressions": self.position.compressions,
            "needle_straddles_border": self.position.straddles_border,
            "phase": self.position.phase,
            "answer_crosses_border": self.position.answer_crosses_border,
            "prompt_sha256": self.sample.prompt_sha256,
            "excerpt": self.excerpt,
            "number_from": self.number_from,
            "seconds": round(self.response.seconds, 6),
            "replica": self.replica,
        }
        return {**self.sample.columns, **self.response.details, **ours}


@dataclass(frozen=True)
class RunManifest:
    """What a run is and where it ran; manifest.json, written before the first sample.

    `identity` decides whether a folder may be resumed: checkpoint and data fingerprints, and every setting that can
    change an answer. `environment` (topology, batch, device, versions, times) may differ from one attempt to the next.
    `model` describes the model for reports: name, segment_length, parameters, kind, dtype, memory.
    """

    identity: Mapping[str, Any]
    model: Mapping[str, Any]
    environment: Mapping[str, Any]
    samples_planned: int
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "identity": dict(self.identity),
            "model": dict(self.model),
            "environment": dict(self.environment),
            "samples_planned": self.samples_planned,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunManifest:
        return cls(
            identity=data["identity"],
            model=data["model"],
            environment=data["environment"],
            samples_planned=data["samples_planned"],
            schema_version=data["schema_version"],
        )
