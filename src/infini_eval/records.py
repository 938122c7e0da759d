"""The records that travel through an evaluation: sample, response, score, sample record, manifest. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1
PERPLEXITY_OF = "perplexity_of"  # column of a sample: a text whose perplexity after the prompt is to be measured
CHOICES = "likeliest_of"  # column of a sample: texts of which the likeliest after the prompt is its answer


@dataclass(frozen=True)
class Sample:
    """One question with its context.

    `answer` is text even where the data set stores a number. `columns` holds every column of the data set except the
    prompt, unchanged, for the record. `context_length` is the data set's label in tokens (None where it has none);
    the real length is measured with the model's tokenizer and stands in the record as `prompt_tokens`. `depth_percent`
    is NaN where a task has no depths (null in the record). `turns` are the roles and texts of a chat of several messages,
    for models that chat; `prompt` is then its transcript, for all others.
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
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Identity by content: the same row has the same key in every run and at every topology (16 hex digits)."""
        parts = [self.id, self.prompt, self.answer, self.depth_percent, self.context_length, self.occurrence]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as a chat: its turns, or one message of the user's."""
        turns = self.turns or (("user", self.prompt),)
        return [{"role": role, "content": text} for role, text in turns]

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
    """Where the needle and the question stand, counted in tokens and segments (CONTRIBUTING.md has the vocabulary).

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

    @property
    def failed(self) -> bool:
        return self.response.finish_reason == "error"

    @property
    def score(self) -> Score:
        """The score that counts; an empty one for a failed sample."""
        return Score(None) if self.failed else self.scores[self.scorer]

    def to_json(self) -> dict[str, Any]:
        """Flat columns: the data set's own, the backend's, then those of COLUMNS and each scorer's (ours win)."""
        scores = {name: None if self.failed else score.value for name, score in self.scores.items()}
        ours = _filled(_ANSWER_COLUMNS, self) | scores | _filled(_PLACE_COLUMNS, self)
        return {**self.sample.columns, **self.response.details, **ours}


@dataclass(frozen=True)
class Column:
    """One column of the records, in `samples/*.jsonl`, samples.parquet and the tables that reports read.

    kind: its type; "integer" and "number" are both float64 for reports. about: what it holds, with its unit. filled_by: who
    brings it: a record of ours, by `fill`; the backend, in Response.details; the data set, as one of its own columns.
    reported: whether reports read it.
    """

    name: str
    kind: Literal["text", "integer", "number", "flag"]
    about: str
    fill: Callable[[SampleRecord], Any] | None = None
    filled_by: Literal["record", "backend", "data"] = "record"
    reported: bool = True


def _generation_tokens(record: SampleRecord) -> Any:
    return len(record.response.token_ids) or record.response.details.get("completion_tokens", 0)


_ANSWER_COLUMNS = (
    Column("sample_key", "text", "identity of the sample by its content", lambda r: r.sample.key),
    Column("id", "text", "the data set's name of the sample", lambda r: r.sample.id),
    Column("answer", "text", "the expected answer", lambda r: r.sample.answer),
    Column("context_length", "integer", "the data set's label, tokens", lambda r: r.sample.context_length),
    Column("depth_percent", "number", "where the needle stands, 0 to 100", lambda r: r.sample.depth_percent),
    Column("num_shots", "integer", "worked examples in the prompt", lambda r: r.sample.num_shots, reported=False),
    Column("num_digits", "integer", "digits of the key", lambda r: r.sample.num_digits),
    Column("generation_text", "text", "what the model wrote", lambda r: r.response.text),
    Column("generation_tokens", "integer", "tokens that the model wrote", _generation_tokens),
    Column("finish_reason", "text", "stop, length, settled or error", lambda r: r.response.finish_reason),
    Column("status", "text", "ok or failed", lambda r: "failed" if r.failed else "ok"),
    Column("error", "text", "why it failed", lambda r: r.response.error),
    Column("correct", "number", "the score that counts, 0 to 1", lambda r: r.score.value),
    Column("extracted", "text", "what the scorer read as the answer", lambda r: r.score.extracted),
)
_PLACE_COLUMNS = (
    Column("prompt_tokens", "integer", "tokens that the model read", lambda r: r.response.prompt_tokens),
    Column("needle_token_start", "integer", "the needle's first token", lambda r: r.position.token_start),
    Column("needle_token_end", "integer", "the token after the needle", lambda r: r.position.token_end),
    Column("needle_segment", "integer", "the segment where the needle ends", lambda r: r.position.needle_segment),
    Column("question_segment", "integer", "the segment of the question", lambda r: r.position.question_segment),
    Column("compressions", "integer", "segment borders from needle to question", lambda r: r.position.compressions),
    Column("needle_straddles_border", "flag", "the needle lies in two segments", lambda r: r.position.straddles_border),
    Column("phase", "integer", "offset of the answer in its segment, tokens", lambda r: r.position.phase),
    Column(
        "answer_crosses_border",
        "flag",
        "the answer ends in another segment",
        lambda r: r.position.answer_crosses_border,
    ),
    Column("prompt_sha256", "text", "stands for the prompt, which is not kept", lambda r: r.sample.prompt_sha256),
    Column("excerpt", "text", "the prompt around the needle", lambda r: r.excerpt),
    Column("number_from", "text", "where a wrong number comes from", lambda r: r.number_from),
    Column("seconds", "number", "the sample's share of its batch's time", lambda r: round(r.response.seconds, 6)),
    Column("replica", "integer", "which replica answered", lambda r: r.replica, reported=False),
)
# The one schema: `to_json` writes it, the merge has its types, reports read what is `reported`. Other columns of a data set
# or a backend are recorded too, with the type that their values have.
COLUMNS = (
    *_ANSWER_COLUMNS,
    *_PLACE_COLUMNS,
    Column(
        "perplexity", "number", "of the text that the task names, given the prompt", filled_by="backend", reported=False
    ),
    Column("perplexity_tokens", "integer", "tokens of that text", filled_by="backend", reported=False),
    Column("choice_logprobs", "text", "log-probability of each choice, as JSON", filled_by="backend", reported=False),
    Column("reused_tokens", "integer", "prompt tokens computed for another sample", filled_by="backend"),
    Column("real_depth", "number", "the needle's measured depth, 0 to 100", filled_by="data"),
    Column("haystack", "text", "the haystack's name", filled_by="data"),
    Column("haystack_id", "text", "the haystack's number or name", filled_by="data"),
    Column("haystack_hash", "text", "stands for the haystack's text", filled_by="data"),
    Column("haystack_pool", "text", "the text that the haystack was cut from", filled_by="data"),
    Column("haystack_start", "integer", "its first character in the pool", filled_by="data"),
    Column("haystack_end", "integer", "the character after it in the pool", filled_by="data"),
)


def _filled(columns: Sequence[Column], record: SampleRecord) -> dict[str, Any]:
    return {column.name: column.fill(record) for column in columns if column.fill is not None}


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
