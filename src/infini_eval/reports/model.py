"""The typed summary of a run and the run as reports see it; JSON is made at the edge only (`to_json`, `to_text`).

Accuracies and intervals are percent, 0 to 100, rounded as summary.json shows them; every interval is a 95 % interval.
The names of the fields are the keys of summary.json (docs/summary.schema.json).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from infini_eval.api import registry
from infini_eval.reports.statistics.samples import Scored
from infini_eval.reports.statistics.verdicts import Headline, LongContext, Performance, Verdict
from infini_eval.results.reader import RunRecords

SCHEMA_VERSION = 1
Number = float | int


def number(value: float | None, digits: int = 6) -> Number | None:
    """Whole numbers without a point, others rounded; None stays None, NaN becomes None."""
    return None if value is None or value != value else rounded(value, digits)


def rounded(value: float, digits: int = 6) -> Number:
    """The same for a value that is known."""
    value = round(float(value), digits)
    return int(value) if value.is_integer() else value


def to_json(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists, whatever they hold; a class with a `to_json` of its own is asked."""
    if is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_json", None)
        return own() if own else fields_to_json(value)
    if isinstance(value, Mapping):
        return {key: to_json(part) for key, part in value.items()}
    return [to_json(part) for part in value] if isinstance(value, list | tuple) else value


def fields_to_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as a dictionary, in their order."""
    return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}


def to_text(value: Any) -> str:
    """JSON that every parser reads: no NaN, ASCII only."""
    return json.dumps(to_json(value), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Share:
    """Right answers among some samples; accuracy and interval are None without samples."""

    accuracy: Number | None
    num_samples: int
    correct: Number
    ci_low: Number | None
    ci_high: Number | None


@dataclass(frozen=True)
class Cell(Share):
    """One depth of one context length: its answered samples, and how many more failed."""

    depth_percent: Number
    failed: int
    accuracy_failed_as_wrong: Number

    def to_json(self) -> dict[str, Any]:
        """The depth stands first."""
        return {"depth_percent": self.depth_percent, **fields_to_json(self)}


@dataclass(frozen=True)
class CompressionCell(Share):
    """The samples whose needle survived `first` to `last` compressions."""

    first: int
    last: int

    def to_json(self) -> dict[str, Any]:
        """The keys are `from` and `to`, and stand first."""
        share = fields_to_json(self)
        return {"from": share.pop("first"), "to": share.pop("last"), **share}


@dataclass(frozen=True)
class PromptTokens:
    """Real prompt lengths, by the model's tokenizer."""

    min: Number
    median: Number
    max: Number


@dataclass(frozen=True)
class SummaryStats:
    """The average over depths; `bound_low` and `bound_high` hold whatever failed samples would have been answered.

    min, max, standard deviation and average are of the depths with answers, None where no sample was answered.
    """

    average_accuracy: Number | None
    std_dev: Number | None
    min_accuracy: Number | None
    max_accuracy: Number | None
    min_depth: Number | None
    max_depth: Number | None
    average_ci_low: Number | None
    average_ci_high: Number | None
    ci_method: str
    haystacks: int | None
    average_failed_as_wrong: Number
    average_failed_as_right: Number
    bound_low: Number
    bound_high: Number


@dataclass(frozen=True)
class SegmentAnalysis:
    """Accuracy by the needle's real place among the segments."""

    within_segment: Share
    cross_segment: Share
    straddling: Share
    unknown_count: int
    by_compressions: tuple[CompressionCell, ...]

    def to_json(self) -> dict[str, Any]:
        """Flat: average, count and interval of each place."""
        flat: dict[str, Any] = {}
        for name in ("within_segment", "cross_segment", "straddling"):
            share = getattr(self, name)
            flat |= {f"{name}_avg": share.accuracy, f"{name}_count": share.num_samples}
            flat[f"{name}_ci"] = [share.ci_low, share.ci_high]
        return {**flat, "unknown_count": self.unknown_count, "by_compressions": to_json(self.by_compressions)}


@dataclass(frozen=True)
class PhaseAnalysis:
    """Accuracy by whether the answer crosses a segment border, and how many alignments to the segments were tried."""

    answer_inside_segment: Share
    answer_crosses_border: Share
    distinct_phases: int
    only_phase: int | None
    cells: int
    cells_of_one_phase: int


@dataclass(frozen=True)
class DepthErrors:
    """Kinds of wrong answers at one depth."""

    depth_percent: Number
    kinds: Mapping[str, int]


@dataclass(frozen=True)
class Errors:
    """Kinds of wrong answers (keys of `error_kinds.KINDS`); of very many an even selection is looked at."""

    wrong: int
    looked_at: int
    kinds: Mapping[str, int]
    first_wrong_digit: Mapping[str, int]
    cut_short_by_max_new_tokens: int
    by_depth: tuple[DepthErrors, ...]


@dataclass(frozen=True)
class CurvePoint:
    """A point of a fitted curve; `x` in the axis's own unit."""

    x: Number
    accuracy: Number
    ci_low: Number
    ci_high: Number


@dataclass(frozen=True)
class TrendSummary:
    """What one unit of an axis (`per`) does to the odds of a right answer; numbers are None where there is no fit."""

    per: str
    direction: str | None
    odds_ratio: Number | None
    ci_low: Number | None
    ci_high: Number | None
    reason: str | None
    haystacks: int | None
    curve: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Trends:
    depth: TrendSummary
    length: TrendSummary
    compressions: TrendSummary


@dataclass(frozen=True)
class LengthSummary:
    """The samples of one context length (None: without a label), or of all of them together."""

    model: str
    context_length: int | None
    total_samples: int
    failed: int
    expected_segments: Number | None
    prompt_tokens: PromptTokens | None
    results_by_depth: tuple[Cell, ...]
    depths_rounded_to_5_percent: bool
    summary_stats: SummaryStats
    segment_analysis: SegmentAnalysis
    phase_analysis: PhaseAnalysis | None
    headline: Headline
    performance: Performance
    verdict: Verdict
    errors: Errors
    trends: Trends
    warnings: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class OpenLength:
    """A length that is neither above nor below a bar for certain, and what would decide it."""

    context_length: int
    samples_needed: int | None
    failed: int


@dataclass(frozen=True)
class EffectiveBar:
    """The effective context length under one bar: surely at least, surely below, and by the averages alone."""

    threshold: Number
    estimate: int | None
    at_least: int | None
    below: int | None
    undecided: tuple[OpenLength, ...]


@dataclass(frozen=True)
class EffectiveContext:
    """Effective context length by the fixed bar, and by one relative to the shortest length."""

    name: str
    source: str
    fixed: EffectiveBar | None
    relative: EffectiveBar | None
    no_relative_because: str | None


@dataclass(frozen=True)
class Failure:
    """A reason for which samples failed."""

    error: str
    count: int


@dataclass(frozen=True)
class Disagreement:
    """Answers that the scorer which counts and another one judge differently."""

    compared: int
    only_main: int
    only_other: int


@dataclass(frozen=True)
class TokenSpeed:
    """Sums over samples; seconds of replicas add up. Only computed tokens make a speed."""

    samples: int
    prompt_tokens: int
    reused_tokens: int
    seconds: Number
    computed_tokens_per_second: Number | None


@dataclass(frozen=True)
class Timing:
    """Samples that were read whole (cold) apart from those that reused what another had computed (warm)."""

    cold: TokenSpeed | None
    warm: TokenSpeed | None


@dataclass(frozen=True)
class Provenance:
    """Where the records come from, and what the manifest says: its parts as they were written, None where missing."""

    folder: str
    files: tuple[str, ...]
    identity: Any
    model: Any
    environment: Any


@dataclass(frozen=True)
class WorstLengths:
    """Of several lengths, the one that each judgement of the whole run is taken from."""

    performance: int | None
    verdict: int | None
    headline: int | None


@dataclass(frozen=True)
class Summary(LengthSummary):
    """A whole run: its one length, or all together with the judgements of the worst; and each length by itself.

    `worst` is None for a single length, and `long_context` for anything but passkeys beyond 32k tokens.
    """

    worst: WorstLengths | None
    long_context: LongContext | None
    by_context_length: tuple[LengthSummary, ...]
    effective_context_length: EffectiveContext | None
    failed_samples: int
    failures: tuple[Failure, ...]
    samples_planned: int | None
    complete: bool | None
    segment_length: int | None
    scorer: str | None
    other_scores: Mapping[str, Number | None]
    scorer_disagreements: Mapping[str, Disagreement]
    timing: Timing | None
    notes: tuple[str, ...]
    run: Provenance

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        made = {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}
        worst = made.pop("worst")
        if worst is None:
            del made["long_context"]
        for judgement, length in (worst or {}).items():
            made[judgement]["context_length"] = length
        return made


@dataclass(frozen=True)
class QuestionSummary:
    """Everything the report of a judged run says; accuracies and intervals in percent.

    The fields are the keys of summary.json (docs/summary.schema.json); judges, agreements and answers not called correct
    are as they stand there.
    """

    schema_version: int
    task: str
    model: str
    prompt: str | None
    deviation: bool
    deviations: Sequence[str]
    data_revision: str | None
    left_out: Sequence[str]
    questions: int
    repeats: int
    answers: int
    duplicates: int
    planned: int | None
    complete: bool | None
    failed_as_wrong: bool
    failed: int
    failures: Sequence[str]
    empty: int
    cut_off: int
    identical_repeats: int
    judges: Sequence[Mapping[str, Any]]
    agreement: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    wrong: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        return fields_to_json(self)


@dataclass(frozen=True)
class AnalysedRun(ABC):
    """A run that was read and judged: its summary, the report as text, and one line a context length or judge."""

    folder: Path
    summary: Summary | QuestionSummary
    text: str
    line: str

    @abstractmethod
    def write(self, folder: Path | None = None) -> list[Path]:
        """Write summary.json and report.txt, each whole or not at all; into the run's own folder by default."""

    @abstractmethod
    def write_page(self, folder: Path | None = None) -> list[Path]:
        """Write report.html and what belongs to it."""


@dataclass(frozen=True)
class DepthRun(AnalysedRun):
    """A run whose answers a scorer has read, with its records and the scored samples."""

    summary: Summary
    records: RunRecords
    scored: Scored

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write the reports of every analysis: summary.json and report.txt."""
        folder = self.folder if folder is None else folder
        return [path for report in registry.reports("always") for path in report(self, folder)]

    def write_page(self, folder: Path | None = None) -> list[Path]:
        """Write report.html, and plots/*.png with a CSV beside each; takes some seconds."""
        folder = self.folder if folder is None else folder
        return [path for report in registry.reports("page") for path in report(self, folder)]


@dataclass(frozen=True)
class Difference:
    """B against A on the same samples: accuracies and difference in percent, `p` two-sided by the test that is named."""

    n: int
    a: Number
    b: Number
    difference: Number
    low: Number
    high: Number
    p: Number | None
    test: str
    only_a: int
    only_b: int
    clusters: int | None


@dataclass(frozen=True)
class OverallDifference(Difference):
    """All samples together; `p_holm` is adjusted for the number of comparisons."""

    p_holm: Number | None = None


@dataclass(frozen=True)
class LengthDifference(Difference):
    context_length: Number | None

    def to_json(self) -> dict[str, Any]:
        """The length stands first."""
        return {"context_length": self.context_length, **fields_to_json(self)}


@dataclass(frozen=True)
class DepthDifference(Difference):
    depth_percent: Number

    def to_json(self) -> dict[str, Any]:
        """The depth stands first."""
        return {"depth_percent": self.depth_percent, **fields_to_json(self)}


@dataclass(frozen=True)
class Comparison:
    """One run against the first (A), by the letters of the runs."""

    a: str
    b: str
    notes: tuple[str, ...]
    overall: OverallDifference
    by_context_length: tuple[LengthDifference, ...]
    by_depth: tuple[DepthDifference, ...]
    conclusion: str


@dataclass(frozen=True)
class ComparedRun:
    letter: str
    folder: str
    model: str
    settings: str


@dataclass(frozen=True)
class Comparisons:
    """Every further run against the first."""

    runs: tuple[ComparedRun, ...]
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of compare.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}


@dataclass(frozen=True)
class TrackRow:
    """One checkpoint at one context length; gates are None where the manifest does not record them."""

    series: str
    step: int
    context_length: int | None
    accuracy: Number
    ci_low: Number
    ci_high: Number
    num_samples: int
    failed: int
    accuracy_failed_as_wrong: Number
    gate_mean: Number | None
    gate_min: Number | None
    gate_max: Number | None
    gates_by_layer: tuple[Number, ...] | None
    folder: str


@dataclass(frozen=True)
class Track:
    """The checkpoints of a training run in order of series, length and step, and the runs that were left out."""

    rows: tuple[TrackRow, ...]
    skipped: tuple[str, ...]

    def by_series(self) -> list[tuple[str, int | None, list[TrackRow]]]:
        """Rows grouped by series and context length, in their order."""
        groups: dict[tuple[str, int | None], list[TrackRow]] = {}
        for row in self.rows:
            groups.setdefault((row.series, row.context_length), []).append(row)
        return [(series, length, rows) for (series, length), rows in groups.items()]

    def to_json(self) -> dict[str, Any]:
        """The content of track.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}
