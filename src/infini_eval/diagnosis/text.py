"""Inspections and diagnoses as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # reports show these words too, and start without torch
    from infini_eval.diagnosis.findings import Inspection

SHADES = " ░▒▓█"
MARKS = {"ok": "✓", "note": "·", "problem": "✗"}
MOST_HEADS = 12
WIDTH = 100


def inspection_text(found: Inspection) -> str:
    """Facts, the gates as a heat map of layers by heads, and the findings."""
    saved = found.saved
    lines = [
        f"checkpoint   {found.folder}",
        f"model        {found.kind}, {found.parameters:,} parameters",
        f"saved with   dp={saved['dp']} tp={saved['tp']} pp={saved['pp']}",
        f"weights      {found.stored_dtype} (config: {found.config_dtype})",
    ]
    if found.segment_length:
        lines.append(f"segments     {found.segment_length} tokens, gate {found.gate_activation}")
    if found.gates:
        lines += ["", "gates (0 local attention only, 1 memory only)", *gate_map(found.gates)]
    lines += ["", "findings", *(f"{MARKS[finding.level]} {finding.text}" for finding in found.findings)]
    return "\n".join(lines)


def gate_map(gates: Sequence[Sequence[float]], widest: int = 16) -> list[str]:
    """One row a layer: a shaded cell a head, and the numbers while they fit."""
    rows = []
    for layer, row in enumerate(gates):
        shades = "".join(SHADES[min(4, int(abs(value) * 5))] * 2 for value in row)
        numbers = (
            " ".join(f"{value:5.2f}" for value in row) if len(row) <= widest else f"{min(row):.2f} to {max(row):.2f}"
        )
        rows.append(f"layer {layer:>3} |{shades}| {numbers}")
    return rows


def diagnosis_text(report: Mapping[str, Any]) -> str:
    """The verdict, what stands beside it, and the measurements behind it (none where the weights hold NaN)."""
    if not report["samples"]:
        return "\n".join([f"checkpoint   {report['checkpoint']}", *_verdict(report), *_beside(report)])
    rounded = report["bfloat16_memory"]
    lines = [
        f"checkpoint   {report['checkpoint']}",
        f"samples      {report['samples']} with the needle in an earlier segment, {report['correct']} answered correctly"
        f" (chosen: {report.get('chosen', 'all')})",
        *_verdict(report),
        *_beside(report),
        "",
        "what memory adds for the right token (logits above other answers' tokens; 95 % t-interval over samples)",
        *_evidence(report),
        "",
        "by token of the answer, those before it given",
        f"  token  offset  first wrong    log p {'the memory holds':>26} {'the question reads':>26}   lost without memory",
        *(_token(row) for row in report["by_token"]),
        "",
        "by segments folded since the needle's, without the gates (bar: question's query; last number: the best query)",
        *_over_time(report["over_time"]),
        "",
        "heads by what the answer's log-probability loses without their reading",
        " layer head   gate  share of mix  probe logits  answer loses",
        *(_head(row) for row in report["heads"][:MOST_HEADS]),
        "",
        "answers given when only these heads read their memory, and when all but these do",
        *_carriers(report["carriers"]),
        "",
        "memory along the context, by layer (means over heads; smallest denominator of any read in that segment)",
        " layer  segment         |M|        |z|  smallest zq  share of mix",
        *(_health(row) for row in report["health"]),
        "",
        f"memory kept in bfloat16 instead of float32, relative error (bfloat16 weights in both; {rounded['tokens']:,} tokens)",
        *_rounded(rounded["relative_error"]),
    ]
    return "\n".join(lines)


def _verdict(report: Mapping[str, Any]) -> list[str]:
    """The class, and its reason in lines of a terminal's width; the control."""
    found, control = report["verdict"], report["control"]
    reason = [*textwrap.wrap(found["reason"], WIDTH), *([found["where"]] if found["where"] else [])]
    return [
        f"VERDICT      {found['label']}",
        *(f"             {line}" for line in reason),
        f"control      {control['right']} of {control['n']} right with the needle in the question's own segment",
    ]


def _beside(report: Mapping[str, Any]) -> list[str]:
    """The evidence, a mark before each sentence."""
    lines = []
    for sentence in report["evidence"]:
        first, *rest = textwrap.wrap(sentence, WIDTH)
        lines += [f"evidence     {MARKS['note']} {first}", *(f"               {line}" for line in rest)]
    return lines


EVIDENCE = {
    "written": "question's query, memory right after the needle",
    "held": "question's query, memory at the question",
    "reachable_after_writing": "the best query, memory right after the needle",
    "reachable": "the best query, memory at the question",
    "read": "question's query, there, through the gates",
    "against_given": "  the same, above the token given instead",
    "overturns": "  the best query, there, less the lead of that token",
    "lost_without_memory": "log-probability the answer loses without memory",
}
RATES = {
    "told_written": "any read, memory right after the needle",
    "told_held": "any read, memory at the question",
    "told_asked": "the question's own query, memory at the question",
    "told_dead": "  the same, in heads whose output projection is zero",
    "told_closed": "any read at the question, heads with a closed gate",
}


def _evidence(report: Mapping[str, Any]) -> list[str]:
    groups = {"right": report["evidence_right"], "wrong": report["evidence_wrong"]}
    shown = {name: found for name, found in groups.items() if found}
    named = {"right": "right samples, first token", "wrong": "wrong samples, first wrong token"}
    lines = [" " * 54 + "".join(f"{named[name]:<34}" for name in shown).rstrip()]
    for key, label in EVIDENCE.items():
        cells = [_interval(found[key]) if found[key]["n"] else "" for found in shown.values()]
        lines.append(f"  {label:<52}" + "".join(f"{cell:<34}" for cell in cells).rstrip())
    if not report["evidence_wrong"] or not report["evidence_wrong"]["told_held"]["n"]:
        return lines
    lines += ["", "first wrong tokens: how often the best head's read tells the answer from another (chance 0.50)"]
    rates = {label: report["evidence_wrong"][key] for key, label in RATES.items()}
    return lines + [f"  {label:<52}{_interval(rate)}" for label, rate in rates.items() if rate["n"]]


def _token(row: Mapping[str, Any]) -> str:
    offset = "" if row["offset_in_segment"] is None else row["offset_in_segment"]
    wrong = f"{row['first_wrong']}/{row['n']}"
    cells = [_interval(row[key], n=False) for key in ("held", "read", "lost")]
    log_p = f"{row['log_p']['mean']:8.2f}"
    return f"  {row['token']:>5}  {offset:>6}  {wrong:>11} {log_p} {cells[0]:>26} {cells[1]:>26}   {cells[2]}"


def _interval(value: Mapping[str, Any], n: bool = True) -> str:
    count = f" (n={value['n']})" if n else ""
    if value["mean"] is None:
        return "-"
    if value["low"] is None:
        return f"{value['mean']:+.2f}{count}"
    high = "?" if value["high"] is None else f"{value['high']:+.2f}"
    return f"{value['mean']:+.2f} [{value['low']:+.2f}, {high}]{count}"


def _over_time(rows: Sequence[Mapping[str, Any]], width: int = 40) -> list[str]:
    held = [row["held"]["mean"] or 0.0 for row in rows]
    top = max(0.0, *held)
    bars = ["█" * round(width * max(0.0, value) / top) if top > 0 else "" for value in held]
    return [
        f"  +{row['segments_after']:<5} {bar} {_interval(row['held'])}  {_interval(row['reachable'], n=False)}"
        for row, bar in zip(rows, bars, strict=True)
    ]


def _carriers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a set of heads: right answers with only them, right answers with all but them."""
    only = {str(row["heads"]): row for row in rows if row["reading"] == "only"}
    lines = []
    for row in rows:
        if row["reading"] == "all but":
            names = ", ".join(f"layer {layer} head {head}" for layer, head in row["heads"]) or "none"
            alone = only[str(row["heads"])]
            n = row["n"]
            lines.append(f"  only {alone['correct']:>3}/{n:<4} all but {row['correct']:>3}/{n:<4}  {names}")
    return lines


def _health(row: Mapping[str, Any]) -> str:
    norms = f"{_mean(row['memory_norm']):10.3g} {_mean(row['z_norm']):10.3g} {row['smallest_denominator']:12.3g}"
    return f"  {row['layer']:>4} {row['segment']:>8.0f}  {norms} {_mean(row['share_of_mix']):13.1%}"


def _rounded(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a segment: the error of M and of z in each layer."""
    lines = []
    for segment in sorted({row["segment"] for row in rows}):
        found = [row for row in rows if row["segment"] == segment]
        worst = max(found, key=lambda row: max(row["memory"], row["z"]))
        mean = [sum(row[part] for row in found) / len(found) for part in ("memory", "z")]
        worst_is = f"M {worst['memory']:.2%} z {worst['z']:.2%} in layer {worst['layer']}"
        lines.append(f"  segment {segment:>5}  mean over layers M {mean[0]:.2%} z {mean[1]:.2%}; worst {worst_is}")
    return lines


def _head(row: Mapping[str, Any]) -> str:
    low, high = row["answer_loses_low"], row["answer_loses_high"]
    reach = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    return (
        f"  {row['layer']:>4} {row['head']:>4}  {row['gate']:5.2f}  {row['share_of_mix']:12.1%}  {row['probe_logits']:12.2f}"
        f"  {row['answer_loses']:+.2f}{reach}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def capacity_text(report: Mapping[str, Any]) -> str:
    """How long a context holds, at which length half of the prompts break, and the leak of each head."""
    span = report["tokens"]
    tokens = f"{span[0]:,}" if span[0] == span[-1] else f"{span[0]:,} to {span[-1]:,}"
    return "\n".join(
        [
            f"checkpoint   {report['checkpoint']}",
            f"samples      {report['samples']} of {tokens} tokens, {report['right']} answered correctly",
            *(f"{mark:<12} {line}" for mark, line in _capacity_lines(report)),
            "",
            "right with the haystack's part of the memory multiplied, as a context of so many tokens would make it",
            *(f"  {row['tokens']:>13,} {row['right']:>4}/{row['n']}" for row in report["by_length"]),
            "",
            "tokens of haystack that weigh as much as the needle in the answer's reads (geometric mean, 95 % t-interval)",
            " layer head   gate          tokens   least prompt",
            *(_leak(row) for row in report["heads"][:MOST_HEADS]),
        ]
    )


def _capacity_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    breaks, beyond = report["breaks"], f"more than {report['longest']:,}"
    holds = beyond if report["holds"] is None else f"about {report['holds']:,.0f}"
    middle, high = (beyond if breaks[key] is None else f"{breaks[key]:,.0f}" for key in ("tokens", "high"))
    return [
        ("CAPACITY", f"expected to hold to {holds} tokens: nine of ten prompts are right up to there"),
        ("", f"half of them are right up to {middle} tokens [{breaks['low']:,.0f}, {high}] (n={breaks['n']})"),
    ]


def _leak(row: Mapping[str, Any]) -> str:
    shown = {key: "-" if row[key] is None else f"{row[key]:,.0f}" for key in row if key.startswith("equal")}
    interval = f"[{shown['equal_low']}, {shown['equal_high']}]"
    return (
        f"  {row['layer']:>4} {row['head']:>4}  {row['gate']:5.2f}  {shown['equal_tokens']:>14} "
        f"{shown['equal_least']:>14}   {interval}"
    )


def calibration_text(found: Mapping[str, Any]) -> str:
    """What was scaled, and what it gained."""
    heads = ", ".join(f"layer {layer} head {head}" for layer, head in found["heads"])
    least = found["least_denominator"]
    return "\n".join(
        [
            f"scaled       keys x {found['key_scale']:g}, queries x {found['query_scale']:g} of {heads}",
            f"denominator  {least['after']:.1e} at least on {least['prompts']} prompts (before: {least['before']:.1e})",
            *(f"{name:<12} {line}" for name in ("before", "after") for _, line in _capacity_lines(found[name])),
        ]
    )
