"""The provider of Inspect, where inspect-ai is installed (scripts/harnesses.sh inspect runs these in its environment)."""

from __future__ import annotations

import asyncio
import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import infini_eval
from infini_eval.testing.tiny_models import CHAT_TEMPLATE, tiny_config, write_tiny_checkpoint

inspect_ai = pytest.importorskip("inspect_ai", reason="inspect-ai brings 35 packages: scripts/harnesses.sh inspect")

from inspect_ai._util.error import PrerequisiteError  # noqa: E402 - where it is installed
from inspect_ai.model import (  # noqa: E402
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.tool import ToolInfo  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "checkpoints/infini-demo"
TASK = "examples/harnesses/inspect/long_context.py"  # Inspect looks below the working directory
DATA = ROOT / "examples/infinite-context-length/data/demo-1024-passkey-eval"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Llama with few positions."""
    folder = tmp_path_factory.mktemp("tiny") / "1"
    config = tiny_config(vocab_size=1024, num_hidden_layers=2, infini=False, max_position_embeddings=64)
    write_tiny_checkpoint(folder, config)
    shutil.copytree(DEMO / "tokenizer", folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    made = get_model(f"infini/{path}", device="cpu", memoize=False)
    yield made
    made.api.close()


def ask(model: Model, *chats: Any, **config: Any) -> list[ModelOutput]:
    """The outputs of calls that wait at the same time."""

    async def all_at_once() -> list[ModelOutput]:
        return await asyncio.gather(*(model.generate(chat, config=GenerateConfig(**config)) for chat in chats))

    return asyncio.run(all_at_once())


def test_the_entry_point_names_the_provider() -> None:
    (found,) = (one for one in importlib.metadata.entry_points(group="inspect_ai") if one.name == "infini_eval")
    assert found.value == "infini_eval.harnesses.inspect"


def test_answers_usage_and_reasons_are_those_of_the_model(model: Model, path: Path) -> None:
    prompts = ["The passkey is 12345.", "What?", "The"]
    expected = infini_eval.load_model(path, device="cpu").complete(prompts, 9)
    for output, ours in zip(ask(model, *prompts, max_tokens=9), expected, strict=True):
        assert output.completion == ours.text and output.usage is not None
        assert output.stop_reason == {"stop": "stop", "length": "max_tokens"}[ours.finish_reason]
        assert output.usage.input_tokens + (output.usage.input_tokens_cache_read or 0) == ours.prompt_tokens
        assert output.usage.output_tokens == len(ours.token_ids)
    (whole,) = ask(model, "The", max_tokens=9)
    stop = whole.completion[2:4]
    (cut,) = ask(model, "The", max_tokens=9, stop_seqs=[stop])
    assert cut.completion == whole.completion[: whole.completion.index(stop)] and cut.stop_reason == "stop"


def test_drawing_choices_and_logprobs(model: Model) -> None:
    drawn = [
        {ask(get_model(f"infini/{model.api.model_name}", device="cpu", memoize=False), "The", **config)[0].completion}
        for config in (
            {"temperature": 1.0, "seed": 1},
            {"temperature": 1.0, "seed": 1},
            {"temperature": 1.0, "seed": 2},
        )
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    (nearly_greedy,) = ask(model, "The", max_tokens=5, temperature=1.0, top_k=1)
    (several,) = ask(model, "The", max_tokens=5, temperature=1.0, num_choices=3)
    (greedy,) = ask(model, "The", max_tokens=5, logprobs=True, top_logprobs=2)
    assert nearly_greedy.completion == greedy.completion
    assert len({choice.message.text for choice in several.choices}) == 3 and several.usage.output_tokens == 15
    assert greedy.choices[0].logprobs is not None
    content = greedy.choices[0].logprobs.content
    assert greedy.completion.startswith(content[0].token) and len(content) == 5
    assert all(one.top_logprobs[0].token == one.token and one.logprob < 0 for one in content)


def test_chats_and_what_a_prompt_may_not_hold(model: Model, path: Path, tmp_path: Path) -> None:
    chat = [ChatMessageSystem(content="Be short."), ChatMessageUser(content="Hi."), ChatMessageAssistant(content="Yes")]
    file = tmp_path / "template.jinja"
    file.write_text(CHAT_TEMPLATE)
    templated = get_model(f"infini/{path}", device="cpu", chat_template=str(file), memoize=False)
    ours = infini_eval.load_model(path, device="cpu")
    plain = ours.complete(["Be short.\n\nUser: Hi.\n\nAssistant:"], 5)[0].text
    ours.tokenizer.settings["chat_template"] = CHAT_TEMPLATE
    text = ours.tokenizer.render_chat([{"role": one.role, "content": one.text} for one in chat[:2]])
    rendered = ours.complete([ours.tokenizer.encode(text, add_special_tokens=False)], 5)[0].text
    assert ask(model, chat[:2], max_tokens=5)[0].completion == plain
    assert ask(templated, chat[:2], max_tokens=5)[0].completion == rendered
    image = ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA")])
    with pytest.raises(Exception, match="a message holds image"):
        ask(model, [image])
    with pytest.raises(Exception, match="tools are offered"):
        asyncio.run(model.generate("Hi.", tools=[ToolInfo(name="search", description="d")]))
    (long,) = ask(model, "The passkey is 12345. " * 30)
    assert long.stop_reason == "model_length" and "64" in str(long.error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"memory": "none"}, "memory=none"), ({"tp": 2}, "infini-eval launch"), ({"batch_size": 0}, "batch_size")],
)
def test_wrong_arguments_are_a_message(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PrerequisiteError, match=message):
        get_model(f"infini/{path}", memoize=False, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["on", "ablate"])
def test_a_task_scores_as_our_own_run(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generated passkey prompts: recalled with the memory, not without it, in Inspect as here."""
    monkeypatch.chdir(ROOT)
    (log,) = inspect_ai.eval(
        TASK,
        model=f"infini/{DEMO}",
        model_args={"memory": memory, "device": "cpu"},
        task_args={"data": str(DATA), "samples": 1},
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    assert log.status == "success", log.error
    ours = infini_eval.evaluate(
        DEMO, data=DATA, save_path=tmp_path / "run", num_samples=1, memory=memory, device="cpu", quiet=True
    )
    theirs = {score.name: score.metrics["mean"].value for score in log.results.scores}
    assert 100 * theirs["exact_digits"] == pytest.approx(ours.accuracy, abs=1e-4)
    assert theirs["exact_digits"] == 1.0 if memory == "on" else theirs["exact_digits"] < 0.3
