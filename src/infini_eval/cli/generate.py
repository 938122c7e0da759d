"""Make passkey, needle and RULER data of exact length and depth, for any tokenizer, from 1k to 10m tokens.

  infini-eval generate --tokenizer_path checkpoints/infini-demo --context_length 16k --depths 0:100:25 --save_path data/16k
  infini-eval generate --task ruler --tokenizer_path DIR_OR_HUB_ID --context_length 4k 32k --save_path data/ruler

Token suffixes: k = 1,024, m = 1,048,576.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infini_eval.cli import suite
from infini_eval.cli.flags import add_flag, add_options, read_options
from infini_eval.data.config import SHOWN, GenerateConfig
from infini_eval.errors import EXIT_OK, ConfigError
from infini_eval.options import option_pairs, positive_int

if TYPE_CHECKING:
    from infini_eval.data.dataset import Message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to make")
    add_options(what, GenerateConfig, "what to make")
    add_flag(
        what,
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the task's own; repeatable",
    )
    _add_length_and_place(parser.add_argument_group("length and place"))
    _add_haystack_and_output(parser.add_argument_group("haystack and output"))


def _add_length_and_place(group: argparse._ArgumentGroup) -> None:
    add_options(group, GenerateConfig, "length and place")
    add_flag(
        group,
        "--depth_percent",
        type=float,
        nargs="+",
        metavar="D",
        help="depth of the needle in percent of the haystack",
    )
    add_flag(
        group,
        "--tokenizer_path",
        metavar="T",
        help="a folder or file with a fast tokenizer, a checkpoint, or a hub name",
    )
    same = "the same as --tokenizer_path"
    add_flag(group, "--tokenizer", dest="tokenizer_path", default=argparse.SUPPRESS, metavar="V", help=same)
    add_flag(
        group,
        "--is_padding",
        choices=("yes", "no"),
        default="yes",
        help="accepted; prompts are exact without padding either way",
    )


def _add_haystack_and_output(group: argparse._ArgumentGroup) -> None:
    add_options(group, GenerateConfig, "haystack and output")
    add_flag(group, "--save_path", required=True, metavar="DIR", help="folder to write into")
    add_flag(
        group,
        "--format",
        choices=("parquet", "hf"),
        default="parquet",
        help="hf: a save_to_disk folder a length and depth" + SHOWN,
    )
    add_flag(group, "--is_push_to_hub", choices=("yes", "no"), default="no", help="also upload to --hub-id" + SHOWN)
    add_flag(group, "--hub-id", metavar="OWNER/NAME", help="where --is_push_to_hub uploads to")
    add_flag(
        group,
        "--workers",
        type=positive_int,
        default=2,
        metavar="N",
        help="threads; they never change the rows" + SHOWN,
    )
    add_flag(
        group,
        "--verify",
        choices=("auto", "yes", "no"),
        default="auto",
        help="re-tokenise finished prompts and take their measures from that; auto: yes" + SHOWN,
    )
    add_flag(group, "--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Generate and write; the exit status."""
    if not args.tokenizer_path:
        raise ConfigError("a tokenizer is needed to count tokens", next_step="pass --tokenizer_path FOLDER")
    hub_id = args.hub_id if args.is_push_to_hub == "yes" else None
    if args.is_push_to_hub == "yes" and not hub_id:
        raise ConfigError("--is_push_to_hub yes needs a name", next_step="pass --hub-id OWNER/NAME")
    config = generate_config(args)
    output = suite.Output(
        Path(args.save_path), args.tokenizer_path, args.format, args.workers, args.verify != "no", hub_id, args.quiet
    )
    if tasks := suite.tasks_of(config.task):
        return suite.generate(config, output, tasks)
    return _generate(config, output)


def _generate(config: GenerateConfig, output: suite.Output) -> int:
    from infini_eval.data.dataset import generate_dataset

    began = time.monotonic()
    with suite.counted("making", quiet=output.quiet) as counted:
        made = generate_dataset(
            config,
            output.save_path,
            output.tokenizer,
            format=output.format,
            workers=output.workers,
            verify=output.verify,
            hub_id=output.hub_id,
            on_message=None if output.quiet else _print_message,
            on_row=counted.set,
        )
    if not output.quiet:
        print(f"{made.num_rows} prompts in {time.monotonic() - began:.1f} s: {_shortly(made.places)}", flush=True)
    return EXIT_OK


def _print_message(message: Message) -> None:
    print(message, file=sys.stdout if message.kind == "note" else sys.stderr, flush=True)


def _shortly(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places[:3])) + (f", … ({len(places)} folders)" if len(places) > 3 else "")


def generate_config(args: argparse.Namespace) -> GenerateConfig:
    """The parsed flags as one GenerateConfig."""
    config = read_options(args, GenerateConfig, options=option_pairs(args.option))
    if not args.depth_percent:
        return config
    if config.depths:
        raise ConfigError("--depths and --depth_percent say the same", next_step="pass one of them")
    return read_options(args, GenerateConfig, options=config.options, depths=tuple(args.depth_percent))
