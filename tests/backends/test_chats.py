"""Chats of several turns: models that chat are sent the turns, base models the transcript."""

from __future__ import annotations

import json
import shutil

import pytest

from infini_eval.api import registry
from infini_eval.config import EvalConfig, ModelSettings, PromptSettings
from infini_eval.data.columns import MESSAGES
from infini_eval.data.reading import load_samples
from infini_eval.distributed.launch import launch
from infini_eval.errors import DataError
from infini_eval.records import Sample
from infini_eval.tasks.passkey import TASK

TURNS = (
    ("system", "Be brief."),
    ("user", "The pass key is 48151. Remember it. 48151 is the pass key."),
    ("assistant", "Noted."),
    ("user", "What is the pass key?"),
)


@pytest.fixture
def chat(tmp_path) -> Sample:
    """The sample as it is read from a file."""
    rows = {"messages": [{"role": role, "content": text} for role, text in TURNS], "answer": 48151, "depth_percent": 0}
    (tmp_path / "chat.jsonl").write_text(json.dumps(rows) + "\n")
    (sample,) = load_samples(tmp_path / "chat.jsonl").samples
    assert sample.turns == TURNS and MESSAGES not in sample.columns
    return sample


def config_of(model, save_path, chat_template="auto") -> EvalConfig:
    weights = ModelSettings(device="cpu")
    return EvalConfig(
        str(model),
        str(save_path),
        "",
        backend="transformers",
        backend_settings=(PromptSettings(chat_template),),
        model=weights,
    )


def ask(config, sample: Sample, in_order):
    with launch("cpu") as world:
        backend = registry.load("backends", config.backend)(config, world)
        prepared = [backend.prepare(sample, TASK.locate(sample))]
        backend.load(backend.plan(prepared))
        return prepared[0], in_order(backend, prepared)[0]


def test_served_models_get_the_turns(serve, remote_config, chat, in_order) -> None:
    pytest.importorskip("openai")
    server = serve()
    ask(remote_config(server), chat, in_order)
    ask(remote_config(server, chat_template="off", replies="off"), chat, in_order)
    (_, _, chatted), (_, _, completed) = server.asked
    assert [(turn["role"], turn["content"]) for turn in chatted["messages"]] == list(TURNS)
    assert completed["prompt"] == chat.prompt and chat.prompt.endswith("User: What is the pass key?\n\nAssistant:")


def test_gemini_gets_the_turns_and_its_system_text(serve, remote_config, chat, in_order) -> None:
    pytest.importorskip("google.genai")
    server = serve()
    ask(remote_config(server, "gemini"), chat, in_order)
    (body,) = [body for path, _, body in server.asked if "generateContent" in path]
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["systemInstruction"]["parts"][0]["text"] == "Be brief."


def test_hugging_face_chat_models_get_the_turns_in_their_format(hf_chat_model, tmp_path, chat, in_order) -> None:
    item, _ = ask(config_of(hf_chat_model, tmp_path), chat, in_order)
    with launch("cpu") as world:
        tokenizer = registry.load("backends", "transformers")(
            config_of(hf_chat_model, tmp_path), world
        )._prompts.tokenizer
    assert tokenizer.decode(item.ids).count("[user]") == 4  # this template writes so before each turn
    needle = tokenizer.decode(item.ids[item.position.token_start : item.position.token_end])
    assert needle.strip().startswith("The pass key is 48151")
    plain, _ = ask(config_of(hf_chat_model, tmp_path, chat_template="off"), chat, in_order)
    assert "[user]" not in tokenizer.decode(plain.ids) and "Assistant:" in tokenizer.decode(plain.ids)


def test_a_template_that_refuses_a_role_is_a_message(hf_chat_model, tmp_path, chat, in_order) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(hf_chat_model, strict)
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}x"
    (strict / "chat_template.jinja").write_text(template)
    with pytest.raises(DataError, match=r"refuses a chat of the roles system, user, assistant, user: no system turns"):
        ask(config_of(strict, tmp_path / "run"), chat, in_order)
