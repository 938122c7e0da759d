"""rouge_l: the longest common subsequence of words with a reference, as F-measure (the rouge-score package)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from infini_eval.errors import ConfigError
from infini_eval.records import Sample, Score
from infini_eval.scorers._references import references


def score(generation: str, sample: Sample) -> Score:
    """The best F-measure in 0..1 over the references; words are stemmed, case ignored."""
    text = generation.strip()
    scorer = _scorer()
    best = max(scorer.score(reference, text)["rougeL"].fmeasure for reference in references(sample))
    return Score(value=float(best), extracted=text or None)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(
            "the scorer rouge_l needs the package rouge-score", next_step='pip install "infini-eval[tasks]"'
        ) from error
    return RougeScorer(["rougeL"], use_stemmer=True)
