"""What a summary's explaining parts say in words: wrong answers, trends, effective context length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infini_eval.reports.scoring import DEFAULT
from infini_eval.reports.statistics.error_kinds import KINDS
from infini_eval.reports.statistics.verdicts import UNDECIDED

NEEDLE_PLACES = {
    "needle in the question's segment": "within_segment", "needle in an earlier segment": "cross_segment",
    "needle on a segment border": "straddling",
}  # fmt: skip
ANSWER_PLACES = {
    "answer inside one segment": "answer_inside_segment", "answer runs over a border": "answer_crosses_border",
}  # fmt: skip
_RELATIVE = "0.85 x the shortest length's accuracy, {:.1f} %"
_AXES = {"depth": "depth", "length": "context length", "compressions": "compressions survived"}


def wrong_answers(errors: Mapping[str, Any]) -> list[str]:
    """One line a kind of wrong answer, the most frequent first."""
    lines = []
    for kind, count in sorted(errors["kinds"].items(), key=lambda item: -item[1]):
        more = ""
        if kind == "wrong_digits":
            places = ", ".join(f"{place}: {n}" for place, n in errors["first_wrong_digit"].items())
            more = f" (first wrong digit at {places})"
        if kind == "cut_short" and errors["cut_short_by_max_new_tokens"]:
            more = f" ({errors['cut_short_by_max_new_tokens']} ended by max_new_tokens)"
        lines.append(f"{count:>6}  {KINDS[kind]}{more}")
    if errors["looked_at"] < errors["wrong"]:
        lines.append(f"        (an even selection of {errors['looked_at']} of {errors['wrong']} was looked at)")
    return lines


def trends(found: Mapping[str, Any], axes: tuple[str, ...]) -> list[str]:
    """A line for each axis along which accuracy clearly changes, or clearly could be said not to."""
    lines = []
    for axis in axes:
        trend = found[axis]
        if trend["direction"] is None:
            if trend["reason"] and trend["reason"].startswith("right and wrong"):
                lines.append(f"{_AXES[axis]}: {trend['reason']}")
            continue
        odds = f"odds x {trend['odds_ratio']:.3g} [{trend['ci_low']:.3g}, {trend['ci_high']:.3g}] per {trend['per']}"
        word = trend["direction"] if trend["direction"] == "no clear trend" else f"accuracy {trend['direction']}"
        where = "; on this haystack only" if trend["haystacks"] == 1 else ""
        lines.append(f"{_AXES[axis]}: {word} ({odds}{where})")
    return lines


def effective(found: Mapping[str, Any]) -> list[str]:
    """The effective context length under both bars, with what is not yet decided and what would decide it."""
    lines = []
    for name, rule in (("fixed", f"bar of {{:.1f}} %; {found['source']}"), ("relative", _RELATIVE)):
        part = found[name]
        if part is None:
            continue
        lines.append(f"{effective_sentence(part)} ({rule.format(part['threshold'])})")
        lines += [f"  {item['context_length']} tokens: undecided; {_decided_by(item)}" for item in part["undecided"]]
    if found["relative"] is None:
        lines.append(f"none relative to the shortest length: {found['no_relative_because']}")
    return lines


def _decided_by(item: Mapping[str, Any]) -> str:
    if item["failed"]:
        return f"{_samples(item['failed'])} to be answered first"
    if item["samples_needed"]:
        return f"about {item['samples_needed']} samples would decide it"
    return "too close to the bar for any number of samples"


def _samples(failed: int) -> str:
    return "1 failed sample has" if failed == 1 else f"{failed} failed samples have"


def counts(block: Mapping[str, Any], percent: str = ".2f") -> str:
    """ "n=105, 105 failed: 50.00% with them wrong", of a block or of one depth of it."""
    if "summary_stats" in block:
        n, bound = block["total_samples"], block["summary_stats"]["average_failed_as_wrong"]
    else:
        n, bound = block["num_samples"], block["accuracy_failed_as_wrong"]
    failed = f", {block['failed']} failed: {bound:{percent}}% with them wrong" if block["failed"] else ""
    return f"n={n}{failed}"


def answered_only(block: Mapping[str, Any]) -> str:
    """What to add to the title of numbers that failed samples could change."""
    return f" (answered samples only; {block['failed']} failed)" if block["failed"] else ""


def older_rule(block: Mapping[str, Any]) -> str:
    """The older rule's verdict in small print: it judges by another bar, and may disagree with the headline."""
    judged = block["performance"]
    message = "" if judged["category"] == UNDECIDED else f", {judged['message']}"
    return f"older rule, {judged['rule']}: {judged['category']}{message}"


def consistency(block: Mapping[str, Any]) -> str | None:
    """ "CONSISTENT", or None where that was not measured or nothing else is known either."""
    spread = block["performance"]["consistency"]
    return None if spread == "UNKNOWN" or block["headline"]["category"] == UNDECIDED else spread


def effective_sentence(part: Mapping[str, Any]) -> str:
    """ "at least 4096, below 16384 tokens at 95 %"."""
    parts = [f"at least {part['at_least']}"] if part["at_least"] else []
    parts += [f"below {part['below']}"] if part["below"] else []
    if not parts:
        return "undecided at 95 %"
    return f"{', '.join(parts)} tokens at 95 %"


def disagreements(summary: Mapping[str, Any]) -> list[str]:
    """Where another stored scorer judges answers otherwise than the one that counts: how many, and which way."""
    scores, main = summary["other_scores"], summary["scorer"] or DEFAULT
    lines = []
    for name, found in summary["scorer_disagreements"].items():
        differ = found["only_main"] + found["only_other"]
        if differ:
            lines.append(
                f"{main} and {name} disagree on {differ} of {found['compared']} answers: {found['only_other']} pass "
                f"{name} only, {found['only_main']} pass {main} only ({name} gives {scores[name]:.2f}% over all samples)"
            )
    return lines
