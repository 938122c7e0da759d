"""Haystacks: counts at cuts are the tokenizer's own, sources of every kind, too little text is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.data import english, haystack
from infini_eval.data.haystack import build_haystack
from infini_eval.data.sources import FILLER, Source
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import DataError


def test_counts_at_cuts_are_those_of_the_running_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haystack, "BLOCK_CHARS", 3_000)
    made = build_haystack(english.blocks(1), tokenizer, 8_000, name="english")
    _, offsets = tokenizer.encode_window(made.text)
    for i in range(0, len(made.cut_chars), 97):
        assert int((offsets[:, 1] <= made.cut_chars[i]).sum()) - made.cut_tokens[i] == _shift(made, offsets)
    assert made.tokens >= 8_000
    assert (np.diff(made.cut_tokens) > 0).all() and (np.diff(made.cut_chars) > 0).all()


def _shift(made: haystack.Haystack, offsets: np.ndarray) -> int:
    """A tokenizer's start marker counts at the first cut already."""
    return int((offsets[:, 1] <= made.cut_chars[0]).sum() - made.cut_tokens[0])


def test_cuts_part_words(bpe: Tokenizer) -> None:
    made = build_haystack(english.blocks(1), bpe, 2_000, name="english")
    for i in map(int, made.words[::41]):
        assert made.text[made.cut_chars[i] - 1].isalnum() and made.text[made.cut_chars[i]] == " "
        assert made.cut_exactly(int(made.cut_tokens[i])) == i == made.cut_at(made.cut_tokens[i])
    for i in map(int, made.sentences):
        assert made.text[made.cut_chars[i] - 1] in ".!?" and made.text[made.cut_chars[i] + 1].isalnum()
        assert made.cut_exactly(int(made.cut_tokens[i])) is None
        assert made.cut_at(float(made.cut_tokens[i]), made.sentences) == i


def test_numbers_between_cuts(bpe: Tokenizer) -> None:
    made = build_haystack(["one 12 two 345 three x67 four 89 five six"], bpe, 10, name="text")
    assert made.numbers_between(0, len(made.cut_chars) - 1) == {"12", "345", "89"}


def test_too_little_text(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The grass is green and the sky is blue. " * 20)
    parts = Source(str(tmp_path)).parts
    with pytest.raises(DataError, match=r"too short: it has [\d,]+ tokens, a prompt needs 5,000"):
        build_haystack(parts(), bpe, 5_000, name="a")
    made = build_haystack(parts(), bpe, 5_000, name="a", allow_repeat=True)
    assert made.tokens >= 5_000 and 0 < made.unique_fraction(5_000) < 0.1
    with pytest.raises(DataError, match="no two words"):
        build_haystack(["..."], bpe, 5, name="dots")


def test_folder_of_every_kind(bpe: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("alpha beta gamma")
    (tmp_path / "b.md").write_text("delta epsilon zeta")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ("eta theta", "iota kappa")))
    pq.write_table(pa.table({"text": ["lambda mu", None, "nu xi"]}), tmp_path / "d.parquet")
    (tmp_path / "e.csv").write_text("not read")
    text = "".join(Source(str(tmp_path), seed=1).parts())
    assert all(word in text for word in ("gamma", "zeta", "theta", "kappa", "mu", "xi")) and "not read" not in text
    assert text == "".join(Source(str(tmp_path), seed=1).parts())
    assert text != "".join(Source(str(tmp_path), seed=4).parts())


def test_unusable_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no haystack 'nowhere'"):
        Source("nowhere").parts()
    with pytest.raises(DataError, match="holds no text"):
        list(Source(str(tmp_path)).parts())
    (tmp_path / "a.jsonl").write_text('{"body": "x"}')
    with pytest.raises(DataError, match=r"a\.jsonl, line 1 has no column text; it holds: body"):
        list(Source(str(tmp_path)).parts())
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        list(Source(str(tmp_path)).parts())


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = PermissionError(13, "Permission denied", str(tmp_path / "closed"))

    def walk(top: Path, onerror: Callable[[OSError], None]) -> Iterator[Any]:
        onerror(closed)
        yield from ()

    with monkeypatch.context() as patched:
        patched.setattr("os.walk", walk)
        with pytest.raises(DataError, match="closed cannot be read: Permission denied"):
            list(Source(str(tmp_path)).parts())
    with monkeypatch.context() as patched:

        def refuse(_: Path) -> bool:
            raise closed

        patched.setattr(Path, "exists", refuse)
        with pytest.raises(DataError, match="closed cannot be read: Permission denied"):
            Source(str(tmp_path / "closed" / "deep")).parts()


def test_built_in_sources(bpe: Tokenizer) -> None:
    filler = build_haystack(Source("filler").parts(), bpe, 3_000, name="filler", repeats=True)
    assert filler.text.startswith(FILLER * 3) and filler.unique_fraction(10**6) == 1.0 and filler.repeats
    docs = build_haystack(Source("python-docs").parts(), bpe, 200_000, name="python-docs")
    assert docs.tokens >= 200_000
