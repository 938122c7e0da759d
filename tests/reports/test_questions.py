"""The report of judged answers: pass@1 and interval, groups, agreement, protocols kept apart, verdicts side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infini_eval.cli.main import main
from infini_eval.errors import DataError
from infini_eval.records import RunManifest
from infini_eval.reports.any_run import analyze_any
from infini_eval.reports.question_compare import compare_questions
from infini_eval.reports.questions import analyze_questions, one_protocol
from infini_eval.reports.statistics.intervals import wilson
from infini_eval.reports.statistics.judged import Answer, agreement, band, band_width, pass_at_1
from infini_eval.results.generations import Generation
from infini_eval.results.manifest import write_manifest


def answers_file(path: Path, texts: dict[tuple[str, int], str], **head: Any) -> Path:
    """A file of answers by (question, repeat); categories and lengths follow the question's number."""
    rows = [
        {
            "key": f"{question}/{repeat}", "question_id": question, "repeat": repeat, "question": f"Q{question}?",
            "answer": "a", "text": text, "category": ("Legal", "Academia")[int(question) % 2],
            "document_set": f"set{int(question) // 2}", "input_tokens": 70_000 + 10_000 * int(question),
        }
        for (question, repeat), text in texts.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"model": "tiny", "fingerprint": "f", "generations": rows} | head))
    return path


def add_judge(source: Path, name: str, verdicts: dict[tuple[str, int], Any], protocol: str = "v1.0") -> None:
    """A judge's folder with these verdicts: True, False or the words of an unreadable reply."""
    folder = source.with_suffix(".judges") / name
    (folder / "samples").mkdir(parents=True)
    identity = {"task": "aa_lcr_judge", "data_settings": {"protocol": protocol, "grading_notes": None}}
    write_manifest(folder, RunManifest(identity, {"name": f"model of {name}"}, {}, len(verdicts)))
    texts = {(row["question_id"], row["repeat"]): row["text"] for row in json.loads(source.read_text())["generations"]}
    with (folder / "samples" / "replica-00000.jsonl").open("w") as file:
        for (question, repeat), verdict in verdicts.items():
            key = f"{question}/{repeat}"
            one = Generation(key, question, repeat, "", "", texts[question, repeat])
            known = isinstance(verdict, bool)
            record = {
                "sample_key": f"{name}/{key}", "generation_key": key, "candidate_sha256": one.text_sha256,
                "status": "ok", "error": None, "correct": float(verdict) if known else None,
                "generation_text": ("CORRECT" if verdict else "INCORRECT") if known else verdict,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


TEXTS = {(str(q), r): f"answer {q}.{r}" for q in range(1, 5) for r in (1, 2)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = TEXTS | {("4", 2): "  "}
    path = answers_file(tmp_path / "a.json", texts)
    verdicts: dict[tuple[str, int], Any] = {key: key[0] in "12" for key in TEXTS if key != ("4", 2)}
    add_judge(path, "strict", verdicts | {("3", 1): "Well, <b>CORRECT</b> perhaps"})
    return path


def test_pass_at_1_is_the_mean_over_questions_of_their_repeats(source: Path) -> None:
    judge = analyze_questions(source).summary["judges"][0]
    assert judge["counts"] | {"pending": 0} == {
        "right": 4, "wrong": 2, "empty": 1, "unparsed": 1, "judge failed": 0, "pending": 0, "failed": 0
    }  # fmt: skip
    assert judge["accuracy"] == 50
    assert (judge["correct"], judge["n"], judge["questions"]) == (4, 7, 4)
    assert (judge["bounds"]["low"], judge["bounds"]["high"]) == (50, 62.5)
    assert [row["accuracy"] for row in judge["per_repeat"]] == [pytest.approx(200 / 3), 50]


def test_every_repeat_of_a_question_counts() -> None:
    answers = [Answer("1", None, value) for value in (1.0, 0.0)] + [Answer("2", None, value) for value in (1.0, 1.0)]
    found = pass_at_1([*answers, Answer("2", None, None)])
    assert found is not None
    assert found.value == 0.75


def test_repeats_do_not_narrow_the_interval() -> None:
    once = [Answer(str(q), None, float(q < 3)) for q in range(10)]
    found, repeated = pass_at_1(once), pass_at_1(once * 5)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(wilson(3, 10))
    assert repeated == found


def test_questions_on_the_same_documents_widen_the_interval() -> None:
    answers = [Answer(str(q), f"set{q // 10}", float(q // 10 % 2)) for q in range(100)]
    together, alone = pass_at_1(answers), pass_at_1([Answer(one.question, None, one.value) for one in answers])
    assert together is not None
    assert alone is not None
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert "10 document sets" in together.method


def test_nothing_judged_has_no_accuracy() -> None:
    assert pass_at_1([Answer("1", None, None)]) is None


def test_by_category_and_by_length_band(source: Path) -> None:
    judge = analyze_questions(source).summary["judges"][0]
    assert [(row["name"], row["accuracy"], row["n"]) for row in judge["by_category"]] == [
        ("Academia", 50, 3), ("Legal", 50, 4)
    ]  # fmt: skip
    assert [row["name"] for row in judge["by_length"]] == ["80k to 90k", "90k to 100k", "100k to 110k", "110k to 120k"]


@pytest.mark.parametrize(
    ("tokens", "width", "name"),
    [
        ([72_000, 115_000], 10_000, "70k to 80k"),
        ([10, 400], 500, "0 to 500"),
        ([5_000_000, 50_000_000], 50_000_000, "0 to 50000k"),
    ],
)
def test_bands_are_few_and_round(tokens: list[int], width: int, name: str) -> None:
    assert band_width(tokens) == width
    assert band(tokens[0], width) == name


def test_agreement_counts_what_both_judged() -> None:
    a = {"1": True, "2": True, "3": False, "4": None, "5": False}
    found = agreement(a, {"1": True, "2": False, "3": False, "4": True})
    assert (found.n, found.same, found.both_right, found.only_a, found.only_b) == (3, 2, 1, 1, 0)
    assert found.kappa == pytest.approx(0.4)
    assert agreement(a, {}).share is None
    assert agreement({"1": True}, {"1": True}).kappa is None


def test_two_judges_side_by_side(source: Path) -> None:
    add_judge(source, "mild", {key: True for key in TEXTS if key != ("4", 2)})
    run = analyze_questions(source)
    found = run.summary["agreement"][0]
    assert (found["a"], found["b"], found["n"], found["same"], found["only_a"]) == ("mild", "strict", 6, 4, 2)
    row = next(row for row in run.summary["wrong"] if row["question_id"] == "4" and row["repeat"] == 1)
    assert [(one["judge"], one["state"], one["raw"]) for one in row["verdicts"]] == [
        ("mild", "right", "CORRECT"), ("strict", "wrong", "INCORRECT")
    ]  # fmt: skip
    assert "mild: right (CORRECT)" in run.text


def test_the_page_escapes_what_models_say(source: Path, tmp_path: Path) -> None:
    page = analyze_questions(source).write_page(tmp_path)[0].read_text()
    assert "&lt;b&gt;CORRECT&lt;/b&gt;" in page
    assert "<b>CORRECT" not in page
    assert "http" not in page.replace('http-equiv="', "")


def test_verdicts_on_other_words_do_not_count(source: Path) -> None:
    whole = json.loads(source.read_text())
    for row in whole["generations"]:
        row["text"] = row["text"] and "changed"
    source.write_text(json.dumps(whole))
    assert analyze_questions(source).summary["judges"][0]["counts"]["pending"] == 8


def test_protocols_never_stand_in_one_table(source: Path, tmp_path: Path) -> None:
    add_judge(source, "new", dict.fromkeys([("1", 1), ("2", 1)], True), protocol="v1.1")
    run = analyze_questions(source)
    assert run.summary["agreement"] == [], "judges of two protocols are not compared"
    assert "not comparable" in run.text
    with pytest.raises(DataError, match="cannot stand in one table"):
        one_protocol(run.judges)


def test_runs_of_two_protocols_are_not_compared(source: Path, tmp_path: Path) -> None:
    other = answers_file(tmp_path / "b.json", TEXTS)
    add_judge(other, "new", {("1", 1): True}, protocol="v1.1")
    with pytest.raises(DataError, match="cannot stand in one table"):
        compare_questions([source, other])


def test_runs_are_compared_on_their_common_questions(source: Path, tmp_path: Path, capsys) -> None:
    other = answers_file(tmp_path / "b.json", TEXTS)
    add_judge(other, "strict", dict.fromkeys(TEXTS, True))
    assert main(["compare", str(source), str(other)]) == 0
    out = capsys.readouterr().out
    assert "JUDGE strict, protocol v1.0" in out
    assert "B - A: +50.0 points" in out


@pytest.mark.parametrize("head", [{"settings": {"prompt": "reasoning"}}, {"settings": {"revision": "v1.1"}}])
def test_runs_on_other_prompts_or_data_are_not_compared(source: Path, tmp_path: Path, head: dict[str, Any]) -> None:
    other = answers_file(tmp_path / "b.json", TEXTS, **head)
    with pytest.raises(DataError, match="the runs differ in their"):
        compare_questions([source, other])


def test_failed_answers_count_only_when_asked(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.json", {("1", 1): "x", ("2", 1): ""})
    whole = json.loads(path.read_text())
    whole["generations"][1] |= {"status": "failed", "error": "too long"}
    path.write_text(json.dumps(whole))
    add_judge(path, "strict", {("1", 1): True})
    usual, counted = (analyze_questions(path, failed_as_wrong=value).summary["judges"][0] for value in (False, True))
    assert (usual["accuracy"], usual["n"]) == (100, 1)
    assert (counted["accuracy"], counted["n"]) == (50, 2)


def test_a_judges_own_folder_points_to_the_run(source: Path) -> None:
    with pytest.raises(DataError, match="holds a judge's verdicts"):
        analyze_any(source.with_suffix(".judges") / "strict")


def test_unfinished_runs_say_so(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.json", {("1", 1): "x"}, planned=5)
    assert "INCOMPLETE: 1 of 5 planned answers" in analyze_questions(path).text
