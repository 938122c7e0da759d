"""semantic_similarity with a tiny embedding model that is made here; what is missing is said before anything is asked."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from infini_eval.api import registry
from infini_eval.errors import ConfigError
from infini_eval.records import Sample
from infini_eval.testing.tiny_models import write_tiny_hf_model

TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo/tokenizer"
PARIS = Sample("1", "Which city?", "The city is Paris.", 0.0)


@pytest.fixture(scope="module")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model whose hidden states are averaged: equal texts are equal, others differ."""
    library = pytest.importorskip("sentence_transformers")
    root = tmp_path_factory.mktemp("embedder")
    parts = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    words = parts.Transformer(str(write_tiny_hf_model(root / "words", TOKENIZER)))
    words.tokenizer.pad_token = words.tokenizer.pad_token or words.tokenizer.eos_token or words.tokenizer.bos_token
    pooled = parts.Pooling(words.get_embedding_dimension(), "mean")
    library.SentenceTransformer(modules=[words, pooled], device="cpu").save(str(root / "model"))
    return root / "model"


def test_the_same_meaning_scores_one_and_another_less(tiny_embedder: Path) -> None:
    score = registry.scorer(f"semantic_similarity:{tiny_embedder}")
    assert score.name == "semantic_similarity"
    assert score(" The city is Paris. ", PARIS).value == pytest.approx(1.0, abs=1e-5)
    other = score("seven boats", PARIS).value
    assert other is not None and 0 <= other < 0.999
    assert score("  ", PARIS).value == 0.0


def test_the_nearest_of_several_references_counts(tiny_embedder: Path) -> None:
    score = registry.scorer(f"semantic_similarity:{tiny_embedder}")
    several = Sample("1", "", "Lyon", 0.0, columns={"outputs": '["Lyon", "Paris"]'})
    assert score("Paris", several).value == pytest.approx(1.0, abs=1e-5)


def test_a_model_that_is_not_here_is_said_with_the_next_step() -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(ConfigError, match="'nobody/nothing' cannot be had") as caught:
        registry.scorer("semantic_similarity:nobody/nothing").set_up()
    assert "hf download nobody/nothing" in str(caught.value)


@pytest.mark.parametrize("name", ["contains:x", "semantic_similarity:"])
def test_settings_that_a_scorer_does_not_take(name: str) -> None:
    with pytest.raises(ConfigError, match="--scorer"):
        registry.scorer(name)
