"""aa_lcr against servers: a scripted judge whose every word is known, and `transformers serve` as model and judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.cli.main import main
from infini_eval.testing.tiny_models import write_tiny_hf_model
from support.model_servers import transformers_serve
from support.scripted_server import ScriptedServer, ScriptedStep
from support.tiny_aa_lcr import write_tiny_aa_lcr

pytest.importorskip("openai")
ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "checkpoints/llama-demo"
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of the fake backend, whose answers are right."""
    data, folder = write_tiny_aa_lcr(tmp_path / "data"), tmp_path / "run"
    given = ["--task", "aa_lcr", "--backend", "fake", "--model", "m", "--eval_dataset_path", str(data), "--quiet"]
    assert main(["run", *given, "--save_path", str(folder)]) == 0
    return folder


def judged(folder: Path, url: str, *flags: str) -> dict:
    given = ["--backend", "openai", "--base-url", url, "--model", "scripted", "--judge-name", "served", "--quiet"]
    assert main(["judge", str(folder), *given, "--concurrency", "1", "--attempts", "1", *flags]) == 0
    return json.loads((folder / "summary.json").read_text())["judges"][0]


def test_a_served_judge_is_asked_the_protocols_question_and_read_strictly(run: Path) -> None:
    words = ["CORRECT", "INCORRECT", "I think it is CORRECT.", "CORRECT."]
    with ScriptedServer([ScriptedStep(text=text) for text in words]) as server:
        judge = judged(run, f"{server.address}/v1")
    bodies = [body for _, _, body in server.asked]
    assert len(bodies) == 4
    asked = bodies[0]["messages"][0]["content"]
    assert asked.startswith("Assess whether the following CANDIDATE ANSWER is CORRECT or INCORRECT.\n")
    assert bodies[0]["temperature"] == 0
    assert (judge["counts"]["right"], judge["counts"]["wrong"], judge["counts"]["unparsed"]) == (2, 1, 1)
    assert judge["unparsed"][0]["raw"] == "I think it is CORRECT."
    assert judge["accuracy"] == pytest.approx(200 / 3)


def test_a_judge_that_fails_is_asked_again_and_only_about_what_is_open(run: Path) -> None:
    script = [
        ScriptedStep(text="CORRECT"),
        ScriptedStep(status=500),
        ScriptedStep(text="CORRECT"),
        ScriptedStep(text="INCORRECT"),
    ]
    with ScriptedServer(script, ScriptedStep(text="CORRECT")) as server:
        first = judged(run, f"{server.address}/v1")
        assert (first["counts"]["judge failed"], first["n"], len(server.asked)) == (1, 3, 4)
        assert (first["bounds"]["low"], first["bounds"]["high"]) == (50, 75)
        second = judged(run, f"{server.address}/v1")
    assert len(server.asked) == 5
    assert (second["counts"]["judge failed"], second["n"], second["accuracy"]) == (0, 4, 75)


def test_strict_json_from_a_served_judge(run: Path) -> None:
    script = [ScriptedStep(text='{"verdict": "INCORRECT"}'), ScriptedStep(text="CORRECT")]
    with ScriptedServer(script, ScriptedStep(text='{"verdict": "CORRECT"}')) as server:
        judge = judged(run, f"{server.address}/v1", "--protocol", "v1.1")
    assert (judge["counts"]["right"], judge["counts"]["wrong"], judge["counts"]["unparsed"]) == (2, 1, 1)


@pytest.mark.slow
def test_transformers_serve_as_model_and_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi", reason="pip install 'transformers[serving]'")
    pytest.importorskip("uvicorn", reason="pip install 'transformers[serving]'")
    model = SHIPPED if SHIPPED.is_dir() else write_tiny_hf_model(tmp_path / "tiny", TOKENIZER, chat=True)
    data, folder = write_tiny_aa_lcr(tmp_path / "data"), tmp_path / "run"
    with transformers_serve(model, tmp_path / "log") as url:
        # with its tokenizer it is known whether the model takes chats or plain text
        server = f"--backend openai --base-url {url} --model {model} --tokenizer {model} --concurrency 1 --attempts 2 --quiet"
        given = ["--task", "aa_lcr", "--eval_dataset_path", str(data), "--save_path", str(folder), *server.split()]
        assert main(["run", *given, "--max-new-tokens", "8", "--judge", f"{server} --max-new-tokens 4"]) == 0
    made = json.loads((folder / "summary.json").read_text())
    counts = made["judges"][0]["counts"]
    assert (made["answers"], made["failed"], counts["pending"], counts["judge failed"]) == (4, 0, 0, 0)
    assert sum(counts.values()) == 4
    assert capsys.readouterr().out.splitlines()[-1].startswith("Accuracy: ")
