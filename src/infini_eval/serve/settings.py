"""What a server is asked to be: where it listens, who may ask, and the limits of what they may ask for. No torch here."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import ClassVar

from infini_eval.options import (
    option,
    path_name,
    port_number,
    positive_int,
    seconds,
    token_count,
)

PORT = 8000


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server, each of them a flag of `infini-eval serve`."""

    TITLE: ClassVar[str] = "server"

    host: str = option(
        "127.0.0.1",
        "address to listen at; any other than this machine's own wants --api-key-env (default: %(default)s)",
        metavar="ADDRESS",
    )
    port: int = option(PORT, "port; 0 takes a free one (default: %(default)s)", read=port_number, metavar="N")
    api_key_env: str | None = option(
        None,
        "environment variable with the key that requests must bring (default: no key is asked for)",
        metavar="NAME",
    )
    model_name: str | None = option(
        None, "the model's name in requests (default: the checkpoint as it was given)", metavar="NAME"
    )
    chat_template: str | None = option(
        None,
        "file with the Jinja template of chats (default: the tokenizer's own; without one chats are refused)",
        read=path_name,
        metavar="FILE",
    )
    max_batch: int = option(
        8, "prompts computed together at most (default: %(default)s)", read=positive_int, metavar="N"
    )
    max_queue: int = option(
        256, "prompts that may wait; more are told to come again (default: %(default)s)", read=positive_int, metavar="N"
    )
    max_prompt_tokens: int = option(
        1024**2,
        "tokens of a prompt at most (default: %(default)s; a model without segments: its max_position_embeddings)",
        read=token_count,
        metavar="N",
    )
    max_new_tokens: int = option(
        2048, "tokens of an answer at most, and of a chat that names no limit (default: %(default)s)", read=token_count,
        metavar="N",
    )  # fmt: skip
    max_body_mb: int = option(
        64, "megabytes of a request at most (default: %(default)s)", read=positive_int, metavar="N"
    )
    request_timeout_s: float = option(
        600.0,
        "seconds from a request to the end of its answer, waiting included (default: %(default)g)",
        flag="--request-timeout",
        read=seconds,
        metavar="SECONDS",
    )
    grace_s: float = option(
        20.0,
        "after a signal, seconds for the requests in hand (default: %(default)g; torchrun kills after 30)",
        flag="--grace",
        read=seconds,
        metavar="SECONDS",
    )

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
