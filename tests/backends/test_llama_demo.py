"""The shipped plain Llama: what is in its folder, and that it answers passkey prompts of about 1,000 and 2,000 tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infini_eval.config import EvalConfig, ModelSettings
from infini_eval.data.reading import load_samples

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "checkpoints/llama-demo"
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"
PASSAGE, NEEDLE, QUESTION = "Passage: ", ". The pass key is", "What is the pass key?"


@pytest.fixture(scope="module")
def greedy():
    """greedy(prompt) is the number of prompt tokens and what transformers' own generate replies."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL).eval()

    def reply(prompt: str) -> tuple[int, str]:
        inputs = tokenizer(prompt, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            # No limit near the answer's length: the model has to end by itself.
            out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
        return length, tokenizer.decode(out[0, length:], skip_special_tokens=True)

    return reply


@pytest.fixture(scope="module")
def rows():
    """One sample at each of seven depths."""
    samples = load_samples(DATA).samples
    return [
        next(sample for sample in samples if sample.depth_percent == depth) for depth in (0, 15, 30, 50, 70, 85, 100)
    ]


def haystack(prompt: str) -> str:
    """The text before the needle of a prompt whose needle comes last."""
    return prompt.split(PASSAGE, 1)[1].split(NEEDLE, 1)[0]


def test_the_folder_is_small_and_plain():
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["head_dim"], config["max_position_embeddings"]) == (64, 2048)
    # The same base frequency under the name of transformers 5 and under that of all others.
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 500_000
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 8_000_000
    assert {path.suffix for path in MODEL.iterdir()} == {".json", ".safetensors"}


def test_the_tokenizer_is_that_of_the_infini_checkpoint():
    shared = ROOT / "checkpoints/infini-demo/tokenizer/tokenizer.json"
    assert (MODEL / "tokenizer.json").read_bytes() == shared.read_bytes()


def test_it_answers_at_1024_tokens(greedy, rows):
    replies = [greedy(row.prompt) for row in rows]
    assert {length for length, _ in replies} == {1008}
    assert [reply for _, reply in replies] == [row.answer for row in rows]


def test_it_answers_at_about_2000_tokens(greedy, rows):
    more = haystack(rows[-1].prompt)
    for row in rows[:-1]:
        length, reply = greedy(row.prompt.replace(QUESTION, more + " " + QUESTION))
        assert 1900 < length < 2032 and reply == row.answer


def test_without_the_needle_there_is_no_key(greedy, rows):
    """The key is read from the prompt, not guessed."""
    row = rows[3]
    key = row.answer
    assert greedy(row.prompt.replace(key, ""))[1] != key


def test_the_transformers_backend_gets_the_answers(answers, opened, tmp_path):
    config = EvalConfig(
        str(MODEL),
        str(tmp_path),
        str(DATA),
        backend="transformers",
        model=ModelSettings(device="cpu"),
        max_new_tokens=12,
    )
    with opened(config) as it:
        expected = [sample.answer for sample in it.samples]
    assert [response.text.strip() for response in answers(config)] == expected
