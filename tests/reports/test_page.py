"""report.html: one file, under a policy that lets nothing else run, bounded in size, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.page import LISTED, card, page, visible
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from support.hostile import HOSTILE, hostile_run

RUN = FakeRun(lengths=(1024, 4096), depths=(0, 50, 100), per_cell=5, accuracy=0.7, seed=4)
VOID = {"meta", "link"}


class Checker(HTMLParser):
    """Collects tags, addresses, scripts and text; complains where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.inside: dict[str, list[str]] = {"script": [], "style": [], "main": []}

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.policy = named.get("content") if named.get("http-equiv") == "Content-Security-Policy" else self.policy
        if tag not in VOID:
            self.open.append("data" if named.get("type") == "application/json" else tag)
            if self.open[-1] in ("script", "style"):
                self.inside[tag].append("")

    def handle_endtag(self, tag):
        opened = self.open.pop()
        assert opened == tag or (opened, tag) == ("data", "script")

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.inside[self.open[-1]][-1] += data
        elif "main" in self.open:
            self.inside["main"].append(data)


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker


def embedded(html: str):
    return json.loads(re.search(r'id="files">(.*?)</script>', html).group(1))


def sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_is_one_file_and_its_policy_names_every_script_and_style(tmp_path):
    found = checked(page(analyze_run(write_fake_run(tmp_path, RUN))))
    assert set(found.addresses) == {"data:,", "#content", "#/"}
    assert not found.handlers
    assert found.policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in found.policy and "*" not in found.policy
    assert len(found.inside["script"]) == 7 and len(found.inside["style"]) == 1
    for text in (*found.inside["script"], *found.inside["style"]):
        assert sha256(text) in found.policy


def test_without_scripts_it_says_what_the_summary_says(tmp_path):
    run = analyze_run(write_fake_run(tmp_path, RUN))
    words = " ".join("".join(checked(page(run)).inside["main"]).split())
    stats = run.summary.summary_stats
    assert f"{stats.average_accuracy:.1f} %" in words
    assert f"{stats.average_ci_low:.1f} to {stats.average_ci_high:.1f}" in words
    assert run.summary.headline.words in words
    assert "By depth at 4k tokens" in words


def test_runs_have_titles_of_their_own(tmp_path):
    runs = [
        RUN,
        FakeRun(lengths=(1024, 4096), depths=(0,), model={"memory": "ablate"}),
        FakeRun(depths=(0,), identity={"task": "niah"}),
    ]
    pages = [page(analyze_run(write_fake_run(tmp_path / str(place), run))) for place, run in enumerate(runs)]
    titles = [re.search("<title>(.*?)</title>", html).group(1) for html in pages]
    assert titles == [
        "0.7M Infini-Attention: passkey retrieval, memory on, 1k, 4k",
        "0.7M Infini-Attention: passkey retrieval, memory ablate, 1k, 4k",
        "0.7M Infini-Attention: niah, memory on, 1k",
    ]  # fmt: skip


def test_hostile_content_is_text_in_the_page_and_in_its_data(tmp_path):
    html = page(analyze_run(hostile_run(tmp_path)))
    found = checked(html)
    assert not found.handlers
    assert len(found.inside["script"]) == 7
    data = re.search(r'id="files">(.*?)</script>', html).group(1)
    assert not set("<>&\u2028\u2029\u202e\x1b") & set(data)
    answers = [row["generation_text"] for row in embedded(html)["runs/run/texts-0.json"]]
    assert HOSTILE in answers
    assert "&lt;script&gt;" in html and "{{ 7 * 7 }}" in html
    assert "\u202e" not in html.replace(data, "") and "\\u202e" in html


@pytest.mark.parametrize("words", [10, 5000])
def test_its_size_is_bounded_whatever_the_run_holds(tmp_path, words):
    run = FakeRun(lengths=(1024, 4096), depths=range(0, 101, 5), per_cell=20, accuracy=0.5)
    write_fake_run(tmp_path, run)
    path = tmp_path / "samples/replica0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(one | {"generation_text": "word " * words}) + "\n" for one in records))
    html = page(analyze_run(tmp_path))
    samples = embedded(html)["runs/run/samples.json"]
    assert (samples["total"], len(samples["columns"]["key"])) == (840, LISTED)
    assert len(html) < 5_000_000


def test_foreign_records_without_manifest_have_a_page_too(tmp_path):
    (tmp_path / "a.csv").write_text("depth_percent,answer,generation_text\n0,12,12\n50,13,14\n")
    html = page(analyze_run(tmp_path))
    checked(html)
    content = embedded(html)
    assert content["runs/run/run.json"]["story"]["settings"] == []
    texts = content["runs/run/texts-0.json"]
    assert [one["key"] for one in texts] == ["row0", "row1"]
    assert texts[0]["no_text"] == "the run does not say which data set it read"


def test_write_page_writes_each_plot_with_its_numbers(tmp_path):
    written = analyze_run(write_fake_run(tmp_path, RUN)).write_page()
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    plots = ("heatmap", "accuracy_by_depth", "accuracy_by_length", "accuracy_by_compressions")
    assert names == {"report.html", *(f"plots/{name}.{kind}" for name in plots for kind in ("png", "csv"))}
    assert (tmp_path / "plots/heatmap.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "plots/heatmap.csv").read_text().splitlines()
    assert lines[0].startswith("context_length,depth_percent,accuracy")
    assert len(lines) == 7
    assert analyze_run(tmp_path).summary.total_samples == 30  # what we wrote is not taken for records


def test_gates_and_diagnosis_are_in_the_page(tmp_path):
    gates = {"mean": 0.5, "values": [[0.25, 0.75], [0.0, 1.0]]}
    folder = write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=3, model={"gates": gates}))
    (folder / "diagnosis.json").write_text(json.dumps({"verdict": {"label": HOSTILE}, "samples": 0}))
    run = analyze_run(folder)
    shown = embedded(page(run))["runs/run/run.json"]
    assert shown["gates"] == gates["values"]
    assert shown["diagnosis"]["verdict"]["label"] == HOSTILE
    assert "model.gates.values" not in dict(shown["story"]["settings"])
    assert {"report.html", "gates.png", "gates.csv"} <= {path.name for path in run.write_page()}


@pytest.mark.parametrize("gates", [None, 5, {"values": "<b>"}, {"values": [[1], [1, 2]]}, {"values": [["x"]]}])
def test_what_is_no_table_of_gates_is_not_drawn(tmp_path, gates):
    run = analyze_run(write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=3, model={"gates": gates})))
    assert embedded(page(run))["runs/run/run.json"]["gates"] is None
    assert "gates.png" not in {path.name for path in run.write_page()}


def test_a_diagnosis_that_is_no_json_costs_the_diagnosis_only(tmp_path):
    folder = write_fake_run(tmp_path, FakeRun(depths=(0,), per_cell=2))
    (folder / "diagnosis.json").write_text('{"half')
    assert embedded(page(analyze_run(folder)))["runs/run/run.json"]["diagnosis"] is None


def test_the_card_of_a_notebook_is_small_and_runs_nothing(tmp_path):
    shown = card(analyze_run(hostile_run(tmp_path)).summary)
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert len(shown) < 20_000


def test_what_cannot_be_seen_is_written_out():
    assert visible("a\x1b[31m\u202eb\n") == "a\\x1b[31m\\u202eb\n"
    assert visible("a" * 5, limit=3) == "aaa … (2 more characters)"
    assert visible(None) == ""
