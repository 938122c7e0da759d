"""One sample's diagnosis: what it answered, the probe at each token of its answer, and its ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.ablation import Effects, Question, ask, head_effects
from infini_eval.diagnosis.health import SegmentHealth, points_along
from infini_eval.diagnosis.probe import Probe, probe
from infini_eval.diagnosis.trace import Watched, load_weights, trace
from infini_eval.diagnosis.verdict import Evidence, Interval
from infini_eval.engine.native_model import NativeModel
from infini_eval.scorers.text_match import exact_digits

MOST_TOKENS = 8  # of an answer that are probed


@dataclass(frozen=True)
class SampleDiagnosis:
    """`failed_at`: the first token of the answer that was not given, None where all were (or the sample is right).

    probes: one for each token of the answer, the tokens before it given. offsets: where in its segment each token is
    predicted. health: [layers][points].
    """

    item: WorkItem
    answer: list[int]
    correct: bool
    failed_at: int | None
    probes: list[Probe]
    offsets: list[int]
    effects: Effects
    health: list[list[SegmentHealth]]
    question: Question

    @property
    def decisive(self) -> int:
        """The token that a verdict looks at: the first wrong one, or the first of all."""
        return self.failed_at or 0


class Diagnoser:
    """A checkpoint loaded twice, in fp32: through the engine for ablations, as plain weights for traces."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, model: NativeModel) -> None:
        self.checkpoint, self.tokenizer, self.model = checkpoint, tokenizer, model
        self._weights = load_weights(checkpoint)

    def tokens(self, item: WorkItem) -> list[int]:
        """The answer's token ids, the first MOST_TOKENS of them."""
        return list(map(int, self.tokenizer.encode(item.sample.answer, add_special_tokens=False)))[:MOST_TOKENS]

    def diagnose(self, item: WorkItem, others: Sequence[Sequence[int]]) -> SampleDiagnosis:
        """`others` are the answers (token ids) of the other samples, which the probe contrasts with."""
        answer = self.tokens(item)
        given = self._generate(item, len(answer))
        correct = bool(exact_digits(self.tokenizer.decode(given), item.sample).value)
        failed_at = None if correct else first_difference(answer, given)
        length = self.checkpoint.config.segment_length or 1
        needle_segment = needle_segment_of(item, length)
        watched = [
            Watched(item.tokens - 1 + place, (token, *contrast(others, place, token)))
            for place, token in enumerate(answer)
        ]
        traces, health = trace(
            self._weights,
            self.checkpoint,
            torch.from_numpy(np.append(item.ids, answer[:-1]).astype(np.int64)),
            needle_segment,
            self.checkpoint.config.memory_query,
            watched,
            points_along((item.tokens - 1) // length),
        )
        probes = []
        for place, (traced, at) in enumerate(zip(traces, watched, strict=True)):
            instead = given[place] if place == failed_at and place < len(given) else None
            probes.append(probe(traced, needle_segment, at, answer, instead))
        question = ask(self.model, item.ids)
        effects = head_effects(self.model, question, answer)
        offsets = [at.position % length for at in watched]
        return SampleDiagnosis(item, answer, correct, failed_at, probes, offsets, effects, health, question)

    def _generate(self, item: WorkItem, tokens: int) -> list[int]:
        stop = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        return self.model.generate([item.ids], tokens + 2, stop_ids=stop)[0]


def needle_segment_of(item: WorkItem, length: int) -> int:
    """The segment with which the whole needle is written: that of its end, unless the question's own."""
    position = item.position
    assert position.needle_segment is not None and position.token_end is not None
    return max(position.needle_segment, min((position.token_end - 1) // length, (item.tokens - 1) // length - 1))


def first_difference(answer: Sequence[int], given: Sequence[int]) -> int | None:
    """The first place at which `given` is not the answer (or has ended); None where it goes on behind the answer."""
    for place, token in enumerate(answer):
        if place >= len(given) or given[place] != token:
            return place
    return None


def contrast(answers: Sequence[Sequence[int]], place: int, token: int) -> list[int]:
    """The other tokens that answers have at this place; where there is none, those at any place, else a neighbour."""
    found = {answer[place] for answer in answers if place < len(answer)} - {token}
    found = found or {other for answer in answers for other in answer} - {token}
    return sorted(found) or [token - 1 if token else 1]


def evidence(items: Sequence[SampleDiagnosis]) -> Evidence:
    """The intervals that a verdict is judged by, at each sample's decisive token."""
    probes = [item.probes[item.decisive] for item in items]
    return Evidence(
        written=Interval.of([found.written for found in probes]),
        held=Interval.of([found.held for found in probes]),
        change=Interval.of([found.held - found.written for found in probes]),
        reachable_after_writing=Interval.of([found.reachable[0].item() for found in probes]),
        reachable=Interval.of([found.reachable[-1].item() for found in probes]),
        read=Interval.of([found.read for found in probes]),
        against_given=Interval.of([found.against_given for found in probes if found.against_given is not None]),
        lost_without_memory=Interval.of([item.effects.without_A.sum().item() for item in items]),
    )
