"""The report of judged answers: pass@1 and interval, groups, agreement, protocols kept apart, verdicts side by side."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from infini_eval.cli.main import main
from infini_eval.errors import DataError
from infini_eval.records import RunManifest
from infini_eval.reports.analyze import analyze_any
from infini_eval.reports.judged import analyze_questions, compare_questions, comparison_text, one_protocol, summarise
from infini_eval.reports.statistics.intervals import wilson
from infini_eval.reports.statistics.judged import Answer, agreement, band, band_width, pass_at_1
from infini_eval.results.manifest import write_manifest
from infini_eval.tasks.aa_lcr.answers import Generation, Generations, read_generations
from infini_eval.tasks.aa_lcr.verdicts import Judge
from support.judged import add_judge, answers_file


def add_judge_of_all(source: Path, name: str, rights: dict[str, bool]) -> None:
    """A judge's verdicts by question, on every answer that is read from `source`."""
    items = read_generations(source).items
    folder = source.with_suffix(".judges") / name
    (folder / "samples").mkdir(parents=True)
    identity = {"task": "aa_lcr_judge", "data_settings": {"protocol": "v1.0", "grading_notes": None}}
    write_manifest(folder, RunManifest(identity, {"name": f"model of {name}"}, {}, len(items)))
    with (folder / "samples" / "replica-00000.jsonl").open("w") as file:
        for one in items:
            record = {"sample_key": one.key, "generation_key": one.key, "candidate_sha256": one.text_sha256}
            record |= {"question_id": one.question_id, "repeat": one.repeat, "status": "ok", "error": None}
            file.write(json.dumps(record | {"correct": float(rights[one.question]), "generation_text": "so"}) + "\n")


TEXTS = {(str(q), r): f"answer {q}.{r}" for q in range(1, 5) for r in (1, 2)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = TEXTS | {("4", 2): "  "}
    path = answers_file(tmp_path / "a.json", texts)
    verdicts: dict[tuple[str, int], Any] = {key: key[0] in "12" for key in TEXTS if key != ("4", 2)}
    add_judge(path, "strict", verdicts | {("3", 1): "Well, <b>CORRECT</b> perhaps"})
    return path


def test_pass_at_1_is_the_mean_over_questions_of_their_repeats(source: Path) -> None:
    judge = analyze_questions(source).summary.judges[0]
    assert judge["counts"] | {"pending": 0} == {
        "right": 4, "wrong": 2, "empty": 1, "unparsed": 1, "judge failed": 0, "pending": 0, "failed": 0
    }  # fmt: skip
    assert judge["accuracy"] == 50
    assert (judge["correct"], judge["n"], judge["questions"]) == (4, 7, 4)
    assert (judge["bounds"]["low"], judge["bounds"]["high"]) == (50, 62.5)
    assert [row["accuracy"] for row in judge["per_repeat"]] == [pytest.approx(200 / 3), 50]


def random_judge(seed: int) -> tuple[Generations, Judge]:
    """Answers of a few questions, each with its own number of repeats, in states drawn at random."""
    draw = random.Random(seed)
    items, records = [], {}
    for question in range(draw.randint(1, 5)):
        for repeat in range(1, draw.randint(2, 7)):
            state = draw.choice(["right", "right", "wrong", "empty", "unparsed", "judge failed", "pending", "failed"])
            text = "" if state in ("empty", "failed") else f"{question}.{repeat}"
            status = "failed" if state == "failed" else "ok"
            one = Generation(f"{question}/{repeat}", str(question), repeat, "Q", "a", text, status, document_set="s")
            items.append(one)
            if state in ("right", "wrong", "unparsed", "judge failed"):
                record = {"status": "failed" if state == "judge failed" else "ok", "error": "e", "generation_text": "?"}
                records[one.key, one.text_sha256] = record | {"correct": {"right": 1.0, "wrong": 0.0}.get(state)}
    return Generations(Path("a"), tuple(items), "m", "f", {}), Judge("j", "j", "v1.0", None, records, bool(seed % 2))


@pytest.mark.parametrize("seed", range(40))
def test_accuracy_lies_inside_its_bounds_and_its_interval(seed: int) -> None:
    generations, one = random_judge(seed)
    judge = summarise(generations, [one]).judges[0]
    rows = [judge, *judge["per_repeat"], *judge["by_category"], *judge["by_length"]]
    assert all(row["ci_low"] <= row["accuracy"] <= row["ci_high"] for row in rows if row["accuracy"] is not None)
    if judge["bounds"] and judge["accuracy"] is not None:
        assert judge["bounds"]["low"] <= judge["accuracy"] <= judge["bounds"]["high"]
    assert (judge["bounds"] is None) == (not judge["not_counted"])


def test_bounds_are_means_over_questions_as_the_accuracy_is(tmp_path: Path) -> None:
    verdicts: dict[tuple[str, int], Any] = {("1", repeat): True for repeat in range(1, 6)}
    verdicts |= {("2", 1): False, ("2", 2): "perhaps"}
    path = answers_file(tmp_path / "a.json", {key: f"answer {key}" for key in verdicts})
    add_judge(path, "strict", verdicts)
    judge = analyze_questions(path).summary.judges[0]
    assert (judge["accuracy"], judge["bounds"]) == (50, {"open": 1, "low": 50, "high": 75})


def test_the_last_line_says_what_is_not_counted(source: Path) -> None:
    whole = json.loads(source.read_text())
    whole["generations"] += [
        whole["generations"][0] | {"key": name, "repeat": 3 + i, "text": name, "status": status, "error": "too long"}
        for i, (name, status) in enumerate([("new", "ok"), ("lost", "failed"), ("lost too", "failed")])
    ]
    source.write_text(json.dumps(whole))
    run = analyze_questions(source)
    assert run.line.startswith("Accuracy: 50.0%  n=7 answers to 4 questions, 95% interval ")
    assert "; not counted: 1 unparsed, 1 pending, 2 failed (judge" in run.line_of("strict")
    assert run.summary.judges[0]["not_counted"] == {"unparsed": 1, "pending": 1, "failed": 2}
    assert "not counted: 1 unparsed, 1 pending (judge" in analyze_questions(source, failed_as_wrong=True).line


def test_before_any_verdict_empty_answers_are_no_accuracy(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.json", {("1", 1): "x", ("2", 1): " "})
    add_judge(path, "strict", {})
    run = analyze_questions(path)
    assert run.summary.judges[0]["accuracy"] is None
    assert run.line.startswith("Accuracy: no verdict yet; not counted: 1 pending (judge")
    assert "0.0%" not in run.line + run.text.split("with those")[0]
    with pytest.raises(DataError, match="has given no verdict"):
        compare_questions([path, path])


def test_where_every_answer_failed_nothing_is_accurate(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.json", {("1", 1): ""})
    path.write_text(path.read_text().replace('"text": ""', '"text": "", "status": "failed"'))
    run = analyze_questions(path)
    assert run.summary.judges == []
    assert run.line == "not judged yet; 1 of 1 answers failed"


@pytest.mark.parametrize("notes", [None, "abc"])
def test_our_own_grading_notes_are_a_deviation_wherever_their_accuracy_stands(
    source: Path, tmp_path: Path, notes: str | None
) -> None:
    add_judge(source, "new", dict.fromkeys([("1", 1), ("2", 1)], True), protocol="v1.1", notes=notes)
    run = analyze_questions(source)
    judges = {judge["name"]: judge for judge in run.summary.judges}
    ours = [] if notes else ["grading notes in our wording"]
    assert (judges["new"]["deviations"], judges["strict"]["deviations"]) == (ours, [])
    assert run.summary.deviation is bool(ours)
    page = run.write_page(tmp_path)[0].read_text()
    for shown in (run.line_of("new"), run.text, page):
        assert ("DEVIATION: grading notes in our wording" in shown) is bool(ours)
    assert "DEVIATION" not in run.line_of("strict")


def test_verdicts_under_different_grading_notes_are_not_compared(source: Path, tmp_path: Path) -> None:
    other = answers_file(tmp_path / "b.json", TEXTS)
    add_judge(source, "new", {("1", 1): True}, protocol="v1.1")
    add_judge(other, "new", {("1", 1): True}, protocol="v1.1", notes="abc")
    with pytest.raises(DataError, match="different grading notes"):
        compare_questions([source, other])


def without_ids(path: Path, order: int, **more: Any) -> Path:
    """The answers of `path` as another tool lists them: no ids, no keys, in this or the opposite order."""
    whole = json.loads(path.read_text())
    rows = [row for row in whole["generations"] if row["repeat"] == 1][::order]
    kept = [{name: row[name] for name in ("question", "answer", "text")} | more for row in rows]
    other = path.with_name(f"{path.stem}{order}.json")
    other.write_text(json.dumps(kept))
    return other


@pytest.mark.parametrize("first", ["with ids", "without"])
def test_questions_without_ids_are_matched_by_their_words(source: Path, first: str) -> None:
    a = source if first == "with ids" else without_ids(source, 1)
    b = without_ids(source, -1)
    for path in {a, b} - {source}:
        rights = {f"Q{q}?": q in "12" for q in "1234"} if path == a else dict.fromkeys("Q1? Q2? Q3? Q4?".split(), True)
        add_judge_of_all(path, "strict", rights)
    pair = compare_questions([a, b])["tables"][0]["comparisons"][0]
    assert (pair["n"], pair["difference"]) == (4, 50)


def test_a_row_that_stands_twice_counts_once_and_does_not_wait_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"id": 1, "question": "Q1?", "answer": "a", "response": "x"}] * 2
    path.write_text(json.dumps([*rows, {"id": 2, "question": "Q2?", "answer": "a", "response": "a"}]))
    assert main(["judge", str(path), "--backend", "fake", "--model", "j", "--quiet"]) == 0
    run = analyze_questions(path)
    judge = run.summary.judges[0]
    assert (judge["n"], judge["accuracy"], judge["not_counted"]) == (2, 50, {})
    assert run.summary.duplicates == 1
    assert "1 row(s) that repeat another exactly are counted once" in run.text


def test_a_verdict_found_under_another_key_of_the_same_answer_counts(source: Path) -> None:
    whole = json.loads(source.read_text())
    for row in whole["generations"]:
        row["key"] += " of another listing"
    source.write_text(json.dumps(whole))
    assert analyze_questions(source).summary.judges[0]["counts"]["pending"] == 0


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
    judge = analyze_questions(source).summary.judges[0]
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
    found = run.summary.agreement[0]
    assert (found["a"], found["b"], found["n"], found["same"], found["only_a"]) == ("mild", "strict", 6, 4, 2)
    row = next(row for row in run.summary.wrong if row["question_id"] == "4" and row["repeat"] == 1)
    assert [(one["judge"], one["state"], one["raw"]) for one in row["verdicts"]] == [
        ("mild", "right", "CORRECT"), ("strict", "wrong", "INCORRECT")
    ]  # fmt: skip
    assert "mild: right (CORRECT)" in run.text


def test_the_page_escapes_what_models_say(source: Path, tmp_path: Path) -> None:
    page = analyze_questions(source).write_page(tmp_path)[0].read_text()
    assert "<b>CORRECT" not in page
    assert "\\u003cb\\u003eCORRECT\\u003c/b\\u003e" in page


def test_the_page_holds_every_answer_with_both_judges(source: Path, tmp_path: Path) -> None:
    add_judge(source, "mild", {key: True for key in TEXTS if key != ("4", 2)})
    page = analyze_questions(source).write_page(tmp_path)[0].read_text()
    files = json.loads(page.split('id="files">')[1].split("</script>")[0])
    samples, texts = files["runs/run/samples.json"], files["runs/run/texts-0.json"]
    assert samples["total"] == len(texts) == 8
    assert [verdict["judge"] for verdict in texts[0]["verdicts"]] == ["mild", "strict"]
    assert samples["columns"]["states"][0] == [verdict["state"] for verdict in texts[0]["verdicts"]]
    assert files["runs/run/run.json"]["summary"]["wrong"] == []


def test_verdicts_on_other_words_do_not_count(source: Path) -> None:
    whole = json.loads(source.read_text())
    for row in whole["generations"]:
        row["text"] = row["text"] and "changed"
    source.write_text(json.dumps(whole))
    assert analyze_questions(source).summary.judges[0]["counts"]["pending"] == 8


def test_protocols_never_stand_in_one_table(source: Path, tmp_path: Path) -> None:
    add_judge(source, "new", dict.fromkeys([("1", 1), ("2", 1)], True), protocol="v1.1")
    run = analyze_questions(source)
    assert run.summary.agreement == [], "judges of two protocols are not compared"
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


def test_a_difference_without_a_p_value_says_why() -> None:
    pair = {
        "letter": "B",
        "difference": 50,
        "low": -10,
        "high": 100,
        "p": None,
        "p_holm": None,
        "test": "no test",
        "n": 4,
    }
    found = {"runs": [], "tables": [{"judge": "j", "protocol": "v1.0", "rows": [], "comparisons": [pair]}]}
    assert "100.0], no test, 4 questions" in comparison_text(found).replace("+", "")


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
    usual, counted = (analyze_questions(path, failed_as_wrong=value).summary.judges[0] for value in (False, True))
    assert (usual["accuracy"], usual["n"]) == (100, 1)
    assert (counted["accuracy"], counted["n"]) == (50, 2)


def test_a_judges_own_folder_points_to_the_run(source: Path) -> None:
    with pytest.raises(DataError, match="holds a judge's verdicts"):
        analyze_any(source.with_suffix(".judges") / "strict")


def test_unfinished_runs_say_so(tmp_path: Path) -> None:
    path = answers_file(tmp_path / "a.json", {("1", 1): "x"}, planned=5)
    assert "INCOMPLETE: 1 of 5 planned answers" in analyze_questions(path).text


def test_the_metrics_that_were_asked_for(tmp_path):
    texts = {
        ("1", 1): "1. The question.\n2. Sub-questions.\n2. again\nFinal answer: Oslo",
        ("2", 1): "**Step 1:** look\nStep 2. think\nStep 3) say\n**Final answer:** 8",
        ("3", 1): "Oslo",
    }
    source = answers_file(tmp_path / "a.json", texts, settings={"metrics": ["perplexity", "steps"]})
    data = json.loads(source.read_text())
    for row, value in zip(data["generations"], (2.0, 8.0, None), strict=True):
        row["perplexity"] = value
    source.write_text(json.dumps(data))
    run = analyze_questions(source)
    assert run.summary.metrics == {
        "perplexity": {"n": 2, "geometric_mean": 4, "median": 5},
        "steps": {"n": 3, "mean": pytest.approx(5 / 3, abs=1e-5), "median": 2, "most": 3, "final_answer_lines": 2},
    }
    assert "geometric mean 4, median 5 (n=2)" in run.text
    assert "a final answer on a line of its own in 2 of 3" in run.text


def test_no_metrics_without_asking(tmp_path):
    assert analyze_questions(answers_file(tmp_path / "a.json", {("1", 1): "1. x"})).summary.metrics is None
