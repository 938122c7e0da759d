"""The toolkit from Python: every kind of model and of data gives the answers of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import infini_eval
from infini_eval.errors import ConfigError, DataError
from infini_eval.testing.fake_runs import FakeRun, write_fake_run

ROOT = Path(__file__).resolve().parents[1]
DEMO, LLAMA = ROOT / "checkpoints/infini-demo", ROOT / "checkpoints/llama-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
FEW = {"depths": (0, 100), "num_samples": 2, "device": "cpu"}


def texts(result: infini_eval.EvalResult) -> dict[str, str]:
    frame = result.to_pandas()
    return dict(zip(frame["sample_key"], frame["generation_text"], strict=True))


@pytest.fixture(scope="module")
def by_path(tmp_path_factory: pytest.TempPathFactory) -> infini_eval.EvalResult:
    return infini_eval.evaluate(DEMO, data=DATA, save_path=tmp_path_factory.mktemp("library") / "run", **FEW)


def test_a_checkpoint_by_its_path(by_path: infini_eval.EvalResult) -> None:
    assert len(texts(by_path)) == 4
    assert by_path.summary.total_samples == 4
    assert by_path.accuracy == by_path.summary.summary_stats.average_accuracy
    assert by_path.to_json() == json.loads(json.dumps(by_path.to_json()))
    assert "depth" in by_path.report().lower()
    assert texts(infini_eval.analyze(by_path.folder)) == texts(by_path)


def test_a_notebook_shows_a_card(by_path: infini_eval.EvalResult) -> None:
    """Accuracy with its interval, the verdict and the tables of the page; nothing is fetched, nothing runs."""
    shown, stats = by_path._repr_html_(), by_path.summary.summary_stats
    assert f"{stats.average_accuracy:.1f} %" in shown
    assert f"{stats.average_ci_low:.1f} to {stats.average_ci_high:.1f} %" in shown
    assert by_path.summary.headline.words in shown
    assert shown.count("<table>") == 2 and "By depth at 1k tokens" in shown
    assert not any(word in shown for word in ("<script", "http://", "https://", " src=", "<html"))


def test_a_card_escapes_foreign_text(tmp_path: Path) -> None:
    name = "M<script>alert(1)</script>"
    shown = infini_eval.analyze(write_fake_run(tmp_path, FakeRun(depths=(0, 50), per_cell=3, name=name)))._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown


def test_a_length_without_any_answer_has_a_card_too(tmp_path: Path) -> None:
    run = FakeRun(lengths=(1024, 2048), depths=(0, 50), per_cell=3, fails=lambda length, depth, number: length == 2048)
    shown = infini_eval.analyze(write_fake_run(tmp_path, run))._repr_html_()
    assert "no sample was answered" in shown and "the worst length" in shown


def test_the_same_call_again_continues(by_path: infini_eval.EvalResult) -> None:
    before = (by_path.folder / "samples.parquet").read_bytes()
    again = infini_eval.evaluate(DEMO, data=DATA, save_path=by_path.folder, **FEW)
    assert texts(again) == texts(by_path) and (by_path.folder / "samples.parquet").read_bytes() == before


def test_a_loaded_native_model(by_path: infini_eval.EvalResult, tmp_path: Path) -> None:
    model = infini_eval.load_model(DEMO, device="cpu")
    assert texts(
        infini_eval.evaluate(model, data=DATA, save_path=tmp_path / "run", depths=(0, 100), num_samples=2)
    ) == (texts(by_path))
    ablated = infini_eval.load_model(DEMO, device="cpu", memory="ablate")
    result = infini_eval.evaluate(ablated, data=DATA, save_path=tmp_path / "ablated", depths=(0,), num_samples=2)
    assert result.accuracy == 0, "the settings that the model was loaded with are those of the run"


def test_a_loaded_hugging_face_model_leaves_as_it_came(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(LLAMA), AutoTokenizer.from_pretrained(LLAMA)
    model.train()
    model.generation_config.repetition_penalty = 9.0
    loaded = infini_eval.evaluate(model, tokenizer=tokenizer, data=DATA, save_path=tmp_path / "loaded", **FEW)
    assert model.training and model.generation_config.repetition_penalty == 9.0
    opened = infini_eval.evaluate(LLAMA, data=DATA, save_path=tmp_path / "opened", **FEW)
    assert texts(loaded) == texts(opened)
    with pytest.raises(ConfigError, match="tokenizer"):
        infini_eval.evaluate(model, data=DATA, save_path=tmp_path / "without", **FEW)


def rows() -> list[dict[str, Any]]:
    return [{"prompt": f"The key is {key}. What is it?", "answer": key, "depth_percent": 0.0} for key in ("12", "345")]


def frame() -> Any:
    import pandas as pd

    return pd.DataFrame(rows())


def dataset() -> Any:
    import datasets

    return datasets.Dataset.from_list(rows())


@pytest.mark.parametrize("data", [rows, frame, dataset])
def test_a_function_on_data_in_memory(data: Any, tmp_path: Path) -> None:
    def echo(prompts: list[str]) -> list[str]:
        return [prompt.split("?")[0][-50:] for prompt in prompts]

    result = infini_eval.evaluate(echo, data=data(), save_path=tmp_path / "run")
    assert result.accuracy == 100
    assert result.summary.run.model["kind"] == "function"
    assert result.summary.prompt_tokens is None, "nobody counted tokens: no length of 0"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"model": 3, "data": DATA}, "NativeModel"),
        ({"model": ROOT / "docs", "data": DATA}, "config.yaml"),
        ({"model": DEMO, "data": 3}, "datasets.Dataset"),
        ({"model": DEMO, "data": []}, "without rows"),
        ({"model": DEMO, "data": DATA, "num_sampels": 3}, "num_samples"),
        ({"model": DEMO, "data": DATA, "task": "paskey"}, "did you mean passkey"),
    ],
)
def test_mistakes_are_said(call: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError)) as error:
        infini_eval.evaluate(**call, save_path=tmp_path / "run")
    assert said in str(error.value)


def test_data_are_made_and_evaluated(tmp_path: Path) -> None:
    made = infini_eval.generate_dataset(
        tmp_path / "data", tokenizer=DEMO, context_lengths=512, depths=(0, 100), num_prompts=2, num_digits=4
    )
    assert made.num_rows == 4 and made.warnings == made.notes == []
    result = infini_eval.evaluate(DEMO, data=made.path, save_path=tmp_path / "run", device="cpu")
    frame = result.to_pandas()
    assert len(frame) == 4 and set(frame["prompt_tokens"]) == {512} and set(frame["depth_percent"]) == {0, 100}


def test_generated_data_are_those_of_the_command(tmp_path: Path) -> None:
    from infini_eval.cli.main import main

    flags = "--task niah --char-count 3000 --depths random --num_prompts 2 --num_digits 4,5 --quiet".split()
    flags += ["--option", "needle=The lamp is amber.", "--option", "question=What is the lamp?"]
    assert main(["generate", *flags, "--tokenizer", str(DEMO), "--save_path", str(tmp_path / "a")]) == 0
    made = infini_eval.generate_dataset(
        tmp_path / "b", tokenizer=DEMO, task="niah", char_counts=3000, depths=None, num_prompts=2, num_digits=(4, 5),
        options={"needle": "The lamp is amber.", "question": "What is the lamp?"},
    )  # fmt: skip
    assert made.notes and made.path.name == "train-00000-of-00001.parquet" and "characters" in made.notes[0]
    random = infini_eval.generate_dataset(
        tmp_path / "c", tokenizer=DEMO, task="niah", char_counts=3000, depths=(None,), num_prompts=2, num_digits=(4, 5),
        options={"needle": "The lamp is amber.", "question": "What is the lamp?"},
    )  # fmt: skip
    assert random.path.read_bytes() == (tmp_path / "a" / made.path.name).read_bytes() != made.path.read_bytes()


def test_nothing_is_printed_and_warnings_are_values(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = infini_eval.generate_dataset(
        tmp_path, tokenizer=DEMO, context_lengths=600, depths=50, num_prompts=60, pool_tokens=8192, format="hf"
    )
    assert ["60 haystacks of 600 tokens are asked for" in text for text in made.warnings] == [True]
    assert made.path.name == "needle_eval_data_and_600_ctx_and_depth_50_and_id_1_and_num_shots_0"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context_length": 600}, "no option 'context_length'"),
        ({}, "the size of the prompts is needed once"),
        ({"context_lengths": 600, "haystack_per": "day"}, "--haystack-per 'day' is not known"),
        ({"context_lengths": 600, "depths": 101}, "outside 0..100"),
        ({"context_lengths": 0}, "no prompts"),
        ({"context_lengths": 600, "format": "csv"}, "the format 'csv' is not known"),
        ({"context_lengths": 600, "task": "aa_lcr"}, "has data of its own"),
        ({"context_lengths": 600, "num_digits": 19}, "outside 1..18"),
    ],
)
def test_mistakes_in_making_data(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        infini_eval.generate_dataset(tmp_path / "data", tokenizer=DEMO, **options)
    assert not (tmp_path / "data").exists()


def test_runs_are_compared_in_pairs(by_path: infini_eval.EvalResult, tmp_path: Path) -> None:
    ablated = infini_eval.evaluate(DEMO, data=DATA, save_path=tmp_path / "ablated", memory="ablate", **FEW)
    overall = infini_eval.compare(by_path, ablated.folder).comparisons[0].overall
    assert overall.difference == ablated.accuracy - by_path.accuracy
    with pytest.raises(ConfigError, match="1 run folder"):
        infini_eval.compare(by_path)


def test_rows_with_columns_of_their_own(tmp_path: Path) -> None:
    rows = [{"asks": f"{n}?", "is": n if n % 2 else str(n)} for n in range(4)]  # answers of two types
    by_name = infini_eval.evaluate("fake:any", data=rows, columns={"prompt": "asks", "answer": "is"}, task="qa")
    by_text = infini_eval.evaluate("any", data=rows, columns="prompt=asks,answer=is", task="qa", backend="fake")
    assert by_name.accuracy == by_text.accuracy == 100
    assert texts(by_name) == texts(by_text)
    with pytest.raises(ConfigError, match="columns='prompt' is not a mapping"):
        infini_eval.evaluate("fake:any", data=rows, columns="prompt", task="qa")
