"""What a server knows of its model, and how requests become jobs: prompts as token ids, chats by their template, limits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from infini_eval.data.tokenizer import Tokenizer
from infini_eval.errors import DataError, in_one_line
from infini_eval.foreign import shown
from infini_eval.serve.protocol import ApiError, ChatRequest, CompletionRequest
from infini_eval.serve.scheduler import Job, Report, Scheduler
from infini_eval.serve.settings import ServeSettings
from infini_eval.serve.text import token_texts

NO_TEMPLATE = (
    "this model has no chat template: ask it by /v1/completions, or start the server with --chat-template FILE"
)


@dataclass(frozen=True)
class Service:
    """A served model. `vocabulary`: number of real tokens; `most_tokens`: of a prompt."""

    name: str
    tokenizer: Tokenizer
    scheduler: Scheduler
    settings: ServeSettings
    vocabulary: int
    most_tokens: int
    key: str | None = None
    seed: int = field(default_factory=lambda: secrets.randbits(62))  # of requests that bring none
    started: int = field(default_factory=lambda: int(time.time()))

    def check_model(self, name: str) -> None:
        """ApiError where a request is for another model."""
        if name != self.name:
            raise ApiError(
                404,
                f"the model {shown(name)} is not served here, but {self.name!r}",
                param="model",
                code="model_not_found",
            )

    def prompts(self, request: CompletionRequest) -> list[np.ndarray]:
        """The token ids of each prompt of a completion, with the special tokens that the tokenizer adds to a text."""
        return [
            self._checked(self.tokenizer.encode(prompt) if isinstance(prompt, str) else _as_ids(prompt), "prompt")
            for prompt in request.prompts
        ]

    def chat_prompt(self, request: ChatRequest) -> np.ndarray:
        """The token ids of a chat, as its template writes it, up to where the answer begins."""
        if self.tokenizer.chat_template is None:
            raise ApiError(400, NO_TEMPLATE, param="messages", code="no_chat_template")
        try:
            text = self.tokenizer.render_chat([message.plain() for message in request.messages])
        except DataError as error:
            raise ApiError(400, in_one_line(error), param="messages") from None
        return self._checked(self.tokenizer.encode(text, add_special_tokens=False), "messages")

    def jobs(
        self,
        request: CompletionRequest | ChatRequest,
        prompts: Sequence[np.ndarray],
        report: Callable[[Job, Report], None],
    ) -> list[Job]:
        """A job for each choice of each prompt, in the order of the reply's indices.

        With a seed, the draws are those of `NativeModel.generate` for the same prompts, each n times.
        """
        rows = [ids for ids in prompts for _ in range(request.choices)]
        if len(rows) > self.settings.max_queue:
            raise ApiError(
                400,
                f"{len(rows)} answers are asked for in one request; up to {self.settings.max_queue} may wait here",
                param="n" if request.choices > 1 else "prompt",
            )
        top = request.logprobs if isinstance(request, CompletionRequest) else None
        if isinstance(request, ChatRequest) and request.logprobs:
            top = request.top_logprobs or 0
        own = "" if request.seed is not None else f"{secrets.token_hex(8)}/"
        return [
            Job(
                ids=ids,
                name=f"{own}{index}",
                sampling=request.sampling(self.seed),
                max_new_tokens=self._answer_tokens(request),
                stops=request.stops,
                report=report,
                top=top,
                echo=isinstance(request, CompletionRequest) and bool(request.echo),
                streams=bool(request.stream) and top is None,
            )
            for index, ids in enumerate(rows)
        ]

    def token_text(self, token_id: int) -> str:
        """How a token is written where tokens are told one by one: its text, or its spelling where it is half a character."""
        return self._token_text(token_id)

    @cached_property
    def _token_text(self) -> Callable[[int], str]:
        return token_texts(self.tokenizer)

    def _answer_tokens(self, request: CompletionRequest | ChatRequest) -> int:
        most = self.settings.max_new_tokens
        asked = most if request.answer_tokens is None else request.answer_tokens
        if asked > most:
            raise ApiError(
                400, f"max_tokens is {asked}; this server writes up to {most} (--max-new-tokens)", param="max_tokens"
            )
        return asked

    def _checked(self, ids: np.ndarray, param: str) -> np.ndarray:
        if not len(ids):
            raise ApiError(400, "a prompt is empty; at least one token is needed", param=param)
        if len(ids) > self.most_tokens:
            raise ApiError(
                400,
                f"a prompt has {len(ids):,} tokens; this server's maximum context length is {self.most_tokens:,} tokens",
                param=param,
                code="context_length_exceeded",
            )
        if int(ids.max()) >= self.vocabulary:
            raise ApiError(
                400, f"token id {int(ids.max())} is outside the vocabulary of {self.vocabulary} tokens", param=param
            )
        return ids


def _as_ids(prompt: list[int]) -> np.ndarray:
    if prompt and max(prompt) >= 1 << 31:
        raise ApiError(400, f"token id {shown(max(prompt))} is in no vocabulary", param="prompt")
    return np.array(prompt, dtype=np.int32)
