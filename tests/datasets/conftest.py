"""Small tokenizers of different kinds, trained on generated English, for the tests of composing."""

from __future__ import annotations

import itertools
import json
import string
from collections import Counter
from functools import cache

import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Fast

from infini_eval.datasets import english
from infini_eval.datasets.tokenizer import Tokenizer

KINDS = ("byte_bpe", "byte_bpe_bos", "byte_bpe_digits", "wordpiece", "unigram", "llama_bpe")
MERGING = ("super_bpe", "merging_unigram")  # some tokens reach over spaces
CORPUS = english.text(99, 0, 1_500).split("\n")
EXTRA = ["What is the pass key? The pass key is 0 1 2 3 4 5 6 7 8 9. Passage: \n Find it and memorize them."] * 20


@cache
def make_tokenizer(kind: str) -> Tokenizer:
    """One trained tokenizer of a kind; deterministic."""
    makers = {
        "wordpiece": _wordpiece,
        "unigram": _unigram,
        "llama_bpe": _llama_bpe,
        "super_bpe": _super_bpe,
        "merging_unigram": _merging_unigram,
        "characters": _characters,
    }
    fast = makers.get(kind, lambda: _byte_bpe(kind))()
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


def _super_bpe() -> Fast:
    """llama_bpe with merges of its own frequent neighbours, "▁of▁the" and the like, in two rounds."""
    fast = _llama_bpe()
    for _ in range(2):
        pairs: Counter[tuple[str, str]] = Counter()
        for line in CORPUS:
            pairs.update(itertools.pairwise(fast.encode(line, add_special_tokens=False).tokens))
        state = json.loads(fast.to_str())
        vocab = state["model"]["vocab"]
        for (left, right), _count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:300]:
            if left + right not in vocab and "<unk>" not in (left, right):
                vocab[left + right] = len(vocab)
                state["model"]["merges"].append([left, right])
        fast = Fast.from_str(json.dumps(state))
    return fast


def _merging_unigram() -> Fast:
    """Unigram over the whole text, with frequent words and pairs of words as its pieces."""
    words = Counter(word for line in CORPUS for word in line.split())
    phrases = Counter(f"{a} {b}" for line in CORPUS for a, b in itertools.pairwise(line.split()))
    letters = [*sorted(set("".join(CORPUS + EXTRA)) - {" "}), "▁"]
    pieces = [("<unk>", 0.0), *((letter, -9.0) for letter in letters)]
    common = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:400]
    pieces += [(f"▁{word}", -10.0) for word, _ in common if len(word) > 1]
    often = sorted(phrases.items(), key=lambda item: (-item[1], item[0]))[:300]
    pieces += [("▁" + phrase.replace(" ", "▁"), -11.0) for phrase, _ in often]
    fast = Fast(models.Unigram(pieces, unk_id=0))
    fast.normalizer = normalizers.Replace(" ", "▁")
    return fast


def _characters() -> Fast:
    """A token for each character."""
    signs = sorted(set("".join(CORPUS + EXTRA)) | set(string.printable))
    fast = Fast(models.WordLevel({sign: i for i, sign in enumerate(["<unk>", *signs])}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return fast


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param)


@pytest.fixture(params=KINDS + MERGING)
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make_tokenizer(request.param)


@pytest.fixture
def bpe() -> Tokenizer:
    return make_tokenizer("byte_bpe_digits")


@pytest.fixture
def tokenizer_maker():
    return make_tokenizer
