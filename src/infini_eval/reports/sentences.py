"""What a summary's explaining parts say in words: wrong answers, trends, effective context length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infini_eval.reports.statistics.error_kinds import KINDS

NEEDLE_PLACES = {
    "needle in the question's segment": "within_segment", "needle in an earlier segment": "cross_segment",
    "needle on a segment border": "straddling",
}  # fmt: skip
ANSWER_PLACES = {
    "answer inside one segment": "answer_inside_segment", "answer runs over a border": "answer_crosses_border",
}  # fmt: skip
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
    for name, rule in (("fixed", "fixed bar"), ("relative", "0.85 x the shortest length's accuracy")):
        part = found[name]
        if part is None:
            continue
        lines.append(f"{effective_sentence(part)} ({rule}, {part['threshold']:.1f}%)")
        for item in part["undecided"]:
            needed = item["samples_needed"]
            how = (
                f"about {needed} samples would decide it"
                if needed
                else "too close to the bar for any number of samples"
            )
            lines.append(f"  {item['context_length']} tokens: undecided; {how}")
    return lines


def effective_sentence(part: Mapping[str, Any]) -> str:
    """ "at least 4096, below 16384 tokens at 95 %"."""
    parts = [f"at least {part['at_least']}"] if part["at_least"] else []
    parts += [f"below {part['below']}"] if part["below"] else []
    if not parts:
        return "undecided at 95 %"
    return f"{', '.join(parts)} tokens at 95 %"
