"""Fast tokenizers without torch: where one is found, and how a text of any length becomes ids and offsets."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infini_eval.errors import DataError, in_one_line

Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]
EncodeWindow = Callable[[str], Encoded]

WINDOW_CHARS = 200_000  # encodings of 1m characters one after the other were seen to leave 1.5 GB of scattered memory
OVERLAP_CHARS = 4_096
AGREEMENT_TOKENS = 16  # equal neighbours that make a joint; a tokenizer's view is far shorter than that


def encode_in_windows(encode: EncodeWindow, text: str, *, window: int = WINDOW_CHARS) -> Encoded:
    """Return ids [T] and offsets [T, 2] of a long text, equal to those of encoding it in one piece."""
    parts = list(windowed_encoding(encode, text, window=window))
    return np.concatenate([ids for ids, _ in parts]), np.concatenate([offsets for _, offsets in parts])


def windowed_encoding(encode: EncodeWindow, text: str, *, window: int = WINDOW_CHARS) -> Iterator[Encoded]:
    """Yield ids and offsets of a long text, part by part."""
    return _windows(encode, _cut(text, window), OVERLAP_CHARS)


def encode_stream(
    encode: EncodeWindow, parts: Iterable[str], *, window: int = WINDOW_CHARS, overlap: int = OVERLAP_CHARS
) -> Iterator[NDArray[np.int32]]:
    """Yield the ids of a text that arrives in parts: chunks of ids, holding about one window of text at a time."""
    for ids, _ in _windows(encode, _regroup(parts, window), overlap):
        yield ids


def _cut(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _regroup(parts: Iterable[str], size: int) -> Iterator[str]:
    """Pieces of `size` characters, whatever the sizes of the parts."""
    held: list[str] = []
    length = 0
    for part in parts:
        held.append(part)
        length += len(part)
        while length >= size:
            joined = "".join(held)
            yield joined[:size]
            held, length = [joined[size:]], length - size
    if length:
        yield "".join(held)


def _windows(encode: EncodeWindow, pieces: Iterable[str], overlap: int) -> Iterator[Encoded]:
    """Encode each piece after the end of the one before; a piece's last tokens wait for the next to confirm them."""
    tail_text, base = "", 0  # the overlap carried over, and where it starts in the whole text
    held: Encoded | None = None
    for piece in pieces:
        text = tail_text + piece
        ids, offsets = encode(text)
        offsets = offsets + base
        if held is not None:
            held, (ids, offsets) = _join(held, (ids, offsets), base + len(tail_text))
            yield held
        tail_text = text[-overlap:] if len(text) > overlap else text
        base = base + len(text) - len(tail_text)
        cut = int(np.searchsorted(offsets[:, 0], base))
        yield ids[:cut], offsets[:cut]
        held = (ids[cut:], offsets[cut:])
    if held is not None:
        yield held


def _join(old: Encoded, new: Encoded, old_end: int) -> tuple[Encoded, Encoded]:
    """Split two encodings of one overlap at a character where the next AGREEMENT_TOKENS tokens are equal in both."""
    old_keys = np.column_stack([old[1], old[0]])
    new_keys = np.column_stack([new[1], new[0]])
    first = int(np.searchsorted(old_keys[:, 0], (old_keys[0, 0] + old_end) // 2)) if len(old_keys) else 0
    for i in range(first, len(old_keys) - AGREEMENT_TOKENS):
        j = int(np.searchsorted(new_keys[:, 0], old_keys[i, 0]))
        run = new_keys[j : j + AGREEMENT_TOKENS]
        starts_a_span = i == 0 or old_keys[i - 1, 0] < old_keys[i, 0]
        if starts_a_span and np.array_equal(run, old_keys[i : i + AGREEMENT_TOKENS]):
            return (old[0][:i], old[1][:i]), (new[0][j:], new[1][j:])
    raise DataError(
        f"the tokenizer does not agree with itself on an overlap of {len(old_keys)} tokens; the text cannot be encoded "
        "in windows",
        next_step="a text without spaces (one endless word) is the usual cause; use a haystack of words",
    )


SLOW_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
Span = tuple[int, int]
IDS_AT_ONCE_CHARS = 1_000_000  # without offsets in one piece: 1.7 times faster than with them, for ~150 MB
WHOLE_TEXT_CHARS = 2_000_000  # longer texts are encoded in overlapping windows: an Encoding costs ~200 bytes a token


class Tokenizer:
    """A fast tokenizer and its special ids; what training and evaluation call "the" token ids of a text.

    Special tokens are added as tokenizer.json's post-processor says, as Hugging Face's `tokenizer(text)` does.
    Ids are int32 arrays, offsets int64 arrays [T, 2] of half-open character spans (0, 0 for added specials).
    Texts are encoded as batches of one: that lets other threads run meanwhile, which `Tokenizer.encode` does not.
    """

    def __init__(self, json_text: str, *, name: str, settings: dict[str, Any] | None = None) -> None:
        from tokenizers import Tokenizer as Fast

        self.name = name
        self.settings = settings or {}
        self.fast = Fast.from_str(json_text)
        self.fast.no_truncation()
        self.fast.no_padding()
        self.fingerprint = hashlib.sha256(json_text.encode()).hexdigest()[:16]
        self.special_prefix, self.special_suffix = self._added_specials()

    @cached_property
    def vocab_size(self) -> int:
        """The highest token id plus one: what an embedding table must hold."""
        return max(self.fast.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def bos_id(self) -> int | None:
        return self._special_id("bos_token")

    @cached_property
    def eos_id(self) -> int | None:
        return self._special_id("eos_token")

    @property
    def chat_template(self) -> str | None:
        template = self.settings.get("chat_template")
        return template if isinstance(template, str) else None

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """Write a chat, {"role", "content"} of each message, as the chat template does; special tokens are in its text.

        add_generation_prompt: end with what precedes an answer. continue_final_message: end inside the last message.

        Raises:
            DataError: there is no chat template, or it refuses the chat.
        """
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.chat_template is None:
            raise DataError(
                f"the tokenizer {self.name!r} has no chat template",
                valid="a chat_template in tokenizer_config.json, or a chat_template.jinja beside it",
                next_step="send the text as a plain prompt",
            )
        named = {
            name: _content(self.settings.get(name)) for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        }
        try:
            rendered, _ = render_jinja_template(
                [list(messages)],
                chat_template=self.chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                **{name: token for name, token in named.items() if token is not None},
            )
        except TemplateError as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise DataError(
                f"the chat template of {self.name!r} refuses a chat of the roles {roles}: {in_one_line(error, 200)}"
            ) from None
        return str(rendered[0])

    def encode(self, text: str, *, add_special_tokens: bool = True) -> NDArray[np.int32]:
        """Return the ids of a text, [T] int32."""
        if len(text) > IDS_AT_ONCE_CHARS:
            return np.concatenate(list(self.encode_chunks([text], add_special_tokens=add_special_tokens)))
        (encoding,) = self.fast.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return np.array(encoding.ids, dtype=np.int32)

    def encode_with_offsets(
        self, text: str, *, add_special_tokens: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids [T] int32 and character spans [T, 2] int64 of a text."""
        if len(text) > WHOLE_TEXT_CHARS:
            ids, offsets = encode_in_windows(self.encode_window, text)
            return self._with_specials(ids, offsets) if add_special_tokens else (ids, offsets)
        return self.encode_window(text, add_special_tokens)

    def encode_window(self, text: str, add_special_tokens: bool = False) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids and offsets of a text in one piece, whatever its length."""
        (encoding,) = self.fast.encode_batch([text], add_special_tokens=add_special_tokens)
        return _arrays(encoding)

    def encode_windows(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Ids and offsets of several texts, without special tokens, on all cores."""
        encodings = self.fast.encode_batch(list(texts), add_special_tokens=False)
        return [_arrays(encoding) for encoding in encodings]

    def encode_with_span(self, text: str, span: Span | None) -> tuple[NDArray[np.int32], Span | None]:
        """The ids of a text, and the half-open span of the tokens that overlap a span of characters.

        As `encode_with_offsets`, but holds no offsets (16 bytes a token) of a long text.
        """
        chunks, first, last = [np.array(self.special_prefix, np.int32)], None, 0
        count = len(self.special_prefix)
        for ids, offsets in windowed_encoding(self.encode_window, text):
            if span is not None:
                inside = np.flatnonzero((offsets[:, 0] < span[1]) & (offsets[:, 1] > span[0]))
                if len(inside):
                    first = count + int(inside[0]) if first is None else first
                    last = count + int(inside[-1]) + 1
            chunks.append(ids)
            count += len(ids)
        chunks.append(np.array(self.special_suffix, np.int32))
        return np.concatenate(chunks), None if first is None else (first, last)

    def measure(
        self, text: str, spans: Sequence[Span], places: Sequence[int] = ()
    ) -> tuple[int, tuple[Span, ...], list[int]]:
        """A text's tokens (specials included), the tokens that overlap each span of characters, and, for each place, how
        many tokens (specials left out) start before that character. Holds one window's offsets at a time.
        """
        count, before = 0, [0] * len(places)
        token_spans: list[Span | None] = [None] * len(spans)
        front = len(self.special_prefix)
        for _, offsets in windowed_encoding(self.encode_window, text):
            starts, ends = offsets[:, 0], offsets[:, 1]
            for i, (start, end) in enumerate(spans):
                inside = np.flatnonzero((starts < end) & (ends > start)) + (front + count)
                if len(inside):
                    first_part = token_spans[i]
                    token_spans[i] = (int(inside[0]) if first_part is None else first_part[0], int(inside[-1]) + 1)
            for i, place in enumerate(places):
                before[i] += int(np.count_nonzero(starts < place))
            count += len(offsets)
        missing = [span for span, tokens in zip(spans, token_spans, strict=True) if tokens is None]
        if missing:
            raise ValueError(f"no token overlaps characters {missing[0][0]}..{missing[0][1]}")
        return count + front + len(self.special_suffix), tuple(span for span in token_spans if span is not None), before

    def encode_chunks(self, parts: Iterable[str], *, add_special_tokens: bool = True) -> Iterator[NDArray[np.int32]]:
        """The ids of the text that `parts` make when joined, chunk by chunk and in bounded memory."""
        if add_special_tokens and self.special_prefix:
            yield np.array(self.special_prefix, dtype=np.int32)
        yield from encode_stream(self.encode_window, parts)
        if add_special_tokens and self.special_suffix:
            yield np.array(self.special_suffix, dtype=np.int32)

    def count(self, text: str, *, add_special_tokens: bool = True) -> int:
        """Count the tokens of a text."""
        return len(self.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, ids: Sequence[int] | NDArray[np.integer], *, skip_special_tokens: bool = True) -> str:
        """Return the text of some ids."""
        return self.fast.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def token_id(self, token: str) -> int | None:
        """The id of a token's own spelling, None where the vocabulary has none."""
        return self.fast.token_to_id(token)

    def _special_id(self, name: str) -> int | None:
        token = _content(self.settings.get(name))
        return None if token is None else self.token_id(token)

    def _added_specials(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        plain = self.fast.encode("a", add_special_tokens=False).ids
        added = self.fast.encode("a", add_special_tokens=True).ids
        for front in range(len(added) - len(plain) + 1):
            if added[front : front + len(plain)] == plain:
                return tuple(added[:front]), tuple(added[front + len(plain) :])
        raise DataError(f"tokenizer {self.name!r} changes a text's own tokens when it adds special tokens")

    def _with_specials(
        self, ids: NDArray[np.int32], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        front, back = len(self.special_prefix), len(self.special_suffix)
        return (
            np.concatenate([np.array(self.special_prefix, np.int32), ids, np.array(self.special_suffix, np.int32)]),
            np.concatenate([np.zeros((front, 2), np.int64), offsets, np.zeros((back, 2), np.int64)]),
        )


def _content(token: Any) -> str | None:
    """The text of a special token, which settings name by itself or with its properties."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _arrays(encoding: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    flat = itertools.chain.from_iterable(encoding.offsets)
    offsets = np.fromiter(flat, dtype=np.int64, count=2 * len(encoding)).reshape(-1, 2)
    return np.array(encoding.ids, dtype=np.int32), offsets


def load_tokenizer(path_or_name: str | Path | None, beside: str | Path | None = None) -> Tokenizer:
    """Load a tokenizer by folder, tokenizer.json file or hub name; `beside` is a checkpoint folder to look in first.

    Looked for, in this order: `path_or_name` as a file or folder; in `beside`, its `tokenizer` folder and the same in
    its parents (two levels: a step folder's parent holds the run); `path_or_name` on the hub or in its cache.

    Raises:
        DataError: there is none; it names every place that was looked at.
    """
    try:
        return _load(path_or_name, beside)
    except PermissionError as error:
        raise DataError(f"the tokenizer at {error.filename} cannot be read: {error.strerror}") from error


def open_tokenizer(path: str | Path) -> Tokenizer:
    """Open the tokenizer of a folder, a file, a hub name, or of a checkpoint (as its config.yaml says, or beside it).

    Raises:
        DataError: there is none; it lists the places that were looked at.
    """
    folder = Path(path)
    try:
        is_checkpoint = (folder / "config.yaml").is_file() or (folder / "latest.txt").is_file()
    except PermissionError as error:
        raise DataError(f"the tokenizer's folder {path} cannot be read: {error.strerror}") from error
    if not is_checkpoint:
        return load_tokenizer(path, beside=folder if folder.is_dir() else None)
    from infini_eval.checkpoint.config_yaml import read_config
    from infini_eval.checkpoint.layout import find_step_folder

    step = find_step_folder(folder)
    return load_tokenizer(read_config(step)[0].tokenizer, beside=step)


def _load(path_or_name: str | Path | None, beside: str | Path | None) -> Tokenizer:
    looked: list[str] = []
    folders = [Path(path_or_name)] if path_or_name else []
    if beside is not None:
        near = Path(beside).resolve()
        folders += [place / part for place in (near, near.parent, near.parent.parent) for part in ("", "tokenizer")]
    for folder in folders:
        file = folder if folder.is_file() else folder / "tokenizer.json"
        looked.append(str(file))
        if file.is_file():
            return _read(file, name=str(path_or_name or folder))
    slow = [str(folder / name) for folder in folders for name in SLOW_FILES if (folder / name).is_file()]
    if slow:
        raise DataError(
            f"only a slow tokenizer was found: {slow[0]}",
            valid="a fast tokenizer, that is a tokenizer.json",
            next_step="convert it once: AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER)",
        )
    if path_or_name and _looks_like_hub_name(str(path_or_name)):
        return _from_hub(str(path_or_name), looked)
    raise _not_found(path_or_name, looked, "")


def _read(file: Path, name: str) -> Tokenizer:
    settings: dict[str, Any] = {}
    try:
        for extra in ("special_tokens_map.json", "tokenizer_config.json"):  # the second one wins
            if (file.parent / extra).is_file():
                settings |= json.loads((file.parent / extra).read_text(encoding="utf-8"))
        template = file.parent / "chat_template.jinja"
        if template.is_file():
            settings["chat_template"] = template.read_text(encoding="utf-8")
        return Tokenizer(file.read_text(encoding="utf-8"), name=name, settings=settings)
    except DataError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for any malformed file
        raise DataError(
            f"{file} is not a usable fast tokenizer: {error}",
            valid="a tokenizer.json written by Hugging Face tokenizers",
        ) from error


def _looks_like_hub_name(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and not name.endswith(".json")


def _from_hub(name: str, looked: list[str]) -> Tokenizer:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        file = Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError, HfHubHTTPError, EntryNotFoundError, LocalEntryNotFoundError) as error:
        raise _not_found(name, [*looked, f"the hub and its cache ({name})"], f": {_first_line(error)}") from error
    for extra in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            hf_hub_download(name, extra)
        except (OSError, ValueError, HfHubHTTPError):
            continue  # these files are optional; tokenizer.json alone decides the ids
    return _read(file, name=name)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _not_found(name: str | Path | None, looked: list[str], reason: str) -> DataError:
    return DataError(
        f"no tokenizer found{f' for {str(name)!r}' if name else ''}{reason}",
        valid="a folder with tokenizer.json, such a file, or a hub name; looked at: "
        + ", ".join(looked or ["nothing"]),
        next_step="pass --tokenizer FOLDER, or put tokenizer.json and tokenizer_config.json beside the checkpoint",
    )
