"""summary.json: everything a report says, as numbers; the keys that users' scripts read today are all there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.block import block
from infini_eval.reports.insights import effective_json
from infini_eval.reports.model_facts import ModelFacts, model_facts, one_line
from infini_eval.reports.numbers import number
from infini_eval.reports.statistics.intervals import Average
from infini_eval.reports.statistics.scored import Scored
from infini_eval.reports.statistics.verdicts import consistency, long_context_verdict
from infini_eval.reports.timing import timing
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    from infini_eval.reports.analyze import AnalysedRun

SCHEMA_VERSION = 1
NAME = "summary.json"
_WORST_FIRST = ("POOR", "FAIR", "GOOD", "VERY_GOOD", "EXCELLENT")


@report("summary", when="always")
def write(run: AnalysedRun, folder: Path) -> list[Path]:
    """Write summary.json into `folder`; returns what was written."""
    write_atomically(folder / NAME, to_text(run.summary).encode())
    return [folder / NAME]


def to_text(value: Any) -> str:
    """JSON that every parser reads: no NaN, ASCII only."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def summarise(records: RunRecords, scored: Scored) -> dict[str, Any]:
    """The summary of one run: the top level is its one block, or the aggregate of its lengths (context_length null)."""
    facts = model_facts(records.manifest)
    blocks = [block(records, scored.of_length(length), length, facts) for length in scored.lengths()]
    top = blocks[0] if len(blocks) == 1 else _aggregate(records, blocks, scored, facts)
    failed = len(records) - len(scored)
    return {
        "schema_version": SCHEMA_VERSION,
        **top,
        "by_context_length": blocks,
        "effective_context_length": effective_json(_averages(blocks)),
        "failed_samples": failed,
        "failures": _failures(records, scored) if failed else [],
        "samples_planned": records.planned,
        "complete": None if records.planned is None else len(records) >= records.planned,
        "segment_length": facts.segment_length,
        "scorer": facts.scorer,
        "other_scores": _other_scores(records, scored),
        "timing": timing(records),
        "notes": list(records.notes),
        "run": _provenance(records),
    }


def _aggregate(records: RunRecords, blocks: list[dict[str, Any]], scored: Scored, facts: ModelFacts) -> dict[str, Any]:
    """All lengths together; performance and verdict are those of the worst length, which they name."""
    together = block(records, scored, None, facts)
    averages = {b["context_length"]: b["summary_stats"]["average_accuracy"] for b in blocks if b["context_length"]}
    for key in ("performance", "verdict"):
        worst = _worst(blocks, key)
        together[key] = {**worst[key], "context_length": worst["context_length"]}
    message = together["performance"]["message"]
    at = together["performance"]["context_length"]
    together["performance"]["message"] = f"{message} (worst of {len(blocks)} lengths: {at or 'unlabelled'})"
    together["performance"]["consistency"] = consistency(together["summary_stats"]["std_dev"])
    together["long_context"] = long_context_verdict(averages)
    return together


def _averages(blocks: list[dict[str, Any]]) -> list[tuple[int, Average, int]]:
    """(length, average as fractions, samples) of the labelled lengths, ascending."""
    found = []
    for made in blocks:
        stats = made["summary_stats"]
        keys = ("average_accuracy", "average_ci_low", "average_ci_high")
        value, low, high = (stats[key] / 100 for key in keys)
        average = Average(value, low, high, stats["ci_method"])
        if made["context_length"]:
            found.append((made["context_length"], average, made["total_samples"]))
    return found


def _worst(blocks: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """The block of the worst category, of several the one of the lowest average."""

    def badness(found: dict[str, Any]) -> tuple[int, float]:
        return _WORST_FIRST.index(found[key]["category"]), found["summary_stats"]["average_accuracy"]

    return min(blocks, key=badness)


def _failures(records: RunRecords, scored: Scored) -> list[dict[str, Any]]:
    """Why samples failed, the most frequent reasons first."""
    import numpy as np

    rows = np.setdiff1d(np.arange(len(records)), scored.row)
    reasons = Counter(one_line(reason or "no answer stored") for reason in records.texts("error", rows))
    return [{"error": reason, "count": count} for reason, count in reasons.most_common(10)]


def _other_scores(records: RunRecords, scored: Scored) -> dict[str, float | None]:
    """The average of every stored scorer's judgement, in percent over samples."""
    import numpy as np

    found = {}
    for name in sorted(records.present & set(records.scorers)):
        values = records.number(name)[scored.row]
        values = values[~np.isnan(values)]
        found[name] = number(100 * float(values.mean())) if len(values) else None
    return found


def _provenance(records: RunRecords) -> dict[str, Any]:
    manifest = records.manifest or {}
    parts = {key: manifest.get(key) for key in ("identity", "model", "environment")}
    return {"folder": records.folder.name, "files": [path.name for path in records.sources], **parts}
