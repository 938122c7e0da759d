"""Data sets as tasks of the lm-evaluation-harness: rows, scores as ours, and (where it is installed) its own evaluation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import infini_eval
from infini_eval.api import registry
from infini_eval.cli.main import main
from infini_eval.data.reading import load_samples
from infini_eval.exports.lm_eval_task import WRITABLE

CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "infini-demo"
ANSWERS = (
    "",
    "1234",
    " 1234.",
    "the key is 1234",
    "12345",
    "1,234",
    "2. 1234",
    "the 1st is 1234",
    "١٢٣٤",
    "apple 1234 pear",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passkey prompts of two lengths."""
    folder = tmp_path_factory.mktemp("data")
    options = {"context_lengths": (512, 1024), "depths": (0, 100), "num_prompts": 2, "num_digits": 4}
    infini_eval.generate_dataset(folder / "passkey.parquet", tokenizer=CHECKPOINT, **options)
    return folder / "passkey.parquet"


def module_of(file: Path) -> ModuleType:
    """A Python file as a module, entered nowhere, as lm-eval loads it."""
    spec = importlib.util.spec_from_file_location(f"{file.parent.name}.{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: f"function {loader.construct_scalar(node)}")


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(file.read_text(), _Loader)  # noqa: S506 - a safe loader with one tag more
    return found


def test_a_group_of_lengths_with_rows_and_scoring(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "tasks"
    assert main(["export", str(data), "--format", "lm-eval-task", "--output", str(place), "--max-new-tokens", "9"]) == 0
    said = capsys.readouterr().out
    assert "8 rows, 2 lengths, judged by exact_digits\n" in said
    assert f"lm_eval --include_path {place} --tasks infini_passkey --model" in said
    group = read(place / "infini_passkey.yaml")
    assert group["task"] == ["infini_passkey_512", "infini_passkey_1024"]
    assert group["aggregate_metric_list"][0] == {
        "metric": "exact_digits",
        "aggregation": "mean",
        "weight_by_size": False,
    }
    task = read(place / "infini_passkey_512.yaml")
    assert task["generation_kwargs"] == {"until": [], "max_gen_toks": 9, "do_sample": False, "temperature": 0.0}
    assert task["custom_dataset"] == "function infini_passkey.load" and task["dataset_kwargs"] == {
        "context_length": 512
    }
    made = module_of(place / "infini_passkey.py")
    rows = made.load(**task["dataset_kwargs"], **task["metadata"])["test"]
    samples = [sample for sample in load_samples(data).samples if sample.context_length == 512]
    assert [(row["id"], row["prompt"], row["answer"]) for row in rows] == [(s.id, s.prompt, s.answer) for s in samples]
    moved = place.rename(tmp_path / "elsewhere")
    assert len(module_of(moved / "infini_passkey.py").load()["test"]) == 8


@pytest.mark.parametrize("name", WRITABLE)
def test_scores_are_ours(name: str, tmp_path: Path) -> None:
    pytest.importorskip("rouge_score")
    asked = [("1234", []), ("1234", ["1234", "apple"]), ("the apple", ["Apple", "pear 7"])]
    rows = [
        {"id": str(number), "prompt": "p", "answer": answer, "outputs": outputs, "depth_percent": 0}
        for number, (answer, outputs) in enumerate(asked)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    infini_eval.export(file, format="lm-eval-task", output=tmp_path, task="qa", scorer=name, task_name="mine")
    made = module_of(tmp_path / "mine.py")
    text = (tmp_path / "mine.py").read_text()
    assert "import infini_eval" not in text and "from infini_eval" not in text
    ours, samples = registry.scorer(name), load_samples(file).samples
    scores = set()
    for doc, sample in zip(made.load()["test"], samples, strict=True):
        for answer in ANSWERS:
            found = made.process_results(doc, [answer])
            assert found[name] == ours(answer, sample).value
            scores.add(found[name])
    assert len(scores) > 1 and next(iter(found)) == name


def test_what_cannot_be_a_task_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("id,prompt,answer,depth_percent\na,p,1,0\nb,p,2,0\nc,p,2,10\n")
    command = ["export", str(file), "--format", "lm-eval-task", "--output", str(tmp_path / "out")]
    for more, message in (
        ((), "does not say which task it is for"),
        (("--task", "passkey", "--scorer", "semantic_similarity"), "cannot stand in a file of its own"),
        (("--task", "passkey", "--task-name", "a b"), "--task-name 'a b'"),
        (("--task", "aa_lcr_judge"), "judge"),
        (("--task", "nonsense"), "unknown task"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_mean_is_over_depths_where_they_have_different_numbers_of_rows(tmp_path: Path) -> None:
    """One of three rows at depth 0 is right, none at 10: 1/6 over depths, 1/4 over rows."""
    file = tmp_path / "rows.csv"
    file.write_text("id,prompt,answer,depth_percent\na,p a,1,0\nb,p b,2,0\nc,p c,3,0\nd,p d,4,10\n")
    infini_eval.export(file, format="lm-eval-task", output=tmp_path, task="passkey")
    made, task = module_of(tmp_path / "infini_passkey.py"), read(tmp_path / "infini_passkey.yaml")
    assert task["metric_list"][0]["aggregation"] == "function infini_passkey.mean_over_depths"
    pairs = [made.process_results(doc, ["1"]) for doc in made.load()["test"]]
    assert made.mean_over_depths([one["exact_digits"] for one in pairs]) == pytest.approx(1 / 6)
    result = infini_eval.evaluate(lambda prompts: ["1" for _ in prompts], data=file, save_path=tmp_path / "run")
    assert result.accuracy == pytest.approx(100 / 6, abs=1e-3)


def test_lm_eval_asks_the_prompts_as_they_are_and_finds_our_accuracy(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is large and pins packages of its own")
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    samples = load_samples(data).samples
    replies = {sample.prompt: sample.answer if i % 3 else "no" for i, sample in enumerate(samples)}

    class Told(LM):
        def generate_until(self, requests: Any, **_: Any) -> list[str]:
            assert all(request.args[1]["max_gen_toks"] == 15 for request in requests)
            return [replies[request.args[0]] for request in requests]

        def loglikelihood(self, requests: Any, **_: Any) -> Any:
            raise AssertionError

        loglikelihood_rolling = loglikelihood

    infini_eval.export(data, format="lm-eval-task", output=tmp_path)
    tasks = TaskManager(include_path=str(tmp_path))
    found = simple_evaluate(Told(), tasks=["infini_passkey"], task_manager=tasks)["results"]
    result = infini_eval.evaluate(
        lambda prompts: [replies[prompt] for prompt in prompts], data=data, save_path=tmp_path / "run", quiet=True
    )
    for block in result.summary.by_context_length:
        theirs = found[f"infini_passkey_{block.context_length:.0f}"]["exact_digits,none"]
        assert 100 * theirs == pytest.approx(block.summary_stats.average_accuracy)
    assert 0 < found["infini_passkey"]["exact_digits,none"] < 1
