"""summary.json: everything a report says, as numbers; the keys that users' scripts read today are all there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.api.report import report
from infini_eval.reports.block import block
from infini_eval.reports.insights import effective_json
from infini_eval.reports.model_facts import PASSKEY, ModelFacts, model_facts, one_line
from infini_eval.reports.numbers import number
from infini_eval.reports.scoring import DEFAULT, with_failures_as_wrong
from infini_eval.reports.statistics.failures import Counted
from infini_eval.reports.statistics.intervals import Average
from infini_eval.reports.statistics.scored import Scored, scored_samples
from infini_eval.reports.statistics.verdicts import WORST_FIRST, long_context_verdict
from infini_eval.reports.timing import timing
from infini_eval.results.files import write_atomically
from infini_eval.results.reader import RunRecords

if TYPE_CHECKING:
    from infini_eval.reports.analyze import AnalysedRun

SCHEMA_VERSION = 1
NAME = "summary.json"


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
    counted = Counted(scored, scored_samples(with_failures_as_wrong(records)))
    blocks = [block(records, counted.of_length(length), length, facts) for length in counted.lengths()]
    top = blocks[0] if len(blocks) == 1 else _aggregate(records, blocks, counted, facts)
    failed = len(records) - len(scored)
    return {
        "schema_version": SCHEMA_VERSION,
        **top,
        "by_context_length": blocks,
        "effective_context_length": effective_of(blocks, f"this task ({facts.task})"),
        "failed_samples": failed,
        "failures": _failures(records, scored) if failed else [],
        "samples_planned": records.planned,
        "complete": None if records.planned is None else len(records) >= records.planned,
        "segment_length": facts.segment_length,
        "scorer": facts.scorer,
        "other_scores": _other_scores(records, scored),
        "scorer_disagreements": _disagreements(records, scored),
        "timing": timing(records),
        "notes": list(records.notes),
        "run": _provenance(records),
    }


def claim_of(made: Mapping[str, Any]) -> Average:
    """A block's average as fractions, as it holds however its failed samples would have been answered."""
    stats = made["summary_stats"]
    value, low, high = (stats[key] / 100 for key in ("average_failed_as_wrong", "bound_low", "bound_high"))
    return Average(value, low, high, stats["ci_method"], stats["haystacks"])


def effective_of(blocks: Sequence[Mapping[str, Any]], of: str) -> dict[str, Any] | None:
    """The effective context length from the blocks with a labelled length, ascending."""
    labelled = [made for made in blocks if made["context_length"]]
    averages = [(made["context_length"], claim_of(made), made["total_samples"]) for made in labelled]
    return effective_json(averages, {made["context_length"]: made["failed"] for made in labelled}, of)


def _aggregate(
    records: RunRecords, blocks: list[dict[str, Any]], counted: Counted, facts: ModelFacts
) -> dict[str, Any]:
    """All lengths together; headline, performance and verdict are those of the worst length, which they name."""
    together = block(records, counted, None, facts)
    spread = together["performance"]["consistency"]
    for key in ("performance", "verdict", "headline"):
        worst = _worst(blocks, key)
        together[key] = {**worst[key], "context_length": worst["context_length"]}
    message = together["performance"]["message"]
    at = together["performance"]["context_length"]
    together["performance"]["message"] = f"{message} (worst of {len(blocks)} lengths: {at or 'unlabelled'})"
    together["performance"]["consistency"] = spread
    averages = {made["context_length"]: claim_of(made) for made in blocks if made["context_length"]}
    together["long_context"] = long_context_verdict(averages) if facts.task == PASSKEY else None
    return together


def _worst(blocks: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """The block of the worst category, of several the one of the lowest average."""

    def badness(found: dict[str, Any]) -> tuple[int, float]:
        return WORST_FIRST.index(found[key]["category"]), found["summary_stats"]["average_failed_as_wrong"]

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


def _disagreements(records: RunRecords, scored: Scored) -> dict[str, dict[str, int]]:
    """For every other stored scorer: how many answers only the judging scorer passes, and how many only the other."""
    import numpy as np

    main = model_facts(records.manifest).scorer or DEFAULT
    found = {}
    for name in sorted((records.present & set(records.scorers)) - {main}):
        other = records.number(name)[scored.row]
        known = ~np.isnan(other)
        passed, other_passed = scored.correct[known] >= 1, other[known] >= 1
        found[name] = {
            "compared": int(known.sum()),
            "only_main": int((passed & ~other_passed).sum()),
            "only_other": int((~passed & other_passed).sum()),
        }
    return found


def _provenance(records: RunRecords) -> dict[str, Any]:
    manifest = records.manifest or {}
    parts = {key: manifest.get(key) for key in ("identity", "model", "environment")}
    return {"folder": records.folder.name, "files": [path.name for path in records.sources], **parts}
