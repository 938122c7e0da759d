"""Scorers that compare an answer's text with its references, without a model: digits, substrings, whole answers, words."""

from __future__ import annotations

import json
import re
import string
from functools import lru_cache
from typing import Any

from infini_eval.api.scorer import scorer
from infini_eval.errors import ConfigError
from infini_eval.records import Sample, Score

_FIRST_NUMBER = re.compile(r"\d+")
_ENDED_NUMBER = re.compile(r"\d\D")
_AROUND = string.whitespace + string.punctuation
_CONTROL = re.compile(r"[\x00-\x1f]")


@scorer
def exact_digits(generation: str, sample: Sample) -> Score:
    """exact_digits: the first number in the generated text must be the answer ("1" does not pass for "1234")."""
    match = _FIRST_NUMBER.search(generation)
    extracted = match.group() if match else None
    return Score(value=float(extracted == sample.answer.strip()), extracted=extracted)


@exact_digits.settled
def _number_has_ended(generation: str, sample: Sample) -> bool:
    """A character that is no digit follows the first number; until then the number may grow."""
    return _ENDED_NUMBER.search(generation) is not None


@scorer
def contains(generation: str, sample: Sample) -> Score:
    """contains: the answer occurs somewhere in the generated text, case ignored (the substring rule of older tools).

    Lenient: key 48 passes inside "1482".
    """
    answer = sample.answer.strip()
    occurs = bool(answer) and answer.casefold() in generation.casefold()
    return Score(value=float(occurs), extracted=answer if occurs else None)


@contains.settled
def _answer_is_there(generation: str, sample: Sample) -> bool:
    """What has been found stays found."""
    return contains(generation, sample).value == 1.0


@scorer
def exact_match(generation: str, sample: Sample) -> Score:
    """exact_match: the generated text is one of the references, apart from case, spaces and punctuation around it."""
    answer = _plain(generation)
    matches = any(answer == _plain(reference) for reference in references(sample))
    return Score(value=float(matches), extracted=answer or None)


@exact_match.settled
def _left_every_reference(generation: str, sample: Sample) -> bool:
    """The text begins with something that no reference begins with."""
    answer = _plain(generation)
    return not any(_plain(reference).startswith(answer) for reference in references(sample))


@scorer
def string_match_all(generation: str, sample: Sample) -> Score:
    """string_match_all (RULER): the share of the references that occur in the generated text, case ignored."""
    text = _cleaned(generation).lower()
    wanted = references(sample)
    present = [reference for reference in wanted if reference.lower() in text]
    return Score(value=len(present) / len(wanted), extracted=", ".join(present) or None)


@string_match_all.settled
def _all_are_there(generation: str, sample: Sample) -> bool:
    return string_match_all(generation, sample).value == 1.0


@scorer
def string_match_part(generation: str, sample: Sample) -> Score:
    """string_match_part (RULER's question answering): one of the references occurs in the generated text, case ignored."""
    text = _cleaned(generation).lower()
    present = next((reference for reference in references(sample) if reference.lower() in text), None)
    return Score(value=float(present is not None), extracted=present)


@string_match_part.settled
def _one_is_there(generation: str, sample: Sample) -> bool:
    return string_match_part(generation, sample).value == 1.0


@scorer
def rouge_l(generation: str, sample: Sample) -> Score:
    """rouge_l: the longest common subsequence of words with a reference, as F-measure (the rouge-score package).

    The best F-measure in 0..1 over the references; words are stemmed, case ignored.
    """
    text = generation.strip()
    best = max(_rouge().score(reference, text)["rougeL"].fmeasure for reference in references(sample))
    return Score(value=float(best), extracted=text or None)


def references(sample: Sample) -> tuple[str, ...]:
    """The strings that an answer must name: the column `outputs` (a JSON list or a list), else the answer alone."""
    outputs = sample.columns.get("outputs")
    if isinstance(outputs, str):
        outputs = json.loads(outputs) if outputs.startswith("[") else [outputs]
    return tuple(str(output) for output in outputs) if outputs else (sample.answer,)


def _cleaned(generation: str) -> str:
    """A prediction as RULER reads it: control characters become newlines, white space around it goes."""
    return _CONTROL.sub("\n", generation).strip()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_AROUND)


@lru_cache(maxsize=1)
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(
            "the scorer rouge_l needs the package rouge-score", next_step='pip install "infini-eval[tasks]"'
        ) from error
    return RougeScorer(["rougeL"], use_stemmer=True)
