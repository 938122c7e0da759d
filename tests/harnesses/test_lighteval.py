"""The custom model of lighteval, by lighteval's own classes; skipped, saying so, where lighteval is not installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from infini_eval.errors import ConfigError
from infini_eval.testing.tiny_models import tiny_config, write_tiny_checkpoint

pytest.importorskip("lighteval", reason="lighteval is not installed: pip install 'infini-eval[lighteval]'")
TOKENIZER = Path(__file__).resolve().parents[2] / "checkpoints/infini-demo/tokenizer"


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    from lighteval.models.custom.custom_model import CustomModelConfig

    from infini_eval.harnesses.lighteval import InfiniLightevalModel

    folder = tmp_path_factory.mktemp("tiny") / "1"
    write_tiny_checkpoint(folder, tiny_config(vocab_size=1024, num_hidden_layers=2))
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    name = f"{folder}?memory=ablate&device=cpu"
    return InfiniLightevalModel(CustomModelConfig(model_name=name, model_definition_file_path="infini_model.py"))


def doc(**facts):
    from lighteval.tasks.requests import Doc

    return Doc(**{"query": "The pass key is", "choices": [" 4", " seven"], "gold_index": 0} | facts)


def test_answers_choices_and_texts_are_the_models_own(lm) -> None:
    assert lm.model.llama.settings.memory == "ablate" and lm.max_length == 4096
    free = lm.model.complete(["The pass key is"], 9)[0].text
    (answer, cut) = lm.greedy_until([doc(generation_size=9), doc(generation_size=9, stop_sequences=[free[2:4]])])
    assert answer.text == [free] and cut.text == [free[: free.find(free[2:4])]]
    (choices,) = lm.loglikelihood([doc()])
    encode = lm.model.tokenizer.encode
    for choice, logprob in zip([" 4", " seven"], choices.logprobs, strict=True):
        row = encode("The pass key is" + choice)
        count = len(row) - len(encode("The pass key is"))
        scored = lm.model.score([row], [count], vocabulary=lm.model.tokenizer.vocab_size)[0]
        assert logprob == pytest.approx(float(scored.logprobs.sum()), abs=1e-4)
    (text,) = lm.loglikelihood_rolling([doc()])
    row = [lm.tokenizer.eos_token_id, *encode("The pass key is")]
    whole = lm.model.score([row], [len(row) - 1], vocabulary=lm.model.tokenizer.vocab_size)[0]
    assert text.logprobs == [pytest.approx(float(whole.logprobs.sum()), abs=1e-4)]


def test_several_samples_an_answer_are_refused(lm) -> None:
    with pytest.raises(ConfigError, match="wants 4 samples"):
        lm.greedy_until([SimpleNamespace(num_samples=4, task_name="math")])
