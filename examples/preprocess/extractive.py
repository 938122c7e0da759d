"""Context compression by extraction: of a long prompt only the sentences stay that share rare words with the question.

    infini-eval run ... --preprocess examples/preprocess/extractive.py:half

A sentence counts the words that it shares with the last sentences of the prompt, each by how rare it is in the prompt
(its inverse document frequency, Sparck Jones 1972). The best ones stay, in their order, until the budget is used.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from infini_eval.records import Sample

SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]+\s*|[^.!?\n]+$")
WORD = re.compile(r"\w+")
KEPT_BEFORE = 1  # sentences at the start (the instruction) and
KEPT_AFTER = 2  # at the end (the question), which always stay


def half(sample: Sample) -> str:
    """The prompt in about half of its characters."""
    return extract(sample.prompt, 0.5)


def tenth(sample: Sample) -> str:
    """The prompt in about a tenth of its characters."""
    return extract(sample.prompt, 0.1)


def extract(prompt: str, share: float) -> str:
    """About that share of the prompt's characters: the ends, and of the middle what has most to do with the question."""
    sentences = SENTENCE.findall(prompt)
    if len(sentences) <= KEPT_BEFORE + KEPT_AFTER:
        return prompt
    middle = range(KEPT_BEFORE, len(sentences) - KEPT_AFTER)
    words = [set(WORD.findall(sentence.casefold())) for sentence in sentences]
    frequency = Counter(word for found in words for word in found)
    asked = set().union(*words[-KEPT_AFTER:])
    weight = {word: math.log(len(sentences) / frequency[word]) for word in asked}
    best = sorted(middle, key=lambda at: (-sum(weight[word] for word in words[at] & asked), at))
    kept = {*range(KEPT_BEFORE), *range(len(sentences) - KEPT_AFTER, len(sentences))}
    room = share * len(prompt) - sum(len(sentences[at]) for at in kept)
    for at in best:
        if len(sentences[at]) <= room:
            kept.add(at)
            room -= len(sentences[at])
    return "".join(sentences[at] for at in sorted(kept))
