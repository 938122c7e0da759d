"""One sample's diagnosis: what it answered, and its control; the probe at each token of its answer, ablations, rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.ablation import Effects, ReadPrompt, ask, greedy_answers, head_effects
from infini_eval.diagnosis.health import SegmentHealth, points_along
from infini_eval.diagnosis.trace import Probe, Watched, load_weights, probe, trace
from infini_eval.diagnosis.written import Told, needle_segment_of, told_apart
from infini_eval.engine.native_model import NativeModel
from infini_eval.errors import ConfigError, NumericsError
from infini_eval.scorers.text_match import exact_digits

MOST = 4  # heads


def confirm(
    diagnoser: Diagnoser, done: Sequence[SampleDiagnosis], ranking: Sequence[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Rows of {name, heads, correct, n}: all heads read, only the first k, all but the first k, none."""
    layers, heads = len(diagnoser.model.llama.layers), diagnoser.model.llama.heads
    variants: list[tuple[str, list[tuple[int, int]], torch.Tensor]] = []
    for k in range(min(MOST, len(ranking)) + 1):
        chosen = list(ranking[:k])
        only = torch.zeros(layers, heads)
        for layer, head in chosen:
            only[layer, head] = 1
        variants += [("only", chosen, only), ("all but", chosen, 1 - only)]
    keep_BLN = torch.stack([keep for _, _, keep in variants])
    right = [0] * len(variants)
    for item in done:
        answers = greedy_answers(diagnoser.model, item.question, keep_BLN, len(item.answer) + 1)
        for row, tokens in enumerate(answers):
            right[row] += diagnoser.is_answer(item.item, tokens)
    return [
        {"reading": name, "heads": [list(pair) for pair in chosen], "correct": correct, "n": len(done)}
        for (name, chosen, _), correct in zip(variants, right, strict=True)
    ]


MOST_TOKENS = 8  # of an answer that are probed


@dataclass(frozen=True)
class SampleDiagnosis:
    """`failed_at`: the first token of the answer that was not given, None where all were (or the sample is right).

    probes: one for each token of the answer, the tokens before it given. offsets: where in its segment each token is
    predicted. health: [layers][points]. told: of a wrong sample, at its first wrong token; None where none can be made.
    """

    item: WorkItem
    answer: list[int]
    correct: bool
    failed_at: int | None
    probes: list[Probe]
    offsets: list[int]
    effects: Effects
    health: list[list[SegmentHealth]]
    question: ReadPrompt
    told: Told | None

    @property
    def decisive(self) -> int:
        """The token that a verdict looks at: the first wrong one, or the first of all."""
        return self.failed_at or 0


class Diagnoser:
    """A checkpoint loaded twice, in fp32: through the engine for ablations, as plain weights for traces."""

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer, model: NativeModel) -> None:
        self.checkpoint, self.tokenizer, self.model = checkpoint, tokenizer, model
        self.weights = load_weights(checkpoint)

    def tokens(self, item: WorkItem) -> list[int]:
        """The answer's token ids, the first MOST_TOKENS of them."""
        return list(map(int, self.tokenizer.encode(item.sample.answer, add_special_tokens=False)))[:MOST_TOKENS]

    def is_right(self, item: WorkItem) -> bool:
        """Whether the model answers this prompt correctly."""
        return self._score(item, self._generate(item))

    def is_right_closed(self, item: WorkItem) -> bool:
        """The same with the memory's reads closed from the question's segment on."""
        question = ask(self.model, item.ids)
        closed = torch.zeros(1, len(self.model.llama.layers), self.model.llama.heads)
        (given,) = greedy_answers(self.model, question, closed, len(self.tokens(item)) + 2)
        return self.is_answer(item, given)

    def is_answer(self, item: WorkItem, given: list[int]) -> bool:
        """Whether tokens drawn for this prompt, whatever follows an end token, are its answer."""
        end = self.tokenizer.eos_id
        return self._score(item, given[: given.index(end)] if end in given else given)

    def diagnose(
        self, item: WorkItem, others: Sequence[Sequence[int]], partners: Sequence[WorkItem]
    ) -> SampleDiagnosis:
        """others: the answers (token ids) of the other samples, which the probe contrasts with; partners: other samples."""
        answer = self.tokens(item)
        given = self._generate(item)
        correct = self._score(item, given)
        failed_at = None if correct else first_difference(answer, given)
        length = self.checkpoint.config.segment_length or 1
        needle_segment = needle_segment_of(item, length)
        watched = [
            Watched(item.tokens - 1 + place, (token, *contrast(others, place, token)))
            for place, token in enumerate(answer)
        ]
        traces, health = trace(
            self.weights,
            self.checkpoint,
            torch.from_numpy(np.append(item.ids, answer[:-1]).astype(np.int64)),
            needle_segment,
            self.checkpoint.config.memory_query,
            watched,
            points_along((item.tokens - 1) // length),
            range(item.position.token_start or 0, item.position.token_end or 0),
        )
        probes = []
        for place, (traced, at) in enumerate(zip(traces, watched, strict=True)):
            instead = int(traced.logits_V.argmax()) if place == failed_at else None
            instead = None if instead == at.tokens[0] else instead
            probes.append(probe(traced, needle_segment, at, answer, instead))
        question = ask(self.model, item.ids)
        effects = head_effects(self.model, question, answer)
        offsets = [at.position % length for at in watched]
        told = None
        if failed_at is not None:
            told = told_apart(self.model, self.tokenizer, traces[failed_at], item, answer[:failed_at], partners)
        return SampleDiagnosis(item, answer, correct, failed_at, probes, offsets, effects, health, question, told)

    def _generate(self, item: WorkItem) -> list[int]:
        """The model's own answer; empty where its logits became NaN."""
        stop = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        try:
            return self.model.generate([item.ids], len(self.tokens(item)) + 2, stop_ids=stop)[0]
        except NumericsError:
            return []

    def _score(self, item: WorkItem, given: Sequence[int]) -> bool:
        return bool(exact_digits(self.tokenizer.decode(given), item.sample).value)


def open_diagnoser(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Diagnoser:
    """Load a checkpoint's weights for measuring its memory, in fp32.

    Raises:
        ConfigError: it has no memory.
    """
    refuse_without_memory(checkpoint)
    return Diagnoser(checkpoint, tokenizer, NativeModel.load(checkpoint, ModelSettings(dtype="float32")))


def refuse_without_memory(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    if not config.has_segments or config.memory == "off":
        raise ConfigError(
            f"{checkpoint.folder} has no compressive memory to diagnose",
            valid="Infini-Attention with turn_on_memory: true",
        )


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
