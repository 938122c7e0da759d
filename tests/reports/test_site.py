"""Runs as files for the browser of results: names, samples, the text around the needle, comparisons, folders."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infini_eval.errors import ConfigError, RunFolderError
from infini_eval.records import Sample
from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.around import around_needles
from infini_eval.reports.compare import compare_runs
from infini_eval.reports.joined import join_runs
from infini_eval.reports.payload import CHUNK, RunFiles, chosen, run_row
from infini_eval.reports.site import Site, comparison_page
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

SMALL = FakeRun(depths=(0, 50), per_cell=3, accuracy=0.5)


def files(run) -> RunFiles:
    return RunFiles(run, run_row(run, "run", "run"), limit=10_000)


def test_runs_are_named_by_where_they_lie(tmp_path):
    for name in ("a/one run", "a/two", "b/two"):
        write_fake_run(tmp_path / name, SMALL)
    assert [row.id for row in Site([tmp_path]).rows] == ["a-one-run", "a-two", "b-two"]
    both = Site([tmp_path / "a", tmp_path / "b", tmp_path / "b" / "two"])
    assert [row.id for row in both.rows] == ["one-run", "two", "b-two"]  # the run named twice is there once


def test_a_run_that_cannot_be_read_is_listed_with_its_reason(tmp_path):
    write_fake_run(tmp_path / "good", SMALL)
    write_fake_run(tmp_path / "empty", SMALL, keep=0)
    bad, good = Site([tmp_path]).rows
    assert (bad.id, good.problem) == ("empty", None)
    assert "no finished sample yet" in bad.problem
    with pytest.raises(RunFolderError, match="no such folder"):
        Site([tmp_path / "nowhere"])


def test_every_file_of_a_site_is_json_and_names_outside_it_are_nothing(tmp_path):
    write_fake_run(tmp_path / "a", SMALL)
    write_fake_run(tmp_path / "b", FakeRun(depths=(0, 50), per_cell=3, accuracy=0.5, model_seed=1))
    site = Site([tmp_path])
    for path in ("runs/a/run.json", "runs/a/samples.json", "runs/b/texts-0.json", "compare/a/b.json"):
        assert json.loads(json.dumps(site.content(path), allow_nan=False))
    for path in (
        "",
        "runs/a",
        "runs/c/run.json",
        "runs/a/texts-1.json",
        "runs/a/../b/run.json",
        "compare/a/c.json",
        "runs/a/texts-x.json",
    ):
        assert site.content(path) is None


def test_samples_lie_in_the_cells_of_the_summary(tmp_path):
    run = analyze_run(
        write_fake_run(tmp_path, FakeRun(lengths=(1024, 2048), depths=(0, 30, 100), per_cell=7, accuracy=0.5, failed=2))
    )
    columns = files(run).content("samples.json")["columns"]
    for block in run.summary.by_context_length:
        for cell in block.results_by_depth:
            own = [
                correct
                for length, depth, correct in zip(columns["length"], columns["depth"], columns["correct"])
                if (length, depth) == (block.context_length, cell.depth_percent)
            ]
            assert len(own) == cell.num_samples + cell.failed
            assert sum(value == 1 for value in own) == cell.correct
            assert sum(value is None for value in own) == cell.failed


def test_the_words_of_each_sample_stand_at_its_place(tmp_path):
    run = analyze_run(write_fake_run(tmp_path, FakeRun(depths=range(0, 101, 5), per_cell=30)))
    made = files(run)
    columns = made.content("samples.json")["columns"]
    assert made.names() == ["run.json", "samples.json", "texts-0.json", "texts-1.json"]
    texts = [one for name in made.names()[2:] for one in made.content(name)]
    assert len(made.content("texts-0.json")) == CHUNK and len(texts) == 630
    assert [one["key"] for one in texts] == columns["key"]
    assert [one["answer"] for one in texts] == columns["answer"]
    assert [one["depth_percent"] for one in texts] == columns["depth"]
    assert all(one["scores"]["exact_digits"] == correct for one, correct in zip(texts, columns["correct"]))


def test_a_selection_is_even_and_prefers_what_is_not_right():
    cell = np.repeat(np.arange(10), 100)
    right = np.arange(1000) % 10 < 9
    kept = chosen(cell, right, 200)
    assert [int(kept[cell == one].sum()) for one in range(10)] == [20] * 10
    assert [int((kept & ~right)[cell == one].sum()) for one in range(10)] == [10] * 10
    assert chosen(cell, right, 1000).all()
    assert (chosen(cell, right, 200) == kept).all()
    everything_right = chosen(cell, np.ones(1000, bool), 50)
    assert [int(everything_right[cell == one].sum()) for one in range(10)] == [5] * 10


def data_run(tmp_path: Path, run: FakeRun = SMALL) -> Path:
    """A run whose manifest names a data set that holds its prompts."""
    folder = write_fake_run(tmp_path / "run", run)
    path = folder / "samples/replica0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    rows = []
    for number, record in enumerate(records):
        prompt = f"{'filler ' * 300}The pass key is {record['answer']}. {'after ' * 300}What is the pass key? It is"
        sample = Sample(f"{number}", prompt, record["answer"], record["depth_percent"])
        rows.append(
            {"prompt": prompt, "answer": record["answer"], "depth_percent": record["depth_percent"], "id": f"{number}"}
        )
        record["prompt_sha256"] = sample.prompt_sha256
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["environment"]["eval_dataset_path"] = str(tmp_path / "data.parquet")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_text_around_the_needle_comes_from_the_data_set(tmp_path):
    for one in files(analyze_run(data_run(tmp_path))).content("texts-0.json"):
        around = one["around"]
        assert one["answer"] in around["text"][around["start"] : around["end"]]
        assert f"The pass key is {one['answer']}." in around["text"]
        assert len(around["text"]) < 1600
        assert around["question"].endswith("What is the pass key? It is")
        assert one["no_text"] is None


def test_each_part_of_a_joined_run_reads_its_own_data_set(tmp_path):
    runs = [
        analyze_run(data_run(tmp_path / str(length), FakeRun(lengths=(length,), depths=(0, 50), per_cell=2)))
        for length in (1024, 2048)
    ]
    joined = join_runs(runs, tmp_path)
    texts = files(joined).content("texts-0.json")
    assert len(texts) == 8
    assert all(one["answer"] in one["around"]["text"] for one in texts)


def test_a_data_set_that_changed_or_is_gone_is_said(tmp_path):
    folder = data_run(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert around_needles(manifest, {"0" * 64}).missing.startswith("1 of these prompts are not in the data set")
    (tmp_path / "data.parquet").write_text("no parquet")
    assert "cannot be read" in around_needles(manifest, {"0" * 64}).missing
    (tmp_path / "data.parquet").unlink()
    assert "is not at this place of this machine" in around_needles(manifest, {"0" * 64}).missing
    assert around_needles(None, set()).missing == "the run does not say which data set it read"


def test_a_comparison_is_that_of_compare_and_names_the_samples(tmp_path):
    run = FakeRun(depths=(0, 50), per_cell=20, accuracy=0.6, haystacks=20)
    write_fake_run(tmp_path / "a", run)
    write_fake_run(tmp_path / "b", FakeRun(**{**vars(run), "model_seed": 3}))
    site = Site([tmp_path])
    found = site.content("compare/a/b.json")
    expected = compare_runs([tmp_path / "a", tmp_path / "b"]).comparisons[0]
    assert found["comparison"]["overall"]["difference"] == expected.overall.difference
    assert (len(found["only_a"]), len(found["only_b"])) == (expected.overall.only_a, expected.overall.only_b)
    columns = site.content("runs/a/samples.json")["columns"]
    correct = dict(zip(columns["key"], columns["correct"]))
    assert {correct[key] for key in found["only_a"]} == {1} and {correct[key] for key in found["only_b"]} == {0}


def test_a_run_that_goes_on_is_read_again(tmp_path):
    write_fake_run(tmp_path / "a", SMALL, keep=2)
    site = Site([tmp_path])
    assert site.rows[0].samples == 2
    write_fake_run(tmp_path / "a", SMALL)
    write_fake_run(tmp_path / "b", SMALL)
    site.refresh()
    assert [row.samples for row in site.rows] == [6, 6]
    assert site.content("runs/a/samples.json")["total"] == 6


def test_a_folder_for_a_web_server_holds_everything_and_is_written_over(tmp_path):
    write_fake_run(tmp_path / "runs/a", SMALL)
    write_fake_run(tmp_path / "runs/b", SMALL)
    out = tmp_path / "site"
    count = Site([tmp_path / "runs"]).write(out)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert len(names) == count
    assert {"index.html", "web/app.js", "web/vendor/d3.LICENSE", "runs/a/run.json", "compare/b/a.json"} <= names
    assert "default-src 'none'; script-src 'self'" in html.unescape((out / "index.html").read_text())
    Site([tmp_path / "runs/a"]).write(out)
    assert not (out / "runs/b").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    write_fake_run(tmp_path / "run", SMALL)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds other files"):
        Site([tmp_path / "run"]).write(tmp_path)


def test_a_comparison_is_one_file_too(tmp_path):
    folders = [
        write_fake_run(tmp_path / name, FakeRun(depths=(0, 50), per_cell=3, model_seed=place))
        for place, name in enumerate("abc")
    ]
    made = json.loads(comparison_page(folders).split('id="files">')[1].split("</script>")[0])
    assert made["index.json"]["open"] == "#/compare?runs=a,b,c"
    assert {
        "runs/a/run.json",
        "runs/c/texts-0.json",
        "compare/a/b.json",
        "compare/a/c.json",
        "compare/b/a.json",
    } <= set(made)
