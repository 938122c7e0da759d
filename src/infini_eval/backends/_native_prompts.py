"""Prompts for the native engine: the checkpoint's tokenizer, and a sample as token ids with its needle's place among them."""

from __future__ import annotations

from infini_eval.api.backend import WorkItem
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.datasets.needle_position import excerpt, position_from_tokens
from infini_eval.datasets.tokenizer import Tokenizer, load_tokenizer
from infini_eval.engine.prefixes import border_digests
from infini_eval.errors import DataError
from infini_eval.records import NeedlePosition, Sample


def prepare_sample(
    sample: Sample, needle: tuple[int, int] | None, tokenizer: Tokenizer, segment_length: int | None
) -> WorkItem:
    """Tokenise a prompt as the model was trained on it, and find its needle (a character span) among the tokens."""
    ids, span = tokenizer.encode_with_span(sample.prompt, needle)
    start, end = span or (None, None)
    if segment_length is None:
        position = NeedlePosition(start, end)
    else:
        answer_tokens = len(tokenizer.encode(sample.answer, add_special_tokens=False))
        position = position_from_tokens(start, end, len(ids), segment_length, answer_tokens)
    prefixes = border_digests(ids, segment_length) if segment_length else b""
    return WorkItem(sample, ids, len(ids), position, excerpt(sample.prompt, needle), prefixes)


def open_tokenizer(asked: str | None, checkpoint: Checkpoint) -> Tokenizer:
    """The one that was asked for and no other; else the configuration's, or the one beside the checkpoint."""
    if asked is not None:
        return load_tokenizer(asked)
    return load_tokenizer(checkpoint.config.tokenizer, checkpoint.folder)


def check_vocabulary(tokenizer: Tokenizer, checkpoint: Checkpoint) -> None:
    if tokenizer.vocab_size > checkpoint.config.vocab_size:
        raise DataError(
            f"the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size} tokens, "
            f"the model's vocabulary {checkpoint.config.vocab_size}",
            next_step="pass the tokenizer that the model was trained with: --tokenizer FOLDER",
        )
