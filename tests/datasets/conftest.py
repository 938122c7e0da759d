"""Small tokenizers of different kinds, trained on generated English, for the tests of composing."""

from __future__ import annotations

import json
from functools import cache

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from infini_eval.datasets import english
from infini_eval.datasets.tokenizer import Tokenizer

KINDS = ("byte_bpe", "byte_bpe_bos", "byte_bpe_digits", "wordpiece", "unigram", "llama_bpe")
CORPUS = english.text(99, 0, 1_500).split("\n")
EXTRA = ["What is the pass key? The pass key is 0 1 2 3 4 5 6 7 8 9. Passage: \n Find it and memorize them."] * 20


@cache
def make_tokenizer(kind: str) -> Tokenizer:
    """One trained tokenizer of a kind; deterministic."""
    fast = {"wordpiece": _wordpiece, "unigram": _unigram, "llama_bpe": _llama_bpe}.get(kind, lambda: _byte_bpe(kind))()
    settings = {"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True}}
    return Tokenizer(fast.to_str(), name=kind, settings=settings)


def _byte_bpe(kind: str) -> Fast:
    fast = Fast(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    fast.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if kind.endswith("digits") else byte_level
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(CORPUS + EXTRA, trainer)
    if kind == "byte_bpe_bos":
        fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return fast


def _wordpiece() -> Fast:
    fast = Fast(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    fast.train_from_iterator(
        CORPUS + EXTRA, trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    fast.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return fast


def _unigram() -> Fast:
    fast = Fast(models.Unigram())
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    fast.train_from_iterator(CORPUS + EXTRA, trainer)
    return fast


def _llama_bpe() -> Fast:
    """BPE over the whole text without any pre-tokenizer, spaces as ▁, byte fallback off, BOS in front."""
    fast = Fast(models.BPE(unk_token="<unk>"))
    special = ["<unk>", "<s>", "</s>"]
    fast.pre_tokenizer = pre_tokenizers.Metaspace()
    fast.train_from_iterator(
        CORPUS + EXTRA, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    state = json.loads(fast.to_str())
    state["pre_tokenizer"] = None
    state["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]}  # fmt: skip
    fast = Fast.from_str(json.dumps(state))
    fast.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return fast


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param)


@pytest.fixture
def bpe() -> Tokenizer:
    return make_tokenizer("byte_bpe_digits")


@pytest.fixture
def tokenizer_maker():
    return make_tokenizer
