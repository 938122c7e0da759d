"""A checkpoint's memory on real prompts: health, retrieval probe and ablations, averaged, and a verdict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from infini_eval.backends._backend import Prepared
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.datasets.tokenizer import Tokenizer
from infini_eval.diagnosis.ablation import head_effects, prefix_state
from infini_eval.diagnosis.probe import Probe, probe
from infini_eval.diagnosis.trace import load_weights, trace
from infini_eval.diagnosis.verdict import Evidence, Interval, judge
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import ConfigError, DataError
from infini_eval.models.gates import gates
from infini_eval.scorers.exact_digits import score

logger = logging.getLogger(__name__)
LONGEST = 1 << 16  # the trace keeps every position's hidden state


@dataclass(frozen=True)
class SampleDiagnosis:
    """One sample: its probe, what the answer loses without each head and without memory, and whether it was right."""

    id: str
    correct: bool
    probe: Probe
    log_p: float
    lost_by_head: torch.Tensor
    lost_by_layer: torch.Tensor
    lost_without_memory: float


def diagnose(checkpoint: Checkpoint, tokenizer: Tokenizer, prepared: Sequence[Prepared]) -> dict[str, Any]:
    """Diagnose on prompts whose needle lies in an earlier segment than the question; a JSON-ready report.

    Runs in one process, in fp32. ConfigError for models without memory, DataError where no prompt is usable.
    """
    config = checkpoint.config
    if not config.has_segments or config.memory == "off":
        raise ConfigError(
            f"{checkpoint.folder} has no compressive memory to diagnose",
            valid="Infini-Attention with turn_on_memory: true",
        )
    usable = [item for item in prepared if item.position.compressions and item.tokens <= LONGEST]
    if not usable:
        raise DataError(
            f"none of {len(prepared)} prompts has its needle in an earlier segment than the question",
            valid=f"prompts longer than the segment length {config.segment_length}, up to {LONGEST:,} tokens",
        )
    model = NativeModel.load(checkpoint, ModelSettings(dtype="float32"))
    weights = load_weights(checkpoint)
    answers = [list(map(int, tokenizer.encode(item.sample.answer, add_special_tokens=False))) for item in usable]
    done = []
    for index, item in enumerate(usable):
        done.append(_one(model, weights, checkpoint, tokenizer, item, answers, index))
        logger.info("diagnosed %d of %d samples", index + 1, len(usable))
    return _report(checkpoint, done, _dtype_effect(checkpoint, usable[0]))


def _one(
    model: NativeModel,
    weights: dict[str, torch.Tensor],
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    item: Prepared,
    answers: list[list[int]],
    index: int,
) -> SampleDiagnosis:
    needle_segment = item.position.needle_segment
    assert needle_segment is not None
    ids = torch.from_numpy(item.ids.astype(np.int64))
    traced = trace(weights, checkpoint, ids, needle_segment, checkpoint.config.memory_query)
    first = answers[index][0]
    others = sorted({answer[0] for answer in answers if answer[0] != first} or {(first + 1) % len(traced.logits_V)})
    log_p, by_head, by_layer, without = head_effects(model, item.ids, answers[index])
    stop = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    text = tokenizer.decode(model.generate([item.ids], len(answers[index]) + 2, stop_ids=stop)[0])
    correct = bool(score(text, item.sample).value)
    return SampleDiagnosis(
        item.sample.id, correct, probe(traced, needle_segment, first, others), log_p, by_head, by_layer, without
    )


def _dtype_effect(checkpoint: Checkpoint, item: Prepared) -> dict[str, Any]:
    """Relative error of z and M at the prompt's end when the memory is kept in bfloat16 instead of fp32."""
    border = (item.tokens - 1) // (checkpoint.config.segment_length or 1) * (checkpoint.config.segment_length or 1)
    states = []
    for dtype, memory_dtype in (("float32", "float32"), ("bfloat16", "model")):
        settings = ModelSettings(dtype=dtype, memory_dtype=memory_dtype)  # type: ignore[arg-type]
        with torch.inference_mode():
            states.append(prefix_state(NativeModel.load(checkpoint, settings), item.ids[:border]))
    errors = []
    for exact, rough in zip(states[0].layers, states[1].layers, strict=True):
        assert exact.memory is not None and rough.memory is not None
        difference = rough.memory.float() - exact.memory
        errors.append(
            {
                "memory": (difference[..., :-1].norm() / exact.memory[..., :-1].norm()).item(),
                "z": (difference[..., -1].norm() / exact.memory[..., -1].norm()).item(),
            }
        )
    return {"sample": item.sample.id, "tokens": item.tokens, "relative_error_by_layer": errors}


def _report(checkpoint: Checkpoint, done: list[SampleDiagnosis], dtype_effect: dict[str, Any]) -> dict[str, Any]:
    wrong = [item for item in done if not item.correct]
    verdict = judge(evidence(wrong) if wrong else None, len(done) - len(wrong), len(wrong))
    everything = evidence(done)
    return {
        "schema_version": 1,
        "checkpoint": str(checkpoint.folder),
        "samples": len(done),
        "correct": len(done) - len(wrong),
        "verdict": {"label": verdict.label, "reason": verdict.reason},
        "evidence_all": _intervals(everything),
        "evidence_wrong": _intervals(evidence(wrong)) if wrong else None,
        "heads": _heads(checkpoint, done),
        "layers_lost": torch.stack([item.lost_by_layer for item in done]).mean(0).tolist(),
        "over_time": _over_time(done),
        "health": _health(done),
        "bfloat16_memory": dtype_effect,
    }


def evidence(items: Sequence[SampleDiagnosis]) -> Evidence:
    """The intervals that the verdict is judged by."""
    return Evidence(
        written=Interval.of([item.probe.written for item in items]),
        held=Interval.of([item.probe.held for item in items]),
        read=Interval.of([item.probe.read for item in items]),
        lost_without_memory=Interval.of([item.lost_without_memory for item in items]),
        change=Interval.of([item.probe.held - item.probe.written for item in items]),
    )


def _intervals(found: Evidence) -> dict[str, Any]:
    return {
        name: {"mean": value.mean, "low": _finite(value.low), "high": _finite(value.high), "n": value.n}
        for name, value in vars(found).items()
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _heads(checkpoint: Checkpoint, done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """Every head, the one whose reading the answer needs most first."""
    gates_LN = gates(checkpoint)
    lost_SLN = torch.stack([item.lost_by_head for item in done])
    read_SLN = torch.stack([item.probe.gated[:, -1] for item in done])
    share_SLN = torch.stack([item.probe.share for item in done])
    rows = []
    for layer in range(lost_SLN.shape[1]):
        for head in range(lost_SLN.shape[2]):
            lost = Interval.of(lost_SLN[:, layer, head].tolist())
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "gate": gates_LN[layer, head].item(),
                    "share_of_mix": share_SLN[:, layer, head].mean().item(),
                    "probe_logits": read_SLN[:, layer, head].mean().item(),
                    "answer_loses": lost.mean,
                    "answer_loses_low": _finite(lost.low),
                    "answer_loses_high": _finite(lost.high),
                }
            )
    return sorted(rows, key=lambda row: -row["answer_loses"])


def _over_time(done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """The probe by segments folded since the needle's (ungated sum over heads); the question's own memory apart."""
    by_after: dict[int, list[float]] = {}
    for item in done:
        for index, after in enumerate(item.probe.after):
            by_after.setdefault(after, []).append(item.probe.ungated[:, index].sum().item())
    rows = []
    for after, values in sorted(by_after.items()):
        interval = Interval.of(values)
        rows.append(
            {
                "segments_after": after,
                "logits": interval.mean,
                "low": _finite(interval.low),
                "high": _finite(interval.high),
                "n": interval.n,
            }
        )
    return rows


def _health(done: list[SampleDiagnosis]) -> list[dict[str, Any]]:
    """Per layer at the question: norms of M and z, and the smallest denominator of the question's reads."""
    rows = []
    for layer in range(done[0].probe.memory_norm.shape[0]):
        rows.append(
            {
                "layer": layer,
                "memory_norm": torch.stack([item.probe.memory_norm[layer, -1] for item in done]).mean(0).tolist(),
                "z_norm": torch.stack([item.probe.z_norm[layer, -1] for item in done]).mean(0).tolist(),
                "smallest_denominator": min(item.probe.denominator[layer].min().item() for item in done),
            }
        )
    return rows
