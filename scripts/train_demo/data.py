"""Training and evaluation batches: passkey prompts of an exact number of tokens, made from (seed, step) alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from scripts.train_demo import text
from scripts.train_demo.haystack import Haystacks
from scripts.train_demo.prompts import INTRO, INTRO_16K, NEEDLE, PASSAGE, QUESTION, shot_text
from scripts.train_demo.text import MAX_DIGITS
from torch import Tensor
from transformers import PreTrainedTokenizerFast

SLOTS = 2 * MAX_DIGITS + 1  # positions with a loss: the answer's digits, the end token, the needle's second key
NEEDLE_TAIL = 4  # tokens of the needle after its second key that still belong to its meaning
QUESTION_TOKENS = 16  # at most, with what joins it to the haystack


@dataclass(frozen=True)
class Mix:
    """What a stage's sequences look like; every share is a probability for one sequence."""

    segment_length: int
    segments: tuple[int, ...]
    straddle: float = 0.0  # a segment border cuts the key: a quarter right before it, the others anywhere in it
    intro: float = 0.3
    shots: float = 0.0
    depth_0: float = 0.08
    depth_100: float = 0.15
    local_only: float = 0.07  # batches of one segment: nothing to remember, as in an ablated run
    factor_share: float = 0.7  # sequences whose haystack segments enter the memory many times
    factor_max: float = 1.0
    past: float = 0.0  # sequences that begin, or go on, with a long stream in the memory (past.py)
    fixed_depth: float | None = None  # evaluation only: needle at this share of the haystack
    fixed_end: int | None = None  # evaluation only: prompt of exactly this many tokens
    kind: str | None = None  # evaluation only: one kind of haystack
    digits: int | None = None  # evaluation only: one number of digits


@dataclass
class Prompt:
    """A prompt's ids, its key, and the token positions of the needle and of the introduction's end (-1: none)."""

    ids: list[int]
    key: str
    head_end: int
    needle_start: int
    copy_start: int  # first digit of the needle's second key


@dataclass
class Batch:
    """ids_BT; loss positions, targets and weights (answer, needle copy) [B, SLOTS]; update factors [B, S].

    past_B: the segment before which a long stream was read; -1 for none.
    """

    ids_BT: Tensor
    position_BK: Tensor
    target_BK: Tensor
    answer_BK: Tensor
    copy_BK: Tensor
    factor_BS: Tensor
    past_B: Tensor
    distance_B: Tensor  # segments between the needle's second key and the answer's first prediction
    segment_length: int

    def to(self, device: str) -> Batch:
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()})


class Source:
    """Makes batches; the same (seed, step) gives the same batch, whatever was made before."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, held_out: bool = False, size: int = 1_000_000):
        self.tokenizer = tokenizer.backend_tokenizer
        self.end_token = tokenizer.eos_token_id
        self.seed = f"{seed}-{'held out' if held_out else 'training'}"
        self.haystacks = Haystacks(self.tokenizer, random.Random(self.seed), held_out, size)

    def batch(self, step: int, mix: Mix, tokens: int = 0, sequences: int = 0) -> Batch:
        """One batch of about `tokens` tokens, or of exactly `sequences` sequences."""
        rng = random.Random(f"{self.seed}-{step}")
        segments = 1 if rng.random() < mix.local_only else rng.choice(mix.segments)
        count = sequences or max(1, tokens // (segments * mix.segment_length))
        rows = [self._row(rng, mix, segments) for _ in range(count)]
        columns = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return Batch(**columns, segment_length=mix.segment_length)

    def stream_ids(self, rng: random.Random, tokens: int, kind: str) -> list[int]:
        """Token ids of so much haystack, "template", "docs" or "filler", nothing hidden in it and without distractors.

        At one sentence in twelve, millions of tokens would hold more other numbers than any text that is asked about one.
        """
        paragraph = text.filler_paragraph(rng)
        content = {
            "template": lambda: text.template_text(rng, tokens // 8, distractors=0.0),
            "docs": lambda: text.doc_text(rng, held_out=False, distractors=0.0),
            "filler": lambda: paragraph * (tokens // len(paragraph.split()) + 2),
        }[kind]()
        encoded = self.tokenizer.encode(content).ids
        first = rng.randrange(len(encoded) - tokens)
        return list(encoded[first : first + tokens])

    def _row(self, rng: random.Random, mix: Mix, segments: int) -> dict[str, np.ndarray]:
        """The arrays of one sequence, by the field of Batch that they go to."""
        prompt = None
        while prompt is None:  # a draw may not fit, for example an introduction into a short prompt
            key = _key(rng, mix.digits)
            end = mix.fixed_end or _prompt_end(rng, mix, segments, len(key))
            prompt = self._prompt(rng, mix, end, key)
        digits = self.tokenizer.encode(prompt.key).ids
        ids = np.full(segments * mix.segment_length, self.end_token, dtype=np.int64)
        sequence = prompt.ids + digits
        ids[: len(sequence)] = sequence
        factors = np.ones(segments, dtype=np.float32)
        free = set(range(segments)) - _busy_segments(prompt, mix.segment_length)
        if mix.factor_max > 1 and rng.random() < mix.factor_share:
            for segment in free:
                factors[segment] = mix.factor_max ** rng.random()
        past = -1
        if mix.past and rng.random() < mix.past:
            past = rng.choice(sorted(free | ({0} if prompt.head_end < 0 else set())) or [-1])
        needle_end = prompt.copy_start + len(digits)
        distance = (len(prompt.ids) - 1) // mix.segment_length - needle_end // mix.segment_length
        return _loss_slots(prompt, digits, self.end_token) | {
            "ids_BT": ids,
            "factor_BS": factors,
            "past_B": np.array(past),
            "distance_B": np.array(distance),
        }

    def _prompt(self, rng: random.Random, mix: Mix, end: int, key: str) -> Prompt | None:
        """A prompt of exactly `end` tokens, or None when the draw does not fit.

        The whole text is tokenized at once, as an evaluation does: tokens may merge across the needle's borders. The
        haystack is lengthened or shortened until the count is right.
        """
        head, joint, needle = self._head(rng, mix, end), _joint(rng), NEEDLE.format(k=key)
        size = end - len(self.tokenizer.encode(head + needle + joint).ids)
        if size < 0:
            return None
        depth, snap = _depth(rng, mix), rng.random() < 0.5
        haystack = self.haystacks.draw(rng, size + 32, mix.kind)
        for _ in range(8):
            if size >= haystack.size:  # a repeated filler that merges much at its joints came out too short
                return None
            before, after = haystack.cut(max(size, 0), depth, snap)
            encoding = self.tokenizer.encode(head + before + needle + after + joint)
            excess = len(encoding.ids) - end
            if excess == 0:
                start = len(head) + len(before)
                places = (start, start + needle.rindex(key))
                head_end = encoding.char_to_token(len(head) - 1) if head else -1
                return Prompt(encoding.ids, key, head_end, *(encoding.char_to_token(place) for place in places))
            if size <= 0 and excess > 0:
                return None
            size -= excess
        return None

    def _head(self, rng: random.Random, mix: Mix, end: int) -> str:
        """Nothing, an introduction in one of the known forms, or one with worked examples."""
        if rng.random() >= mix.intro or end < 80:
            return ""
        shots = ""
        if end > 250 and rng.random() < mix.shots / mix.intro:
            for _ in range(rng.randint(1, 1 if end < 450 else 3)):
                shots += shot_text(rng, text.template_text(rng, rng.randint(0, 3)).strip())
        if rng.random() < 0.6 or shots:
            return INTRO + shots + " " + PASSAGE
        return INTRO_16K + rng.choice((" ", "", "\n", " \n", "\n\n"))


def _key(rng: random.Random, digits: int | None) -> str:
    if digits is None:
        return text.random_number(rng)
    return str(rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1))


def _depth(rng: random.Random, mix: Mix) -> float:
    if mix.fixed_depth is not None:
        return mix.fixed_depth
    roll = rng.random()
    if roll < mix.depth_100:
        return 1.0
    return 0.0 if roll < mix.depth_100 + mix.depth_0 else rng.random()


def _joint(rng: random.Random) -> str:
    """What stands between the haystack and the answer: the reference's ". " mostly."""
    return rng.choices((". ", "", " ", "\n", " \n\n"), (0.6, 0.2, 0.1, 0.05, 0.05))[0] + QUESTION


def _prompt_end(rng: random.Random, mix: Mix, segments: int, digits: int) -> int:
    """The number of prompt tokens: the answer ends in the last segment, or crosses into it when straddling."""
    length = mix.segment_length
    border = (segments - 1) * length
    if segments > 1 and rng.random() < mix.straddle:
        return border - (0 if rng.random() < 0.25 else rng.randint(0, digits))
    low = border + 1 if segments > 1 else min(48, length - digits)
    return rng.randint(low, segments * length - digits)


def _busy_segments(prompt: Prompt, length: int) -> set[int]:
    """Segments that hold a part of the introduction, the needle or the question: they occur once in a real stream."""
    needle = (prompt.needle_start // length, (prompt.copy_start + len(prompt.key) + NEEDLE_TAIL) // length)
    question = (len(prompt.ids) - QUESTION_TOKENS) // length
    return {*range(prompt.head_end // length + 1), *needle, question, question + 1}


def _loss_slots(prompt: Prompt, digits: list[int], end_token: int) -> dict[str, np.ndarray]:
    """Where a loss is taken and on what: the answer with its end token, then the needle's second copy of the key."""
    n, end = len(digits), len(prompt.ids)
    position, target = np.zeros((2, SLOTS), dtype=np.int64)
    answer, copy = np.zeros((2, SLOTS), dtype=np.float32)
    # Every position predicts the token after it.
    position[: 2 * n + 1] = [*range(end - 1, end + n), *range(prompt.copy_start - 1, prompt.copy_start - 1 + n)]
    target[: 2 * n + 1] = [*digits, end_token, *digits]
    answer[: n + 1], copy[n + 1 : 2 * n + 1] = 1, 1
    return {"position_BK": position, "target_BK": target, "answer_BK": answer, "copy_BK": copy}
