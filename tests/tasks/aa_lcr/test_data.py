"""Reading AA-LCR: names, order, damage, paths that lead out, web addresses; a prompt is whole or it is not asked."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest

from infini_eval.errors import ConfigError, DataError
from infini_eval.tasks.aa_lcr.data import OPTIONS, find_source, load_aa_lcr, metrics_of
from infini_eval.tasks.aa_lcr.documents import Archive, DocumentMissing, WebTextError, fetch_text, html_text, real_name
from infini_eval.tasks.aa_lcr.protocols import PROTOCOLS, known_revision
from support.tiny_aa_lcr import ACCENTED, MEMBER_NAMES, MOJIBAKE, ROWS, break_member, write_tiny_aa_lcr

ZIP = "extracted_text/AA-LCR_extracted-text.zip"


def load(folder: Path, fetch=fetch_text, commit: str | None = None, **options: str):
    return load_aa_lcr(folder, {**OPTIONS, **options}, source="mini", commit=commit, fetch=fetch)


def no_web(url: str) -> str:
    raise WebTextError("status 403")


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    return write_tiny_aa_lcr(tmp_path / "mini")


def test_the_official_prompt_character_by_character(mini: Path) -> None:
    samples = {sample.id: sample for sample in load(mini).samples}
    assert samples["2"].prompt == (
        "BEGIN INPUT DOCUMENTS\n\nBEGIN DOCUMENT 1:\nOslo handled 5 ships.\nEND DOCUMENT 1\n\n"
        "BEGIN DOCUMENT 2:\nBergen handled 3 ships.\nEND DOCUMENT 2\n\nEND INPUT DOCUMENTS\n\n"
        "Answer the following question using the input documents provided above.\n\n"
        "START QUESTION\n\nHow many ships together?\n\nEND QUESTION\n"
    )
    assert samples["4"].answer == "250"
    assert "{250} euro" in samples["4"].prompt


def test_documents_stand_in_the_order_of_the_csv(mini: Path) -> None:
    prompt = load(mini).samples[0].prompt
    assert prompt.index("Bergen") < prompt.index("Oslo")


def test_mojibake_and_decomposed_names_are_found(mini: Path) -> None:
    assert MOJIBAKE != ACCENTED
    assert real_name(MOJIBAKE) == real_name(ACCENTED) == ACCENTED
    prompt = next(sample.prompt for sample in load(mini).samples if sample.id == "3")
    assert [prompt.index(text) for text in ("Éva and", "Soup.", "Nothing")] == sorted(
        prompt.index(text) for text in ("Éva and", "Soup.", "Nothing")
    )


def test_members_without_the_utf8_flag_are_found(tmp_path: Path) -> None:
    folder = write_tiny_aa_lcr(tmp_path / "mini", leave_out=[ACCENTED])
    info = zipfile.ZipInfo("lcr/Academia/papers_7/" + "x" * len(ACCENTED.encode()))
    buffer = io.BytesIO((folder / ZIP).read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, "Éva wrote it.")
    data = buffer.getvalue().replace(b"x" * len(ACCENTED.encode()), ACCENTED.encode())
    (folder / ZIP).write_bytes(data)
    assert Archive(folder).read("Academia", "papers_7", ACCENTED) == "Éva wrote it."


def test_an_unpacked_copy_gives_the_same_samples_and_fingerprint(mini: Path, tmp_path: Path) -> None:
    packed = load(mini)
    with zipfile.ZipFile(mini / ZIP) as archive:
        archive.extractall(mini / "extracted_text")
    (mini / ZIP).unlink()
    unpacked = load(mini)
    assert [s.key for s in packed.samples] == [s.key for s in unpacked.samples]
    assert packed.fingerprint == unpacked.fingerprint


def test_a_broken_member_is_named_with_its_question_and_nothing_is_shortened(mini: Path) -> None:
    break_member(mini / ZIP, "a first.txt")
    with pytest.raises(DataError) as caught:
        load(mini)
    assert "2 document(s) of 2 question(s)" in caught.value.problem
    assert "question 1, document 2 of 2 'a first.txt': damaged" in caught.value.problem
    assert "urls=yes" in (caught.value.next_step or "")


def test_skip_leaves_whole_questions_out_and_says_so(tmp_path: Path) -> None:
    folder = write_tiny_aa_lcr(tmp_path / "mini", leave_out=["plain.txt"])
    data = load(folder, missing="skip")
    assert [sample.id for sample in data.samples] == ["1", "2", "4"]
    assert data.settings["left_out"] == ["3"]
    assert any("question 3, document 3 of 3" in note for note in data.notes)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x00", "not UTF-8"), (b"  \n", "empty")], ids=["bytes", "empty"]
)
def test_documents_that_are_no_text_are_refused(mini: Path, content: bytes, reason: str) -> None:
    with zipfile.ZipFile(mini / ZIP, "a") as archive:
        archive.writestr("lcr/Legal/acts_2/odd.txt", content)
    with pytest.raises(DocumentMissing, match=reason):
        Archive(mini).read("Legal", "acts_2", "odd.txt")


def test_two_members_of_one_name_are_not_guessed_between(mini: Path) -> None:
    with zipfile.ZipFile(mini / ZIP, "a") as archive:
        archive.writestr(f"lcr/Academia/papers_7/{ACCENTED}", "another text")
    with pytest.raises(DocumentMissing, match="2 documents have this name"):
        Archive(mini).read("Academia", "papers_7", ACCENTED)


@pytest.mark.parametrize(
    "name", ["../lcr/a/b/c.txt", "/lcr/a/b/c.txt", "lcr/a/../../../etc/passwd", "C:/lcr/a/b/c.txt"]
)
def test_members_that_lead_out_are_passed_over_and_noted(mini: Path, name: str) -> None:
    with zipfile.ZipFile(mini / ZIP, "a") as archive:
        archive.writestr(name, "secret")
    archive = Archive(mini)
    assert any("lead out" in note for note in archive.notes)
    assert load(mini).samples
    with pytest.raises(DocumentMissing):
        archive.read("a", "b", "c.txt")


def test_links_out_of_an_unpacked_folder_are_not_followed(mini: Path, tmp_path: Path) -> None:
    (mini / ZIP).unlink()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    place = mini / "extracted_text/lcr/Legal/acts_2"
    place.mkdir(parents=True)
    (place / "act.txt").symlink_to(secret)
    with pytest.raises(DocumentMissing):
        Archive(mini).read("Legal", "acts_2", "act.txt")


def test_names_in_the_csv_cannot_lead_out(mini: Path) -> None:
    with pytest.raises(DocumentMissing):
        Archive(mini).read("..", "..", "AA-LCR_Dataset.csv")


def test_web_addresses_are_a_fallback_and_a_deviation(tmp_path: Path) -> None:
    folder = write_tiny_aa_lcr(tmp_path / "mini", leave_out=["a first.txt"])
    asked: list[str] = []

    def fetch(url: str) -> str:
        asked.append(url)
        return "Oslo from the web."

    data = load(folder, fetch, urls="yes", missing="skip")
    assert asked == ["http://example.org/a"]
    assert "Oslo from the web." in data.samples[0].prompt
    assert data.settings["documents_from_urls"] == 1
    assert "2" not in {sample.id for sample in data.samples}, "its row lists no addresses"


def test_failing_addresses_are_listed_one_by_one(tmp_path: Path) -> None:
    folder = write_tiny_aa_lcr(tmp_path / "mini", leave_out=["a first.txt", "b second.txt"])
    with pytest.raises(DataError) as caught:
        load(folder, no_web, urls="yes")
    assert caught.value.problem.count("status 403") == 2
    assert "0 addresses for 2 documents" in caught.value.problem


def test_without_the_option_nothing_is_fetched(tmp_path: Path) -> None:
    folder = write_tiny_aa_lcr(tmp_path / "mini", leave_out=["act.txt"])
    with pytest.raises(DataError, match="not among the documents"):
        load(folder, lambda url: pytest.fail("fetched"))


def test_only_web_addresses_are_fetched() -> None:
    with pytest.raises(WebTextError, match="not an http"):
        fetch_text("file:///etc/hostname")


def test_html_is_read_without_tags_and_scripts() -> None:
    page = "<html><head><title>t</title></head><body><p>One &amp; two</p><script>x()</script><p>three</p></body></html>"
    assert html_text(page) == "One & two\nthree"


def test_repeats_are_samples_of_their_own_and_come_after_each_other(mini: Path) -> None:
    once, thrice = load(mini), load(mini, repeats="3")
    assert len({sample.key for sample in thrice.samples}) == 3 * len(ROWS)
    assert [s.key for s in thrice.samples[: len(ROWS)]] == [s.key for s in once.samples], "raising repeats goes on"
    assert once.settings == thrice.settings


def test_the_reasoning_prompt_is_the_official_one_and_more(mini: Path) -> None:
    official, reasoning = load(mini), load(mini, prompt="reasoning")
    assert reasoning.samples[0].prompt.startswith(official.samples[0].prompt)
    assert "Final answer:" in reasoning.samples[0].prompt
    assert reasoning.settings["prompt"] == "reasoning"


@pytest.mark.parametrize("wrong", [{"prompt": "mine"}, {"repeats": "0"}, {"workers": "x"}, {"missing": "maybe"}])
def test_unknown_option_values_are_errors(mini: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        load(mini, **wrong)


def test_a_csv_without_a_column_lists_what_it_has(mini: Path) -> None:
    path = mini / "AA-LCR_Dataset.csv"
    rows = list(csv.reader(path.open(encoding="utf-8")))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([row[:5] + row[6:] for row in rows])
    with pytest.raises(DataError, match=r"no column answer; its columns: .*question_id"):
        load(mini)


def test_revisions_are_known_by_commit_or_csv(mini: Path) -> None:
    assert load(mini).settings["revision"] == "unknown"
    assert load(mini, commit=PROTOCOLS["v1.1"].revision).settings["revision"] == "v1.1"
    assert known_revision(PROTOCOLS["v1.0"].csv_sha256 or "", None) == "v1.0"


def test_a_snapshot_says_its_commit_and_its_links_to_blobs_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--ArtificialAnalysis--AA-LCR"
    snapshot = write_tiny_aa_lcr(repository / "snapshots" / PROTOCOLS["v1.0"].revision)
    blob = repository / "blobs" / "abc"
    blob.parent.mkdir()
    (snapshot / ZIP).rename(blob)
    (snapshot / ZIP).symlink_to(blob)
    source = find_source(str(snapshot))
    assert source.commit == PROTOCOLS["v1.0"].revision
    assert load(source.path, commit=source.commit).settings["revision"] == "v1.0"


def test_a_hub_id_offline_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="cannot be had") as caught:
        find_source("ArtificialAnalysis/AA-LCR-that-is-not-cached")
    assert "hf download" in (caught.value.next_step or "")


def test_a_local_folder_of_the_hub_ids_name_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_tiny_aa_lcr(tmp_path / "AA-LCR", names=MEMBER_NAMES)
    monkeypatch.chdir(tmp_path)
    source = find_source("ArtificialAnalysis/AA-LCR")
    assert source.path == Path("AA-LCR")
    assert "instead of the hub" in source.notes[0]


def test_unknown_metrics_are_refused():
    with pytest.raises(ConfigError, match="speed is not known"):
        metrics_of("perplexity, speed")
    assert metrics_of("steps,perplexity,steps") == ("steps", "perplexity")
    assert metrics_of("") == ()
