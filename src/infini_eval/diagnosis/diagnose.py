"""A checkpoint's memory on real prompts: a control, health, retrieval probe, rates and ablations, and a verdict."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.evidence import Controls, ask_controls, beside, evidence, is_control, try_changes, unloadable
from infini_eval.diagnosis.findings import NOT_FINITE, Finding, inspect
from infini_eval.diagnosis.health import dtype_effect, health_rows, points_along
from infini_eval.diagnosis.sample import Diagnoser, SampleDiagnosis, confirm, open_diagnoser, refuse_without_memory
from infini_eval.diagnosis.verdict import Evidence, Interval, judge
from infini_eval.errors import DataError
from infini_eval.models.load import gates

logger = logging.getLogger(__name__)
LONGEST = 1 << 16  # the trace keeps every position's hidden state
MOST = 0.8  # of the failures share a place that is worth naming


def diagnose(checkpoint: Checkpoint, tokenizer: Tokenizer, prepared: Sequence[WorkItem]) -> dict[str, Any]:
    """Diagnose on prompts whose needle lies in an earlier segment than the question; a JSON-ready report.

    Runs in one process, in fp32. ConfigError for models without memory, DataError where no prompt is usable. Weights that
    hold NaN are a verdict too, without measurements.
    """
    usable = _usable(checkpoint, prepared)
    found = inspect(checkpoint).findings
    if any(NOT_FINITE in finding.text for finding in found):
        return unloadable(checkpoint, found)
    diagnoser = open_diagnoser(checkpoint, tokenizer)
    answers = [diagnoser.tokens(item) for item in usable]
    done = []
    for index, item in enumerate(usable):
        others = answers[:index] + answers[index + 1 :]
        done.append(diagnoser.diagnose(item, others, usable[index + 1 :] + usable[:index]))
        if index + 1 == len(usable) or (index + 1) % 10 == 0:
            logger.info("diagnosed %d of %d samples", index + 1, len(usable))
    controls = ask_controls(diagnoser, done, [item for item in prepared if is_control(item)])
    return _report(diagnoser, done, controls, found, len(prepared) - len(usable))


def _usable(checkpoint: Checkpoint, prepared: Sequence[WorkItem]) -> list[WorkItem]:
    config = checkpoint.config
    refuse_without_memory(checkpoint)
    usable = [item for item in prepared if item.position.compressions and item.tokens <= LONGEST]
    if not usable:
        raise DataError(
            f"none of {len(prepared)} prompts has its needle in an earlier segment than the question",
            valid=f"prompts longer than the segment length {config.segment_length}, up to {LONGEST:,} tokens",
        )
    return usable


def _report(
    diagnoser: Diagnoser, done: list[SampleDiagnosis], controls: Controls, found: Sequence[Finding], left_out: int
) -> dict[str, Any]:
    checkpoint = diagnoser.checkpoint
    wrong = [item for item in done if not item.correct]
    failed = [item for item in wrong if item.failed_at is not None]
    blamed = [item for item in failed if controls.blames_memory(item)]
    tried = try_changes(diagnoser, blamed)
    measured = evidence(blamed) if blamed else None
    verdict = judge(measured, len(done) - len(wrong), len(wrong), controls.verdict, tried)
    heads = _heads(checkpoint, done)
    longest = max(done, key=lambda item: item.item.tokens)
    at = points_along((longest.item.tokens - 1) // (checkpoint.config.segment_length or 1))
    fewest = min(len(item.health[0]) for item in done)
    return {
        "schema_version": 3,
        "checkpoint": str(checkpoint.folder),
        "samples": len(done),
        "left_out": left_out,
        "correct": len(done) - len(wrong),
        "verdict": {"label": verdict.label, "reason": verdict.reason, "where": _where(failed)},
        "control": controls.to_json(),
        "evidence": beside(diagnoser, done, controls, tried, found),
        "evidence_right": _intervals(evidence([item for item in done if item.correct])),
        "evidence_wrong": _intervals(evidence(blamed or failed)),
        "by_token": _by_token(done),
        "over_time": _over_time(done),
        "heads": heads,
        "layers_lost": torch.stack([item.effects.by_layer for item in done]).mean(0).tolist(),
        "carriers": confirm(diagnoser, done, [(row["layer"], row["head"]) for row in heads]),
        "health": health_rows([item.health for item in done if len(item.health[0]) >= fewest], fewest),
        "bfloat16_memory": {
            "sample": longest.item.sample.id,
            "tokens": longest.item.tokens,
            "relative_error": dtype_effect(checkpoint, longest.item.ids, at),
        },
    }


def _where(failed: Sequence[SampleDiagnosis]) -> str | None:
    """A place in the answer, and in the segment, that most failures share."""
    places = Counter(((item.failed_at or 0) + 1, item.offsets[item.failed_at or 0]) for item in failed)
    if not places:
        return None
    (token, offset), count = places.most_common(1)[0]
    if count < MOST * len(failed):
        return None
    border = (
        ", the first that is predicted from a new segment" if offset == 0 else f", at offset {offset} of its segment"
    )
    return f"{count} of {len(failed)} go wrong first at token {token} of the answer{border}"


def _intervals(found: Evidence) -> dict[str, Any] | None:
    if not found.written.n:
        return None
    return {name: _interval(value) for name, value in vars(found).items()}


def _interval(value: Interval) -> dict[str, Any]:
    return {"mean": _finite(value.mean), "low": _finite(value.low), "high": _finite(value.high), "n": value.n}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _heads(checkpoint: Checkpoint, done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """Every head, the one whose reading the answer needs most first."""
    gates_LN = gates(checkpoint)
    lost_SLN = torch.stack([item.effects.by_head for item in done])
    probes = [item.probes[item.decisive] for item in done]
    read_LN = torch.stack([found.gated[:, -1] for found in probes]).mean(0)
    share_LN = torch.stack([found.share for found in probes]).mean(0)
    rows = []
    for layer, head in np.ndindex(*gates_LN.shape):
        lost = Interval.of(lost_SLN[:, layer, head].tolist())
        rows.append(
            {
                "layer": layer,
                "head": head,
                "gate": gates_LN[layer, head].item(),
                "share_of_mix": share_LN[layer, head].item(),
                "probe_logits": read_LN[layer, head].item(),
                "answer_loses": lost.mean,
                "answer_loses_low": _finite(lost.low),
                "answer_loses_high": _finite(lost.high),
            }
        )
    return sorted(rows, key=lambda row: -row["answer_loses"])


def _by_token(done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """Each token of the answer, those before it given: how often it was the first wrong one, and its probe."""
    rows = []
    for place in range(max(len(item.answer) for item in done)):
        having = [item for item in done if place < len(item.answer)]
        offsets = sorted({item.offsets[place] for item in having})
        rows.append(
            {
                "token": place + 1,
                "n": len(having),
                "first_wrong": sum(item.failed_at == place for item in having),
                "offset_in_segment": offsets[0] if len(offsets) == 1 else None,
                "log_p": _interval(Interval.of([item.effects.log_p_A[place].item() for item in having])),
                "held": _interval(Interval.of([item.probes[place].held for item in having])),
                "read": _interval(Interval.of([item.probes[place].read for item in having])),
                "lost": _interval(Interval.of([item.effects.without_A[place].item() for item in having])),
            }
        )
    return rows


def _over_time(done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """The probe by segments folded since the needle's, without gates: by the question's query, and by the best one."""
    rows: dict[int, tuple[list[float], list[float]]] = {}
    for item in done:
        found = item.probes[item.decisive]
        for index, after in enumerate(found.after):
            held, reachable = rows.setdefault(after, ([], []))
            held.append(found.ungated[:, index].sum().item())
            reachable.append(found.reachable[index].item())
    return [
        {
            "segments_after": after,
            "held": _interval(Interval.of(held)),
            "reachable": _interval(Interval.of(reachable)),
        }
        for after, (held, reachable) in sorted(rows.items())
    ]
