"""A headless browser, a server of made-up results, and pages that complain of every error and every breach of the policy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infini_eval.cli.view import open_server
from infini_eval.reports.site import Site
from infini_eval.testing.fake_runs import FakeRun, write_fake_run
from support.chromium import CHROMIUM, WHY_NOT
from support.hostile import HOSTILE, hostile_run
from support.judged import add_judge, answers_file
from support.limits import PROCESS_S

PICTURES = Path(__file__).parent / "pictures"
LENGTHS = (1024, 4096, 16384)
Opener = Callable[..., Any]


def weaker(slope: int) -> Callable[[int, float, int], float]:
    """A chance of a right answer that falls with the compressions."""
    return lambda length, depth, compressions: max(0.02, 1 - slope * compressions / 80)


def write_results(folder: Path) -> Path:
    """Two runs on the same samples, a training run of three steps, a judged run with two judges, and a hostile one."""
    gates = {"mean": 0.4, "values": [[0.1, 0.8], [0.5, 0.02]]}
    on = FakeRun(
        lengths=LENGTHS, depths=range(0, 101, 10), per_cell=6, accuracy=weaker(1), haystacks=6, model={"gates": gates}
    )
    write_fake_run(folder / "on", on)
    diagnosis = json.loads((Path(__file__).parent / "diagnosis.json").read_text())
    (folder / "on" / "diagnosis.json").write_text(json.dumps(diagnosis))
    ablated = FakeRun(
        lengths=LENGTHS, depths=range(0, 101, 10), per_cell=6, accuracy=weaker(3), haystacks=6, model_seed=5,
        model={"memory": "ablate"}, fails=lambda length, depth, number: (length, depth, number) == (16384, 50, 0),
    )  # fmt: skip
    write_fake_run(folder / "ablate", ablated)
    (folder / "ablate" / "diagnosis.json").write_text(json.dumps(failed(diagnosis)))
    for step in (1000, 2000, 3000):
        checkpoint = {"path": f"checkpoints/train/{step}"}
        run = FakeRun(
            depths=(0, 50, 100), per_cell=6, accuracy=step / 3200, identity={"checkpoint": checkpoint}, name="trained"
        )
        write_fake_run(folder / "train" / str(step), run)
    hostile_run(folder / "hostile")
    nothing = {"samples": 0, "verdict": {"label": HOSTILE, "reason": HOSTILE, "where": None}, "evidence": [HOSTILE]}
    (folder / "hostile" / "diagnosis.json").write_text(json.dumps(nothing))
    return folder


def failed(diagnosis: dict[str, Any]) -> dict[str, Any]:
    """The same measurements as of a run with wrong samples, and a verdict."""
    wrong = {name: {"mean": 0.5, "low": None, "high": None, "n": 3} for name in diagnosis["evidence_right"]}
    verdict = {"label": "not_read", "reason": "the memory holds it", "where": "3 of 3 go wrong first at token 1"}
    return diagnosis | {
        "verdict": verdict,
        "evidence_wrong": wrong,
        "evidence": ["opened gates mend 3 of 3"],
        "correct": 9,
    }


def write_judged(folder: Path) -> Path:
    """Answers to twelve questions, with two judges of whom the milder calls more of them right."""
    texts = {(str(question), 1): f"answer {question}" for question in range(1, 13)}
    source = answers_file(folder / "judged.json", texts)
    add_judge(source, "strict", {key: int(key[0]) % 3 == 0 for key in texts})
    add_judge(source, "mild", {key: int(key[0]) % 2 == 0 or int(key[0]) % 3 == 0 for key in texts})
    return source


@pytest.fixture(scope="package")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("results")
    return [write_results(folder), write_judged(tmp_path_factory.mktemp("answers"))]


@pytest.fixture(scope="package")
def address(results: list[Path]) -> Iterator[str]:
    """A server of the results on a free port."""
    with open_server(Site(results), 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(WHY_NOT)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, timeout=PROCESS_S * 1000)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opener]:
    """Opens a page at a width and in a scheme of colours; at the end no page may have met an error."""
    contexts, complaints = [], []

    def open_page(url: str, width: int = 1200, scheme: str = "light", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)  # what never comes is a failure; a step takes far below a second
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog opened: {dialog.message}"))
        page.goto(url)
        return ready(page) if options.get("java_script_enabled", True) else page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ready(page: Any) -> Any:
    """The page, once it shows what its address names; its policy forbids the functions that could be waited for."""
    shown = json.dumps(page.evaluate("location.hash || '#/'"))
    page.wait_for_selector(f"#content[data-ready={shown}]")
    page.wait_for_selector(".chart:empty", state="detached")
    return page


@pytest.fixture
def settled() -> Callable[[Any], Any]:
    return ready


@pytest.fixture(scope="package")
def pictures() -> Path:
    """The folder of screenshots, which git ignores; the test run's summary names it."""
    PICTURES.mkdir(exist_ok=True)
    return PICTURES
