"""The hub, without a network: haystacks streamed from it, data sets fetched from it, generated data pushed to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infini_eval.cli.main import main
from infini_eval.data import english
from infini_eval.data.haystack import build_haystack
from infini_eval.data.reading import load_samples
from infini_eval.data.sources import Source
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import DataError

TOKENIZER = str(Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo" / "tokenizer")
SHORT = ("--tokenizer_path", TOKENIZER, "--context_length", "512", "--depths", "0,50", "--num_prompts", "2", "--quiet")


class FakeHub:
    """Stands in for `datasets.load_dataset`: endless rows, and a count of those that were read."""

    def __init__(self, column: str = "text", breaks_after: int | None = None) -> None:
        self.column, self.breaks_after = column, breaks_after
        self.read = 0
        self.asked: list[tuple[Any, ...]] = []

    def __call__(
        self, name: str, configuration: str | None, *, split: str, streaming: bool
    ) -> Iterator[dict[str, Any]]:
        self.asked.append((name, configuration, split, streaming))
        return self._rows()

    def _rows(self) -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            if self.read == self.breaks_after:
                raise ConnectionError("the line went dead")
            self.read += 1
            yield {self.column: " ".join(english.sentences(3, 50 * number, 50)), "id": number}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr("datasets.load_dataset", fake)
    return fake


def test_a_haystack_is_streamed_no_further_than_needed(bpe: Tokenizer, hub: FakeHub) -> None:
    made = build_haystack(Source("hub:owner/books").parts(), bpe, 20_000, name="hub:owner/books")
    assert made.tokens >= 20_000 and hub.asked == [("owner/books", None, "train", True)]
    assert 10 < hub.read < 120


def test_a_configuration_is_passed_on(hub: FakeHub) -> None:
    next(Source("hub:owner/wiki:2023.en").parts())
    assert hub.asked == [("owner/wiki", "2023.en", "train", True)]


def test_a_prompt_from_the_hub(tmp_path: Path, hub: FakeHub) -> None:
    assert main(["generate", *SHORT, "--haystack_dir", "hub:owner/books", "--save_path", str(tmp_path)]) == 0
    assert {sample.columns["haystack"] for sample in load_samples(tmp_path).samples} == {"hub:owner/books"}


def test_a_hub_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", FakeHub(column="body"))
    with pytest.raises(DataError, match="has no column text; its columns: body, id"):
        next(Source("hub:owner/books").parts())
    monkeypatch.setattr("datasets.load_dataset", FakeHub(breaks_after=3))
    with pytest.raises(DataError, match="cannot be had: the line went dead"):
        list(Source("hub:owner/books").parts())


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["generate", *SHORT, "--haystack_dir", "hub:owner/none", "--save_path", str(tmp_path)]) == 2
    assert "owner/none cannot be had" in capsys.readouterr().err
    assert main(["generate", *SHORT, "--haystack_dir", "owner/none", "--save_path", str(tmp_path)]) == 2
    assert "pass --haystack_dir hub:owner/none if" in capsys.readouterr().err


class FakeApi:
    """Stands in for `huggingface_hub.HfApi`: writes down what is uploaded."""

    calls: list[tuple[str, str, str]]
    refuses = False

    def create_repo(self, repo_id: str, *, repo_type: str, exist_ok: bool) -> None:
        if self.refuses:
            raise OSError("401 Client Error: you are not who you should be\nmore")
        assert repo_type == "dataset" and exist_ok

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, path_in_repo: str) -> None:
        assert repo_type == "dataset" and (folder_path / "state.json").is_file()
        self.calls.append(("folder", repo_id, path_in_repo))

    def upload_file(self, *, repo_id: str, repo_type: str, path_or_fileobj: Path, path_in_repo: str) -> None:
        assert repo_type == "dataset" and path_or_fileobj.is_file()
        self.calls.append(("file", repo_id, path_in_repo))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    monkeypatch.setattr(FakeApi, "calls", [], raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    return FakeApi


def test_push(tmp_path: Path, api: type[FakeApi]) -> None:
    push = ("--is_push_to_hub", "yes", "--hub-id", "me/keys")
    assert main(["generate", *SHORT, *push, "--save_path", str(tmp_path / "a")]) == 0
    assert api.calls == [("file", "me/keys", "data/train-00000-of-00001.parquet")]
    api.calls.clear()
    assert main(["generate", *SHORT, *push, "--format", "hf", "--save_path", str(tmp_path / "b")]) == 0
    names = [f"needle_eval_data_and_512_ctx_and_depth_{depth}_and_id_1_and_num_shots_0" for depth in (0, 50)]
    assert api.calls == [("folder", "me/keys", name) for name in names]


def test_a_push_that_is_refused(
    tmp_path: Path, api: type[FakeApi], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "refuses", True)
    push = ("--is_push_to_hub", "yes", "--hub-id", "me/keys")
    assert main(["generate", *SHORT, *push, "--save_path", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "upload to me/keys failed: 401 Client Error" in said and "more" not in said and "on disk" in said
    assert len(load_samples(tmp_path).samples) == 4
    assert main(["generate", *SHORT, *push[:2], "--save_path", str(tmp_path)]) == 2
    assert "--hub-id" in capsys.readouterr().err


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["generate", *SHORT, "--save_path", str(tmp_path / "snapshot" / "data")]) == 0
    asked: list[str] = []

    def download(name: str, **options: Any) -> str:
        asked.append(name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    data = load_samples("nanotron/some-passkey-eval", num_shots=0)
    assert asked == ["nanotron/some-passkey-eval"] and data.source == "hub:nanotron/some-passkey-eval"
    assert len(data.samples) == 4
