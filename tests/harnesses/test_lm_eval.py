"""The model `infini` of lm-eval, by lm-eval's own classes; skipped, saying so, where lm-eval is not installed."""

from __future__ import annotations

import importlib
import json
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from infini_eval.cli.main import main
from infini_eval.errors import ConfigError
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, tiny_config, write_tiny_checkpoint

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'infini-eval[lm-eval]'")
ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "checkpoints/infini-demo/tokenizer"
TEXT = "The pass key is 48151. Remember it. Laura eagerly admired the jagged spire from Valencia."


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "1"
    write_tiny_checkpoint(folder, tiny_config(vocab_size=1024, num_hidden_layers=2))
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def lm(path):
    return opened(path)


def opened(path: Path, **arguments):
    from infini_eval.harnesses.lm_eval import InfiniLM

    return InfiniLM.create_from_arg_obj({"pretrained": str(path), **arguments}, {"device": "cpu", "batch_size": 1})


def requests(*arguments: tuple) -> list:
    return [SimpleNamespace(args=each) for each in arguments]


def scored(lm, ids: list[int], count: int) -> float:
    return float(lm.model.score([ids], [count], vocabulary=lm.tokenizer.vocab_size)[0].logprobs.sum())


def test_continuations_are_scored_after_their_contexts(lm) -> None:
    pairs = [(TEXT, " Yes"), (TEXT, " No way"), ("", "Laura"), (TEXT + " ", "48151")]
    found = lm.loglikelihood(requests(*pairs), disable_tqdm=True)
    encode = lm.tok_encode
    for (context, continuation), (logprob, greedy) in zip(pairs, found, strict=True):
        whole = encode(context + continuation) if context else [lm.prefix_token_id, *encode(continuation)]
        count = len(whole) - max(1, len(encode(context.rstrip())))
        assert logprob == pytest.approx(scored(lm, whole, count), abs=1e-4) and greedy is False
    best = lm.model.generate([encode(TEXT)], 2, stop_ids=(), vocabulary=lm.tokenizer.vocab_size)[0]
    pair = ((TEXT, ""), encode(TEXT), best)
    assert lm._loglikelihood_tokens([pair, ((TEXT, ""), encode(TEXT), [])])[0][1] is True
    assert lm._loglikelihood_tokens([((TEXT, ""), encode(TEXT), [])]) == [(0.0, True)]


def test_whole_texts_are_measured_in_one_piece_or_in_windows(lm, path) -> None:
    ids = lm.tok_encode(TEXT)
    whole, nothing = lm.loglikelihood_rolling(requests((TEXT,), ("",)), disable_tqdm=True)
    assert whole == pytest.approx(scored(lm, [lm.prefix_token_id, *ids], len(ids)), abs=1e-4) and nothing == 0
    short = opened(path, max_length=8)
    windows = [([lm.prefix_token_id], ids[:8])]
    for start in range(8, len(ids), 8):
        end = min(start + 8, len(ids))
        windows.append((ids[end - 9 : start], ids[start:end]))
    expected = sum(scored(lm, context + tokens, len(tokens)) for context, tokens in windows)
    assert short.loglikelihood_rolling(requests((TEXT,)), disable_tqdm=True)[0] == pytest.approx(expected, abs=1e-4)


def test_answers_end_at_their_stop_strings(lm) -> None:
    free = lm.generate_until(requests((TEXT, {"max_gen_toks": 12, "until": []})), disable_tqdm=True)[0]
    assert free == lm.model.complete([lm.tok_encode(TEXT)], 12)[0].text
    stop = free[3:6]
    asked = requests(
        (TEXT, {"until": [stop, "<|endoftext|>"], "max_new_tokens": 12}),
        ("Laura", {"until": "never", "max_gen_toks": 3}),
        (TEXT, {"until": [], "max_gen_toks": 5, "do_sample": True, "temperature": 1.5, "top_k": 9}),
    )
    cut, short, drawn = lm.generate_until(asked, disable_tqdm=True)
    assert cut == free[: free.find(stop)]
    assert short == lm.model.complete([lm.tok_encode("Laura")], 3)[0].text
    assert drawn == lm.model.complete([lm.tok_encode(TEXT)], 5, temperature=1.5, top_k=9)[0].text


def test_contexts_longer_than_a_limit_lose_their_beginning(path, caplog) -> None:
    short = opened(path, max_length=10)
    ids = short.tok_encode(TEXT)
    assert short.generate_until(requests((TEXT, {"max_gen_toks": 4})), disable_tqdm=True) == [
        short.model.complete([ids[-6:]], 4)[0].text
    ]
    assert "lose their first" in caplog.text
    _, tokens = short._encode_pair(TEXT, " Yes")
    found = short.loglikelihood(requests((TEXT, " Yes")), disable_tqdm=True)[0][0]
    assert found == pytest.approx(scored(short, [*ids, *tokens][-11:], len(tokens)), abs=1e-4)


def test_a_plain_llama_has_a_limit_and_segments_have_none(lm, tmp_path) -> None:
    folder = write_tiny_checkpoint(
        tmp_path / "1", tiny_config(infini=False, vocab_size=1024, max_position_embeddings=64)
    )
    assert (lm.max_length, opened(folder, tokenizer=str(TOKENIZER)).max_length) == (None, 64)


@pytest.mark.parametrize(
    ("given", "size"), [((1, None), None), (("auto:4", None), None), ((1, 1), 1), (("16", None), 16), (("auto", 3), 3)]
)
def test_rows_of_a_batch(given, size) -> None:
    from infini_eval.harnesses.lm_eval import _batch_size

    assert _batch_size(*given) == size


def test_chats_are_written_by_the_template(lm, path, tmp_path) -> None:
    assert lm.chat_template(True) is None
    shutil.copytree(TOKENIZER, tmp_path / "chat")
    (tmp_path / "chat/chat_template.jinja").write_text(CHAT_TEMPLATE)
    chat = opened(path, tokenizer=str(tmp_path / "chat"))
    assert chat.chat_template(True) == CHAT_TEMPLATE and chat.tokenizer_name != ""
    assert chat.apply_chat_template([{"role": "user", "content": " a "}]) == "[user]a[assistant]"
    assert chat.apply_chat_template([{"role": "user", "content": "a"}], add_generation_prompt=False).startswith(
        "[user]a"
    )


def test_arguments_that_are_missing_or_wrong_are_refused(path) -> None:
    from infini_eval.harnesses.lm_eval import InfiniLM

    with pytest.raises(ConfigError, match="no checkpoint"):
        InfiniLM()
    with pytest.raises(ConfigError, match="did you mean memory"):
        opened(path, memry="on")


def test_the_command_runs_tasks_of_ones_own(path, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": TEXT, "choices": [" a", " b"], "label": 1} for _ in range(2)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    choice = (ROOT / "examples/harnesses/lm-eval/demo_passkey_choice.yaml").read_text()
    Path("tasks").mkdir()
    Path("tasks/choice.yaml").write_text(
        choice.replace("results/harnesses/lm-eval/choice.jsonl", str(tmp_path / "rows.jsonl"))
    )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    words = [
        "lm-eval",
        "--model",
        "infini",
        "--device",
        "cpu",
        "--include_path",
        "tasks",
        "--tasks",
        "demo_passkey_choice",
    ]
    assert main([*words, "--model_args", f"pretrained={path},memory=ablate", "--output_path", "out"]) == 0
    assert "|demo_passkey_choice|" in capsys.readouterr().out
    results = json.loads(next(Path("out").rglob("results_*.json")).read_text())
    assert results["config"]["model"] == "infini" and "acc,none" in results["results"]["demo_passkey_choice"]
    assert main([*words, "--model_args", "pretrained=nowhere"]) == 2


def test_the_entry_point_names_the_model() -> None:
    from infini_eval.harnesses.lm_eval import InfiniLM

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["lm_eval.models"]["infini"].partition(":")
    assert getattr(importlib.import_module(module), name) is InfiniLM
