"""The scorer that compares meanings: the cosine of two texts' embeddings, by a model of the sentence-transformers kind."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from infini_eval.api.scorer import scorer
from infini_eval.errors import ConfigError, in_one_line
from infini_eval.records import Sample, Score
from infini_eval.scorers.text_match import references

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@scorer
def semantic_similarity(generation: str, sample: Sample, *, model: str = DEFAULT_MODEL) -> Score:
    """semantic_similarity: the cosine between the embeddings of the answer and of the nearest reference, 0 where negative.

    `--scorer semantic_similarity:FOLDER_OR_HUB_ID` names the embedding model. It is a graded score: its average is no
    share of right answers. An empty answer scores 0.
    """
    text = generation.strip()
    if not text:
        return Score(0.0)
    embeddings = embedding_model(model).encode([text, *references(sample)], normalize_embeddings=True)
    nearest = max(float(embeddings[0] @ reference) for reference in embeddings[1:])
    return Score(min(1.0, max(0.0, nearest)), text)


@semantic_similarity.before_first
@lru_cache(maxsize=2)
def embedding_model(model: str = DEFAULT_MODEL) -> Any:
    """The model on the CPU, where it takes no memory from the one that is evaluated; ConfigError where it cannot be had."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            "the scorer semantic_similarity needs the package sentence-transformers",
            next_step='pip install "infini-eval[similarity]"',
        ) from error
    try:
        return SentenceTransformer(model, device="cpu", model_kwargs={"use_safetensors": True})
    except Exception as error:  # its loader raises many kinds; all mean that there is no such model here
        raise ConfigError(
            f"the embedding model {model!r} cannot be had: {in_one_line(error)}",
            valid="a folder that sentence-transformers wrote, or a hub id that is reachable or cached",
            next_step=f"where there is network: hf download {model}; or name another: --scorer semantic_similarity:FOLDER",
        ) from None
