"""Trains and saves the demo's byte-level BPE tokenizer: 1,024 entries, every digit its own token, an end token."""

from __future__ import annotations

import json
import random
from pathlib import Path

from scripts.train_demo import text
from scripts.train_demo.prompts import INTRO, NEEDLE, PASSAGE, QUESTION
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 1024
END_TOKEN = "<|endoftext|>"


def corpus(seed: int) -> list[str]:
    """The haystack kinds in about the proportions of the training data, and the prompt's own wording."""
    rng = random.Random(seed)
    prompt = INTRO + " " + PASSAGE + NEEDLE.format(k="1") + ". " + QUESTION
    docs = text.interpreter_docs()
    return [
        *(text.template_text(rng, 2_000) for _ in range(10)),
        docs[:1_000_000],
        *(text.salad_text(rng, 5_000) for _ in range(5)),
        *(text.filler_paragraph(rng) for _ in range(1_000)),
        *([prompt] * 1_000),
    ]


def train_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """A byte-level BPE without any added beginning token: a prompt's ids are exactly the ids of its text.

    Digits are split off before the words are, so a prompt that ends in a space keeps its ids when digits follow.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TOKEN,
        pad_token=END_TOKEN,
        clean_up_tokenization_spaces=False,
        model_max_length=1_000_000_000,
    )


def load_or_train(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`; trained and saved there first when the folder holds none."""
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer().save_pretrained(folder)
        # The class name that every transformers version knows; newer ones write a name that older ones do not.
        config_path = folder / "tokenizer_config.json"
        config = json.loads(config_path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        config_path.write_text(json.dumps(config, indent=2) + "\n")
    return PreTrainedTokenizerFast.from_pretrained(folder)
