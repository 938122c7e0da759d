"""report.html: self-contained, escaped, complete; and looked at by a real browser where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from infini_eval.reports.analyze import analyze_run
from infini_eval.reports.page import escaped, marked, page
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from infini_eval.testing.limits import PROCESS_S

RUN = FakeRun(lengths=(1024, 4096), depths=(0, 50, 100), per_cell=5, accuracy=0.7, seed=4)
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>"\'&\x1b[31m\u202e'
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects tags and attributes, and complains where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.urls: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker


def hostile_run(folder):
    write_fake_run(folder, FakeRun(depths=(0, 50), per_cell=3, name=f"M{HOSTILE}", identity={"task": HOSTILE}))
    path = folder / "samples" / "replica0.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records[:3]:
        record |= {"generation_text": HOSTILE, "excerpt": f"{HOSTILE} {record['answer']} {HOSTILE}", "correct": 0.0}
    records[3] |= {"generation_text": "x" * 10_000_000, "correct": 0.0, "error": HOSTILE}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_the_page_is_self_contained_and_well_formed(tmp_path):
    html = page(analyze_run(write_fake_run(tmp_path, RUN)))
    found = checked(html)
    assert all(url.startswith("data:image/svg+xml;base64,") for url in found.urls)
    assert len(found.urls) == 4
    assert "script" not in found.tags
    assert "http-equiv" in html


def test_it_says_what_the_summary_says(tmp_path):
    run = analyze_run(write_fake_run(tmp_path, RUN))
    html = page(run)
    assert f"{run.summary.to_json()['summary_stats']['average_accuracy']:.1f} %" in html
    assert run.summary.to_json()["verdict"]["category"] in html
    assert "The pass key is <mark>" in html
    assert "identity.seed" in html


def test_hostile_content_is_shown_and_does_not_act(tmp_path):
    html = page(analyze_run(hostile_run(tmp_path)))
    found = checked(html)
    assert "script" not in found.tags
    assert not found.handlers
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "&lt;script&gt;" in html
    assert "more characters" in html
    assert len(html) < 2_000_000


def test_foreign_records_without_manifest_and_excerpt_have_a_page_too(tmp_path):
    (tmp_path / "a.csv").write_text("depth_percent,answer,generation_text\n0,12,12\n50,13,14\n")
    html = page(analyze_run(tmp_path))
    checked(html)
    assert "No manifest" in html


def test_write_page_writes_each_plot_with_its_numbers(tmp_path):
    written = analyze_run(write_fake_run(tmp_path, RUN)).write_page()
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    plots = ("heatmap", "accuracy_by_depth", "accuracy_by_length", "accuracy_by_compressions")
    assert names == {"report.html", *(f"plots/{name}.{kind}" for name in plots for kind in ("png", "csv"))}
    assert (tmp_path / "plots/heatmap.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "plots/heatmap.csv").read_text().splitlines()
    assert lines[0].startswith("context_length,depth_percent,accuracy")
    assert len(lines) == 7
    assert analyze_run(tmp_path).summary.to_json()["total_samples"] == 30  # what we wrote is not taken for records


def test_text_and_marked():
    assert escaped("a" * 5, limit=3) == "aaa … (2 more characters)"
    assert marked("one <b> 42 and 42", "42") == "one &lt;b&gt; <mark>42</mark> and <mark>42</mark>"
    assert marked("nothing", "42") == "nothing"
    assert marked(None, None) == ""
    assert re.fullmatch(r"… .*<mark>7</mark>.* …", marked("x " * 900 + "7" + " y" * 900, "7", 50))


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on this machine")
def test_a_browser_shows_the_page_and_runs_nothing(tmp_path):
    run = analyze_run(hostile_run(tmp_path))
    run.write_page()
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, (tmp_path / "report.html").as_uri()], capture_output=True, text=True, timeout=PROCESS_S
    )
    assert "<title>M&lt;script&gt;" in done.stdout
    assert "owned</title>" not in done.stdout


def test_gates_and_diagnosis_are_on_the_page(tmp_path):
    gates = {"mean": 0.5, "values": [[0.25, 0.75], [0.0, 1.0]]}
    folder = write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=3, model={"gates": gates}))
    (folder / "diagnosis.txt").write_text(f"VERDICT not read {HOSTILE}")
    run = analyze_run(folder)
    html = page(run)
    checked(html)
    assert "Memory diagnosis" in html and "VERDICT not read &lt;script&gt;" in html
    assert "How much each head" in html and "gates.values" not in html
    written = {path.name for path in run.write_page()}
    assert {"report.html", "gates.png", "gates.csv"} <= written


@pytest.mark.parametrize("gates", [None, 5, {"values": "<b>"}, {"values": [[1], [1, 2]]}, {"values": [["x"]]}])
def test_what_is_no_table_of_gates_is_not_drawn(tmp_path, gates):
    run = analyze_run(write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=3, model={"gates": gates})))
    assert "How much each head" not in page(run)
    assert "gates.png" not in {path.name for path in run.write_page()}
