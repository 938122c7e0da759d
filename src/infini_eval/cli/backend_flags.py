"""Flags of the backends other than nanotron, by what they are about, and the settings that they make."""

from __future__ import annotations

import argparse

from infini_eval.cli.flags import add_flag
from infini_eval.cli.values import positive_int, token_count
from infini_eval.config import BackendSettings, FakeSettings, LoadSettings, RequestSettings


def add_prompt_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--chat-template",
        choices=("auto", "on", "off"),
        default="auto",
        help="ask in the model's chat format, or send the prompt as it is (default: auto, on where the model has a template)",
    )


def add_loading_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--device-map",
        metavar="MAP",
        help="auto, balanced, sequential: one process spreads the model over its devices",
    )
    add_flag(
        parser,
        "--max-memory",
        metavar="SIZES",
        help="80GiB for every GPU, or 0=70GiB,1=70GiB,cpu=200GiB; what does not fit is offloaded",
    )
    add_flag(parser, "--offload-folder", metavar="DIR", help="where weights go that fit into no memory")
    add_flag(
        parser,
        "--quantization",
        choices=("4bit", "8bit"),
        help="bitsandbytes; refused where it would leave most of the model as it is",
    )
    add_flag(
        parser,
        "--prefill-chunk",
        type=_chunk,
        metavar="N",
        help="tokens of a prefill step; 0 reads the whole prompt at once (default: 4096)",
    )
    add_flag(
        parser, "--trust-remote-code", action="store_true", help="run the code that comes with the model: read it first"
    )


def add_vllm_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--vllm-extra",
        metavar="JSON",
        help='further arguments of vLLM\'s LLM, as {"distributed_executor_backend": "ray", "max_model_len": 131072}',
    )


def add_request_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--base-url",
        metavar="URL",
        help="the server's address, as http://127.0.0.1:8000/v1 (default: OPENAI_BASE_URL, else the provider's own)",
    )
    add_flag(
        parser,
        "--concurrency",
        type=positive_int,
        default=8,
        metavar="N",
        help="requests in flight from each process (default: %(default)s)",
    )
    add_flag(
        parser,
        "--request-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="limit of one request; prefilling a long prompt takes minutes (default: %(default)s)",
    )
    add_flag(
        parser,
        "--attempts",
        type=positive_int,
        default=6,
        metavar="N",
        help="tries of a request on 429, 5xx and lost connections (default: %(default)s)",
    )
    add_flag(
        parser,
        "--reply-cache",
        metavar="DIR",
        help="where replies are kept, or off (default: replies/ in the run folder)",
    )
    add_flag(
        parser, "--request-extra", metavar="JSON", help='merged into every request, as {"reasoning_effort": "low"}'
    )


def add_fake_flags(parser: argparse._ActionsContainer) -> None:
    add_flag(
        parser,
        "--fake-horizon",
        type=token_count,
        metavar="N",
        help="forgets a needle that lies more than N tokens back",
    )
    add_flag(
        parser,
        "--fake-near-miss-rate",
        type=float,
        default=0.0,
        metavar="RATE",
        help="share of answers with one wrong character (default: %(default)s)",
    )
    add_flag(
        parser,
        "--fake-failure-rate",
        type=float,
        default=0.0,
        metavar="RATE",
        help="share of requests that fail (default: %(default)s)",
    )
    add_flag(
        parser,
        "--fake-seconds",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="time that an answer takes (default: %(default)s)",
    )


def backend_settings(args: argparse.Namespace) -> BackendSettings:
    """The flags as BackendSettings."""
    requests = RequestSettings(
        base_url=args.base_url,
        concurrency=args.concurrency,
        timeout_s=args.request_timeout,
        attempts=args.attempts,
        replies=args.reply_cache,
        extra=args.request_extra,
    )
    loading = LoadSettings(
        device_map=args.device_map,
        max_memory=args.max_memory,
        offload_folder=args.offload_folder,
        quantization=args.quantization,
        prefill_chunk=args.prefill_chunk,
        trust_remote_code=args.trust_remote_code,
        vllm_extra=args.vllm_extra,
    )
    fake = FakeSettings(args.fake_horizon, args.fake_near_miss_rate, args.fake_failure_rate, args.fake_seconds)
    return BackendSettings(args.chat_template, requests, loading, fake)


def _chunk(text: str) -> int:
    return 0 if text.strip() == "0" else token_count(text)
