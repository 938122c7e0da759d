"""OpenAI's protocol as far as it is spoken here: what requests may say, and the shape of replies and errors.

A field that would change an answer and is not known is refused, never ignored. Fields that change nothing (`user`,
`metadata`, ...) are accepted. Sources: OpenAI's API reference, "Completions" and "Chat".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import HTTPException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from infini_eval.config import Sampling
from infini_eval.foreign import shown, valid_text
from infini_eval.options import COOLEST, HOTTEST, LARGEST_SEED, MOST_TOKENS

MOST_CHOICES = 128
MOST_TOP = 20  # likeliest tokens that are told at each place
MOST_STOPS, LONGEST_STOP = 16, 1_000  # stop strings, and the characters of one
MOST_MESSAGES = 10_000
COMPLETION_TOKENS = 16  # of a completion that names no limit, as OpenAI has it

NAME = re.compile(r"[a-z_]+|\d+")  # of a field or an item; what else stands in a place names pydantic's own types

Text = Annotated[str, AfterValidator(valid_text)]
TokenId = Annotated[int, Field(ge=0)]
TokenCount = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
StopString = Annotated[Text, Field(min_length=1, max_length=LONGEST_STOP)]


class ApiError(HTTPException):
    """A refused request: status, message, the field at fault, and a code for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message)
        self.param, self.code = param, code


_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def first_problem(errors: Sequence[Any]) -> ApiError:
    """What pydantic found wrong first, as the answer to the request."""
    # of a field that may be this or that each is an error: the one that has the right type says what is wrong with it
    first = next((error for error in errors if not error["type"].endswith("_type")), errors[0])
    place = [str(part) for part in first["loc"] if NAME.fullmatch(str(part)) and part not in ("body", "str")]
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return ApiError(
            400, f"{shown(param)} is not a field that this server knows", param=param, code="unknown_parameter"
        )
    said = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {said}" if param else said, param=param)


class StreamOptions(BaseModel):
    """How a streamed answer is sent."""

    include_usage: bool = False
    include_obfuscation: bool = False  # none is ever added


class _Request(BaseModel):
    """What both kinds of requests may say."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(max_length=1_000)]
    temperature: Annotated[float, Field(ge=0, le=HOTTEST)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS)] | None = None  # not OpenAI's; others have it, -1 as 0 for all
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-LARGEST_SEED, le=LARGEST_SEED)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    # known, and refused unless they ask for nothing
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    # of no consequence for an answer
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None

    @field_validator("temperature")
    @classmethod
    def _not_nearly_zero(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < COOLEST:
            raise ValueError(f"Input should be 0, or at least {COOLEST:g}")
        return value

    @field_validator("frequency_penalty", "presence_penalty", "logit_bias")
    @classmethod
    def _asks_for_nothing(cls, value: Any) -> Any:
        if value:
            raise ValueError("this server does not change the model's distribution so; leave it out")
        return value

    @property
    def choices(self) -> int:
        """How many answers to each prompt are wanted."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a streamed answer ends with the tokens counted."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, otherwise: int) -> Sampling:
        """How tokens are drawn: OpenAI's defaults, `otherwise` the seed of a request without one."""
        temperature = 1.0 if self.temperature is None else self.temperature
        if temperature == 0:
            return Sampling()
        seed = otherwise if self.seed is None else self.seed
        return Sampling(temperature, max(0, self.top_k or 0), 1.0 if self.top_p is None else self.top_p, seed)


class CompletionRequest(_Request):
    """/v1/completions: prompts as text or token ids, one or several."""

    prompt: Text | list[TokenId] | list[Text] | list[list[TokenId]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("prompt")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if not value:
            raise ValueError("it is empty; at least one token is needed")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError("best_of: answers are not chosen among more than n; leave it out")
        if self.suffix:
            raise ValueError("suffix: this model continues a prompt and does not fill gaps; leave it out")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts, also where it is one."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt

    @property
    def answer_tokens(self) -> int:
        """New tokens at most."""
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens


class TextPart(BaseModel):
    """A part of a message; of OpenAI's kinds only text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """The message as chat templates read it; OpenAI's newer word for the system is the older one there."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(_Request):
    """/v1/chat/completions: messages of text."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only together with logprobs: true")
        if self.tools or self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tools: this server calls none; leave it out")
        if self.response_format not in (None, {"type": "text"}):
            raise ValueError("response_format: only text is written; leave it out")
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) == 2:
            raise ValueError("max_tokens and max_completion_tokens differ; pass one of them")
        if 0 in limits:
            raise ValueError("max_completion_tokens: Input should be greater than or equal to 1")
        return self

    @property
    def answer_tokens(self) -> int | None:
        """New tokens at most; None where the request does not say."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
