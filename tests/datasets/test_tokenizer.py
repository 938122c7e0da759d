"""The tokenizer wrapper: same ids as Hugging Face, long texts in windows, look-up order and clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infini_eval.datasets import english, sync
from infini_eval.datasets.needle_position import token_span
from infini_eval.datasets.tokenizer import Tokenizer, load_tokenizer
from infini_eval.errors import DataError

TEXT = "The grass is green — naïve, 12345!\n\n  Two  spaces and a tab\t. What is it? It is "


def save(tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.fast.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer.settings))
    return folder


def same(one: Tokenizer, other: Tokenizer) -> bool:
    return one.encode(TEXT).tolist() == other.encode(TEXT).tolist() and one.vocab_size == other.vocab_size


def test_ids_are_those_of_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = save(tokenizer, tmp_path / "t")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    ours = load_tokenizer(folder)
    assert ours.encode(TEXT).tolist() == theirs(TEXT)["input_ids"]
    assert ours.encode(TEXT, add_special_tokens=False).tolist() == theirs(TEXT, add_special_tokens=False)["input_ids"]
    assert ours.decode(ours.encode(TEXT)) == theirs.decode(theirs(TEXT)["input_ids"], skip_special_tokens=True)
    if tokenizer.name != "wordpiece":  # it has no token named <s>, which transformers then adds
        assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
        assert ours.vocab_size == len(theirs)


def test_windows_give_the_ids_of_the_whole(any_tokenizer: Tokenizer) -> None:
    text = english.text(3, 0, 700)
    ids, offsets = any_tokenizer.encode_window(text)
    in_windows = sync.encode_in_windows(any_tokenizer.encode_window, text, window=9_000)
    assert np.array_equal(in_windows[0], ids)
    assert np.array_equal(in_windows[1], offsets)
    parts = (text[i : i + 777] for i in range(0, len(text), 777))
    streamed = np.concatenate(list(sync.encode_stream(any_tokenizer.encode_window, parts, window=5_000, overlap=1_500)))
    assert np.array_equal(streamed, ids)


def test_a_span_without_offsets(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text = english.text(3, 0, 200)
    ids, offsets = tokenizer.encode_with_offsets(text)
    for span in ((0, 9), (5_000, 5_060), (9_990, 10_010)):
        assert tokenizer.encode_with_span(text, span)[1] == token_span(span, offsets)
    found, nothing = tokenizer.encode_with_span(text, None)
    assert np.array_equal(found, ids) and nothing is None
    monkeypatch.setattr("infini_eval.datasets.sync.windows.__kwdefaults__", {"window": 6_000})
    assert tokenizer.encode_with_span(text, (9_990, 10_010))[1] == token_span((9_990, 10_010), offsets)


def test_measures_of_a_text(any_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    text, spans, places = english.text(3, 0, 200), ((0, 9), (5_000, 5_060), (5_990, 6_010)), [0, 17, 6_000]
    ids, offsets = any_tokenizer.encode_with_offsets(text)
    own = offsets[len(any_tokenizer.special_prefix) : len(ids) - len(any_tokenizer.special_suffix)]
    expected = (
        len(ids),
        tuple(token_span(span, offsets) for span in spans),
        [int((own[:, 0] < place).sum()) for place in places],
    )
    assert any_tokenizer.measure(text, spans, places) == expected
    monkeypatch.setattr("infini_eval.datasets.sync.windows.__kwdefaults__", {"window": 6_000})
    assert any_tokenizer.measure(text, spans, places) == expected
    with pytest.raises(ValueError, match="no token overlaps"):
        any_tokenizer.measure("a b", ((9, 12),))


def test_chunks_carry_the_special_tokens(tokenizer: Tokenizer) -> None:
    assert np.array_equal(np.concatenate(list(tokenizer.encode_chunks([TEXT[:9], TEXT[9:]]))), tokenizer.encode(TEXT))


def test_a_text_that_cannot_be_windowed_is_an_error(bpe: Tokenizer) -> None:
    with pytest.raises(DataError, match="does not agree with itself"):
        sync.encode_in_windows(
            lambda text: (np.arange(9, dtype=np.int32), np.zeros((9, 2), np.int64)), "x" * 9_000, window=5_000
        )


def test_lookup_order(tokenizer_maker, tmp_path: Path) -> None:
    run, step = tmp_path / "run", tmp_path / "run" / "100"
    step.mkdir(parents=True)
    save(tokenizer_maker("unigram"), run / "tokenizer")
    assert same(load_tokenizer(None, beside=step), tokenizer_maker("unigram"))
    save(tokenizer_maker("wordpiece"), step)
    assert same(load_tokenizer("owner/not-here", beside=step), tokenizer_maker("wordpiece"))
    file = save(tokenizer_maker("byte_bpe"), tmp_path / "mine") / "tokenizer.json"
    assert same(load_tokenizer(file, beside=step), tokenizer_maker("byte_bpe"))
    assert load_tokenizer(file).fingerprint == load_tokenizer(file.parent).fingerprint


def test_clear_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="no tokenizer found") as missing:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(missing.value)
    with pytest.raises(DataError, match="owner/nowhere"):
        load_tokenizer("owner/nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match="slow tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match="not a usable fast tokenizer"):
        load_tokenizer(tmp_path)
