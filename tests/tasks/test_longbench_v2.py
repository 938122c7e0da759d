"""longbench_v2: the published layout is read, asked by letter in the text or by the letters' log-probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from infini_eval.api import registry
from infini_eval.cli.main import main
from infini_eval.data.reading import load_data
from infini_eval.errors import ConfigError, DataError
from infini_eval.tasks.longbench_v2 import OPTIONS
from support.small_runs import answered

ROOT = Path(__file__).resolve().parents[2]
TASK = registry.task("longbench_v2")


def published(folder: Path, **changed: Any) -> Path:
    """Three questions in the layout of THUDM/LongBench-v2's data.json; contents are ours."""
    rows = []
    for number, (length, answer) in enumerate([("short", "B"), ("long", "D"), ("short", "A")]):
        row = {
            "_id": f"id{number}", "domain": "Single-Document QA", "sub_domain": "Tales", "difficulty": "easy",
            "length": length, "question": f"Who built mill {number}?", "choice_A": "Ada", "choice_B": "Ben",
            "choice_C": "Cleo", "choice_D": "Dan", "answer": answer,
            "context": f"Mill {number} {{was}} built by somebody. " * 3,
        }  # fmt: skip
        rows.append(row | changed)
    (folder / "data.json").write_text(json.dumps(rows))
    return folder / "data.json"


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    data = load_data(TASK, published(tmp_path))
    assert [(s.id, s.answer, s.columns["letter"], s.columns["length"]) for s in data.samples] == [
        ("id0", "The correct answer is (B)", "B", "short"),
        ("id1", "The correct answer is (D)", "D", "long"),
        ("id2", "The correct answer is (A)", "A", "short"),
    ]
    prompt = data.samples[1].prompt
    assert "Mill 1 {was} built" in prompt and prompt.index("(A) Ada") < prompt.index("(D) Dan")
    assert "context" not in data.samples[0].columns and data.settings == OPTIONS
    assert TASK.validate(data.samples) == [] and TASK.locate(data.samples[0]) is None


def test_asked_by_its_command(tmp_path: Path) -> None:
    found = answered("longbench_v2", published(tmp_path), tmp_path / "run")
    assert [record["correct"] for record in found] == [1.0] * 3 and {r["domain"] for r in found} == {
        "Single-Document QA"
    }
    short = answered("longbench_v2", published(tmp_path), tmp_path / "short", "--option", "length=short")
    assert sorted(record["id"] for record in short) == ["id0", "id2"]


@pytest.mark.parametrize("backend", ["transformers", "nanotron"])
def test_the_likeliest_letter_is_the_answer(backend: str, tmp_path: Path, capsys) -> None:
    model = ROOT / "checkpoints" / ("llama-demo" if backend == "transformers" else "infini-demo")
    more = ["--backend", backend, "--model", str(model), "--option", "by=letters"]
    found = answered("longbench_v2", published(tmp_path), tmp_path / "run", *more)
    prompts = {
        sample.id: sample
        for sample in load_data(TASK, published(tmp_path), options=OPTIONS | {"by": "letters"}).samples
    }
    for record in found:
        logprobs = json.loads(record["choice_logprobs"])
        assert list(logprobs) == ["A", "B", "C", "D"] and all(value < 0 for value in logprobs.values())
        assert record["generation_text"] == max(logprobs, key=logprobs.get) == record["extracted"]
        assert record["correct"] == float(record["generation_text"] == record["letter"])
        assert prompts[record["id"]].prompt.endswith("The correct answer is (")
    if backend == "transformers":
        check_by_hand(model, prompts[found[0]["id"]].prompt, json.loads(found[0]["choice_logprobs"]))


def check_by_hand(model: Path, prompt: str, logprobs: dict[str, float]) -> None:
    """The same numbers from one plain forward pass of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        last = AutoModelForCausalLM.from_pretrained(model)(ids).logits[0, -1].float().log_softmax(-1)
    for letter, value in logprobs.items():
        (token,) = tokenizer(letter, add_special_tokens=False).input_ids
        assert math.isclose(last[token].item(), value, abs_tol=2e-3)


def test_a_backend_without_log_probabilities_is_refused(tmp_path: Path, capsys) -> None:
    given = ["run", "--task", "longbench_v2", "--model", "fake:any", "--eval_dataset_path", str(published(tmp_path))]
    assert main([*given, "--save_path", str(tmp_path / "run"), "--option", "by=letters", "--quiet"]) == 2
    assert "log-probabilities of choices: the backend fake cannot measure it" in capsys.readouterr().err


def test_wrong_options_and_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--option by=guess"):
        load_data(TASK, published(tmp_path), options=OPTIONS | {"by": "guess"})
    with pytest.raises(DataError, match="no question of --option length=medium"):
        load_data(TASK, published(tmp_path), options=OPTIONS | {"length": "medium"})
    with pytest.raises(DataError, match="row 0: the answer is 'E', none of the letters"):
        load_data(TASK, published(tmp_path, answer="E"))
    with pytest.raises(DataError, match="row 0: the column context holds no text"):
        load_data(TASK, published(tmp_path, context=" "))
    (tmp_path / "x.json").write_text('[{"question": "x"}]')
    with pytest.raises(DataError, match=r"no column _id, choice_A(.|\n)*THUDM/LongBench-v2"):
        load_data(TASK, tmp_path / "x.json")
