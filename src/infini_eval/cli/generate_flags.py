"""The flags of `infini-eval generate`, in the spellings that older generators have, and how their values are read."""

from __future__ import annotations

import argparse

from infini_eval.cli.flags import add_flag
from infini_eval.options import count, depth_list, positive_int, token_count

YES_NO = ("yes", "no")
SHOWN = " (default: %(default)s)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All flags, in three groups."""
    _add_content(parser.add_argument_group("what to make"))
    _add_length_and_place(parser.add_argument_group("length and place"))
    _add_haystack_and_output(parser.add_argument_group("haystack and output"))


def _add_content(group: argparse._ArgumentGroup) -> None:
    def add(name: str, **options: object) -> None:
        add_flag(group, name, **options)

    add("--task", default="passkey", help="kind of question; ruler: the suite of 13 tasks" + SHOWN)
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="a setting of the task's own; repeatable")
    add("--num_prompts", type=positive_int, default=10, metavar="N", help="prompts a length and depth" + SHOWN)
    _alias(group, "--num_samples", "num_prompts", type=positive_int)
    add("--num_shots", type=int, choices=(0, 1, 2, 3), default=0, help="worked examples before the passage" + SHOWN)
    add(
        "--num_digits",
        type=digit_counts,
        default=(5,),
        metavar="N",
        help="digits of a key; 4,5 takes turns (default: 5)",
    )
    add("--seed", type=int, default=42, help="same arguments and seed, same rows" + SHOWN)
    add("--id", default="", help="a name that enters the seed, the ids and the hf folder's name")
    add("--is_eval", choices=YES_NO, default="yes", help="no: training data, the answer follows the question" + SHOWN)
    add("--check_key_in_dataset", metavar="DATASET", help="a data set whose answers must not be drawn")
    _alias(group, "--exclude-keys-from", "check_key_in_dataset")
    add(
        "--distinct-keys",
        choices=("call", "cell"),
        default="call",
        help="keys differ in the call, or in a cell" + SHOWN,
    )
    add("--control", choices=("no-context",), help="no-context: the questions without haystack and needle")


def _add_length_and_place(group: argparse._ArgumentGroup) -> None:
    def add(name: str, **options: object) -> None:
        add_flag(group, name, **options)

    add(
        "--context_length",
        type=token_count,
        nargs="+",
        metavar="N",
        help="tokens: 4096, 128k, 1m; several",
    )
    add(
        "--char-count",
        type=positive_int,
        nargs="+",
        metavar="C",
        help="instead of --context_length: characters, turned into tokens by the haystack's own text",
    )
    add("--depth_percent", type=float, nargs="+", metavar="D", help="depth of the needle in percent of the haystack")
    add(
        "--depths",
        type=depths,
        metavar="LIST",
        help="0,25,50 or 0:100:5, linear:11, sigmoid:11, random (default: the task's, mostly 0:100:5)",
    )
    add("--tokenizer_path", metavar="T", help="a folder or file with a fast tokenizer, a checkpoint, or a hub name")
    _alias(group, "--tokenizer", "tokenizer_path")
    add("--is_exact_context_length", choices=YES_NO, default="yes", help="no: lengths are drawn from N-700..N" + SHOWN)
    add("--is_padding", choices=YES_NO, default="yes", help="accepted; prompts are exact without padding either way")
    add(
        "--length-includes-answer",
        choices=YES_NO,
        help="yes: prompt plus --answer-tokens is N (default: the task's way)",
    )
    add("--answer-tokens", type=positive_int, metavar="K", help="tokens kept free for the answer (default: the task's)")
    add("--segment-length", type=token_count, metavar="L", help="the model's segment length, for the three flags below")
    add(
        "--question-phase", metavar="PHASE", help="where in its segment the answer is predicted: 0..L-1, border, jitter"
    )
    add("--needle-segment", type=count, metavar="K", help="put the needle into this segment, counted from 0")
    add("--boundary", choices=("straddle", "before", "after"), help="put the needle across or beside a segment border")


def _add_haystack_and_output(group: argparse._ArgumentGroup) -> None:
    def add(name: str, **options: object) -> None:
        add_flag(group, name, **options)

    sources = "english, filler, python-docs, a folder or file of .txt .md .jsonl .parquet, or hub:owner/name"
    add("--haystack_dir", metavar="H", help=f"{sources} (default: the task's, mostly english)")
    owners = ("prompt", "depth", "trial", "run")
    add("--haystack-per", choices=owners, default="prompt", help="what has a haystack of its own" + SHOWN)
    add("--allow-repeat", action="store_true", help="repeat a haystack that is too short")
    add(
        "--pool-tokens",
        type=token_count,
        metavar="N",
        help="haystack text made at most; prompts that it is too small for share text (default: 4m)",
    )
    add("--save_path", required=True, metavar="DIR", help="folder to write into")
    add(
        "--format",
        choices=("parquet", "hf"),
        default="parquet",
        help="hf: a save_to_disk folder a length and depth" + SHOWN,
    )
    add("--is_push_to_hub", choices=YES_NO, default="no", help="also upload to --hub-id" + SHOWN)
    add("--hub-id", metavar="OWNER/NAME", help="where --is_push_to_hub uploads to")
    add("--workers", type=positive_int, default=2, metavar="N", help="threads; they never change the rows" + SHOWN)
    add(
        "--verify",
        choices=("auto", *YES_NO),
        default="auto",
        help="re-tokenise finished prompts and take their measures from that; auto: yes" + SHOWN,
    )
    add("--quiet", action="store_true", help="say nothing but errors")


def _alias(group: argparse._ArgumentGroup, name: str, of: str, **options: object) -> None:
    """Another spelling of a flag; it must not put its own default over the other's value."""
    shown = f"the same as --{of}"
    add_flag(group, name, dest=of, default=argparse.SUPPRESS, metavar="V", help=shown, **options)


def depths(text: str) -> tuple[float | None, ...]:
    """A list as in flags.depth_list; "linear:K" or "sigmoid:K" for K depths from 0 to 100; "random" (None)."""
    from infini_eval.datasets.depths import spaced

    kind, _, number = text.partition(":")
    if kind == "random":
        return (None,)
    if kind not in ("linear", "sigmoid"):
        return depth_list(text)
    if not number.isdecimal() or int(number) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a depth schedule (valid: linear:11, sigmoid:11)")
    return spaced(int(number), kind)


def digit_counts(text: str) -> tuple[int, ...]:
    """ "5" or "4,5" as numbers of digits, each 1..18."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 18 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of digits (valid: 1..18, or a list as 4,5)")
    return tuple(int(part) for part in parts)
