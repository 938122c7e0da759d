"""Inspect (the package inspect-ai): the model provider `infini`, by entry point.

    inspect eval TASK --model infini//PATH/TO/CHECKPOINT -M memory=ablate

Inspect imports this file whenever it looks for extensions: torch waits until the model is asked for. Written against
inspect-ai's public classes (`ModelAPI`, `modelapi`), version 0.3.285.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import current_token
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    TopLogprob,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from infini_eval.config import Sampling
from infini_eval.errors import BackendError, ConfigError, InfiniEvalError
from infini_eval.options import COOLEST, positive_int

if TYPE_CHECKING:
    import numpy as np

    from infini_eval.serve.scheduler import Answer, TokenScore

logger = logging.getLogger(__name__)
MAX_TOKENS = 256  # of an answer where neither the task nor the command says
BATCH_SIZE = 16
STOP_REASONS: dict[str, StopReason] = {"stop": "stop", "length": "max_tokens"}
# What would change an answer and is not done here.
WITHOUT_EFFECT = (
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "response_schema",
    "prompt_logprobs",
)


@modelapi(name="infini")
class InfiniModel(ModelAPI):  # type: ignore[misc]
    """A nanotron checkpoint, Infini-Attention or plain Llama, computed in this process; concurrent calls are batched.

    Model arguments (-M NAME=VALUE): memory, memory_query, memory_dtype, dtype, device, chunk_segments, prefix_cache_gb, …
    by the names of their flags; tokenizer; batch_size, prompts computed together at most; chat_template, a Jinja file, or
    off for transcripts.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as Inspect's own classes have it
        **model_args: Any,
    ) -> None:
        from infini_eval.harnesses.batched import BatchedModel

        super().__init__(model_name, base_url, api_key, [], config)
        with _as_prerequisite():
            if base_url is not None:
                raise ConfigError(
                    "the model is computed in this process: it has no address", next_step="leave base_url out"
                )
            template = model_args.pop("chat_template", None)
            size = model_args.pop("batch_size", None)
            tokenizer = model_args.pop("tokenizer", None)
            self._batch_size = BATCH_SIZE if size is None else positive_int(str(size))
            self._batched = BatchedModel(
                model_name,
                tokenizer=tokenizer,
                batch_size=self._batch_size,
                chat_template="off" if template is False else template,  # YAML reads off as false
                arguments=model_args,
            )
        self._warned: set[str] = set()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """The answer to a chat, or as many as `num_choices` says; calls that wait at the same time are computed together."""
        if tools:
            raise ConfigError(
                f"tools are offered to the model ({', '.join(tool.name for tool in tools)}), which calls none",
                next_step="a task without tools",
            )
        self._warn_of(config)
        began = time.perf_counter()
        ids = await anyio.to_thread.run_sync(self._batched.prompt, [_turn(message) for message in input])
        if (too_long := self._too_long(ids)) is not None:
            return too_long
        answers: list[Answer] = []
        async with anyio.create_task_group() as group:
            for _ in range(config.num_choices or 1):
                group.start_soon(self._answer, ids, config, answers)
        return self._output(ids, answers, time.perf_counter() - began)

    async def _answer(self, ids: np.ndarray, config: GenerateConfig, answers: list[Answer]) -> None:
        """Wait for one answer."""
        ended, token = anyio.Event(), current_token()
        found: list[Answer | BackendError] = []

        def done(answer: Answer | BackendError) -> None:
            found.append(answer)
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                anyio.from_thread.run_sync(ended.set, token=token)

        forget = self._batched.submit(
            ids,
            config.max_tokens or MAX_TOKENS,
            sampling=_sampling(config),
            stop=[stop for stop in config.stop_seqs or () if stop],
            top=(config.top_logprobs or 0) if config.logprobs else None,
            done=done,
        )
        try:
            await ended.wait()
        finally:
            forget()
        if isinstance(found[0], BackendError):
            raise found[0]
        answers.append(found[0])

    def _output(self, ids: np.ndarray, answers: Sequence[Answer], seconds: float) -> ModelOutput:
        read, reused = len(ids) * len(answers), sum(answer.reused_tokens for answer in answers)
        wrote = sum(answer.new_tokens for answer in answers)
        usage = ModelUsage(
            input_tokens=read - reused,  # Inspect counts those of a cache apart
            input_tokens_cache_read=reused,
            output_tokens=wrote,
            total_tokens=read + wrote,
        )
        choices = [self._choice(answer) for answer in answers]
        return ModelOutput(model=self.model_name, choices=choices, usage=usage, time=seconds)

    def _choice(self, answer: Answer) -> ChatCompletionChoice:
        message = ChatMessageAssistant(content=answer.text, model=self.model_name, source="generate")
        told = None if answer.scores is None else Logprobs(content=[self._logprob(one) for one in answer.scores])
        reason = STOP_REASONS.get(answer.finish_reason, "unknown")
        return ChatCompletionChoice(message=message, stop_reason=reason, logprobs=told)

    def _logprob(self, score: TokenScore) -> Logprob:
        text = self._batched.token_text
        top = [TopLogprob(token=text(token_id), logprob=logprob) for token_id, logprob in score.top]
        return Logprob(token=text(score.token_id), logprob=score.logprob, top_logprobs=top or None)

    def _too_long(self, ids: np.ndarray) -> ModelOutput | None:
        """What Inspect is told of a prompt that exceeds a plain Llama's positions; Infini-Attention has no such limit."""
        model = self._batched.model
        if not model.has_length_limit or len(ids) <= model.max_length:
            return None
        said = f"the prompt has {len(ids):,} tokens, the model positions for {model.max_length:,}"
        return ModelOutput.from_content(self.model_name, said, stop_reason="model_length", error=said)

    def _warn_of(self, config: GenerateConfig) -> None:
        """Say once of each setting that it is not heeded."""
        for name in WITHOUT_EFFECT:
            if getattr(config, name, None) and name not in self._warned:
                self._warned.add(name)
                logger.warning("the model provider infini does not heed %s", name)

    async def count_text_tokens(self, text: str) -> int:
        """Tokens of a text, by the model's own tokenizer."""
        return self._batched.tokenizer.count(text, add_special_tokens=False)

    def max_tokens(self) -> int | None:
        """Tokens of an answer at most, where nobody says."""
        return MAX_TOKENS

    def max_connections(self) -> int:
        """Calls at the same time: those of one batch computing, and of the next waiting."""
        return 2 * self._batch_size

    def connection_key(self) -> str:
        """Calls to the same checkpoint in this process share the limit."""
        return str(self.model_name)

    def close(self) -> None:
        """Finish what is queued, and end the engine's thread."""
        self._batched.close()


def _turn(message: ChatMessage) -> tuple[str, str]:
    """Role and text of a message; ConfigError where it holds anything else."""
    others = [] if isinstance(message.content, str) else [part.type for part in message.content if part.type != "text"]
    others = [kind for kind in others if kind != "reasoning"]  # thoughts of earlier answers are left out, as in chats
    if others:
        raise ConfigError(
            f"a message holds {', '.join(sorted(set(others)))}", valid="text: the model reads nothing else"
        )
    return str(message.role), str(message.text)


def _sampling(config: GenerateConfig) -> Sampling:
    """How tokens are drawn: greedy where no temperature is given; the seed is 0 where none is."""
    temperature = config.temperature or 0.0
    if 0 < temperature < COOLEST:
        raise ConfigError(f"temperature is {temperature:g}", valid=f"0, or at least {COOLEST:g}")
    top_p = 1.0 if config.top_p is None else config.top_p
    return Sampling(temperature, max(0, config.top_k or 0), top_p, config.seed or 0)


@contextlib.contextmanager
def _as_prerequisite() -> Iterator[None]:
    """Have Inspect show a user's mistake as a message, without a traceback."""
    from inspect_ai._util.error import PrerequisiteError

    try:
        yield
    except argparse.ArgumentTypeError as error:
        raise PrerequisiteError(f"batch_size: {error}") from None
    except InfiniEvalError as error:
        raise PrerequisiteError(str(error)) from None
