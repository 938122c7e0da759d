"""What the top of a run's page says in words: its title, cards, warnings and explanations, for template and browser alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infini_eval.reports import judged_text
from infini_eval.reports.model import EffectiveBar, Errors, LengthSummary, QuestionSummary, Summary
from infini_eval.reports.model_facts import PASSKEY, facts_of, has_segments, memory_words, one_line, task_of
from infini_eval.reports.plots import short_tokens
from infini_eval.reports.statistics.failures import KINDS
from infini_eval.reports.statistics.verdicts import UNDECIDED
from infini_eval.reports.text import (
    FAILED,
    answered_only,
    disagreement_lines,
    effective_lines,
    effective_sentence,
    older_rule,
    trend_lines,
)

LONGEST = 2000  # characters of a setting
_NAMED = 3  # lengths in a title
_TONE = {"EXCELLENT": "good", "VERY_GOOD": "good", "GOOD": "good", "FAIR": "fair", "POOR": "poor", UNDECIDED: ""}


@dataclass(frozen=True)
class Card:
    """A number or a verdict in large, and what belongs to it in small; tone: good, fair, poor or none."""

    tone: str
    big: str
    small: str


@dataclass(frozen=True)
class Lines:
    """A heading and its sentences."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """The words of a run; `settings` are the manifest's, flat, those without a value left out."""

    title: str
    facts: tuple[str, ...]
    cards: tuple[Card, ...]
    warnings: tuple[str, ...]
    small_print: str
    why: tuple[Lines, ...]
    settings: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, summary: Summary) -> Story:
        memory = facts_of(summary).memory
        words = [task_words(summary), *([f"memory {one_line(str(memory), 40)}"] if memory else [])]
        words += _lengths(summary)
        return cls(
            title=f"{summary.model}: {', '.join(words)}",
            facts=tuple(_facts(summary)),
            cards=tuple(_cards(summary)),
            warnings=tuple(line for line in (_incomplete(summary), _failed(summary)) if line),
            small_print=f"Small print: {_small_print(summary)}" if task_of(summary) == PASSKEY else "",
            why=tuple(part for part in _why(summary) if part.lines),
            settings=tuple(flat_settings(vars(summary.run))),
        )

    @classmethod
    def of_questions(cls, summary: QuestionSummary) -> Story:
        cards = [
            Card("", _accuracy(judge), f"{judged_text.one_line_of(judge)}; {judge['ci_method']}")
            for judge in summary.judges
        ]
        revision = summary.data_revision or "unknown"
        facts = (
            f"{summary.questions} questions",
            f"{summary.answers} answers",
            f"prompt {summary.prompt or 'unknown'}",
        )
        agreed = tuple(judged_text.agreement_line(found) for found in summary.agreement)
        return cls(
            title=f"{summary.model}: AA-LCR",
            facts=(*facts, f"data {revision}"),
            cards=tuple(cards) or (Card("", "not judged yet", judged_text.not_judged(summary)),),
            warnings=tuple(line.removeprefix("! ") for line in judged_text.warnings(summary)),
            small_print="",
            why=(Lines("Agreement of judges", agreed),) if agreed else (),
            settings=tuple(flat_settings({"settings": summary.settings})),
        )


def _lengths(summary: Summary) -> list[str]:
    """Each length, of many the first and the last."""
    names = [short_tokens(block.context_length) for block in summary.by_context_length]
    return names if len(names) <= _NAMED else [f"{names[0]} to {names[-1]}"]


def task_words(summary: Summary) -> str:
    """The task as a title has it."""
    task = task_of(summary)
    return f"{task} retrieval" if task == PASSKEY else task


def flat_settings(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names with dots and values as text; what has no value, and the gates (they are drawn), left out."""
    flat = [
        pair for name in ("model", "identity", "environment", "settings") for pair in _flat(parts.get(name), f"{name}.")
    ]
    return [(name, str(value)[:LONGEST]) for name, value in flat if value is not None and name != "model.gates.values"]


def _flat(data: Any, prefix: str) -> list[tuple[str, Any]]:
    if not isinstance(data, Mapping):
        return []
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def failed_words(block: LengthSummary) -> str:
    """ "105 failed: 50.0 % with them wrong", of a block; nothing where none failed."""
    if not block.failed:
        return ""
    return f"{block.failed} failed: {block.summary_stats.average_failed_as_wrong:.1f} % with them wrong"


def _facts(summary: Summary) -> list[str]:
    model = summary.run.model or {}
    facts = [f"{summary.total_samples:,} samples"]
    facts += [f"{summary.failed:,} more failed"] if summary.failed else []
    facts += [f"segments of {summary.segment_length} tokens"] if summary.segment_length else []
    facts += [str(model["dtype"])] if model.get("dtype") else []
    facts += [f"device memory {used}"] if (used := memory_words(summary.run)) else []
    facts += [f"judged by {summary.scorer}"] if summary.scorer else []
    return facts


def _cards(summary: Summary) -> list[Card]:
    said, several = summary.headline, len(summary.by_context_length) > 1
    at = f"at {short_tokens(summary.worst.headline)}, the worst length; " if summary.worst else ""
    why = f"{said.why}; " if said.why else ""
    cards = [_average(summary), Card(_TONE[said.category], said.words, f"{at}{why}{summary.verdict.rule}")]
    effective = summary.effective_context_length
    if several and effective and effective.fixed:
        words = f"{effective.name}: {effective_sentence(effective.fixed)}; bar of "
        words += f"{effective.fixed.threshold:.1f} % ({effective.source})"
        cards.append(Card("", _effective(effective.fixed), words))
    return cards


def _average(summary: Summary) -> Card:
    """The average in large, and its interval, bound and method in small."""
    stats = summary.summary_stats
    if stats.average_accuracy is None:
        return Card("", "no sample was answered", failed_words(summary))
    ends = f"95 % interval {stats.average_ci_low:.1f} to {stats.average_ci_high:.1f} %"
    if summary.failed:
        ends += f"; {failed_words(summary)}, {stats.bound_low:.1f} to {stats.bound_high:.1f} % whatever they are"
    return Card("", f"{stats.average_accuracy:.1f} %", f"average over depths, {ends}; {stats.ci_method}")


def _small_print(summary: Summary) -> str:
    """What the older rule says, which is not the verdict of this page."""
    said = older_rule(summary)
    falls = "; its bar falls as the context grows, the one of the verdict above does not"
    return f"{said}{falls if has_segments(summary) else ''}."


def _effective(bar: EffectiveBar) -> str:
    """What is sure in large: a length that only the averages name is not."""
    if bar.at_least:
        return f"at least {short_tokens(bar.at_least)}"
    return f"below {short_tokens(bar.below)}" if bar.below else UNDECIDED


def _incomplete(summary: Summary) -> str | None:
    if summary.complete is not False:
        return None
    done = summary.total_samples + summary.failed_samples
    return f"This run is incomplete: {done} of {summary.samples_planned} planned samples."


def _failed(summary: Summary) -> str | None:
    if not summary.failed_samples:
        return None
    reasons = "; ".join(f"{reason.count} x {reason.error}" for reason in summary.failures)
    return f"{summary.failed_samples} samples failed ({reasons}): {FAILED}."


def _why(summary: Summary) -> list[Lines]:
    effective = summary.effective_context_length
    notes = [*summary.notes]
    for block in summary.by_context_length:
        notes += [line for line in (*block.warnings, *block.advice) if line not in notes]
    notes += disagreement_lines(summary)
    trends = trend_lines(summary.trends, ("depth", "length", "compressions"))
    title = effective.name.capitalize() if effective else ""
    return [
        Lines(_wrong_title(summary.errors), tuple(_kinds(summary.errors))),
        Lines(f"Trends{answered_only(summary)}", tuple(trends)),
        Lines(title, tuple(effective_lines(effective) if effective else ())),
        Lines("Notes and advice", tuple(notes)),
    ]


def _wrong_title(errors: Errors) -> str:
    part = "" if errors.looked_at == errors.wrong else f", an even selection of {errors.looked_at} looked at"
    return f"Wrong answers ({errors.wrong}{part})"


def _kinds(errors: Errors) -> list[str]:
    found = sorted(errors.kinds.items(), key=lambda item: -item[1])
    return [f"{count} ({100 * count / errors.looked_at:.0f} %): {KINDS[kind]}" for kind, count in found]


def _accuracy(judge: Mapping[str, Any]) -> str:
    return "no verdict yet" if judge["accuracy"] is None else f"{judge['accuracy']:.1f} %"
