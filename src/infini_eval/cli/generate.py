"""Make passkey data sets of exact length and depth, for any tokenizer, from 1k to 10m tokens."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.cli.flags import add_flag, count, depth_list, positive_int, token_count
from infini_eval.errors import ConfigError

if TYPE_CHECKING:
    from infini_eval.datasets.plan import GenerateConfig
    from infini_eval.datasets.tokenizer import Tokenizer

YES_NO = ("yes", "no")
TASKS = ("passkey",)
DEFAULT_DEPTHS = "0:100:5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to make")
    add_flag(what, "--task", choices=TASKS, default="passkey", help="kind of question (default: %(default)s)")
    add_flag(what, "--context_length", type=token_count, nargs="+", required=True, metavar="N", help="tokens of a prompt: 4096, 128k, 1m; several make several lengths")
    add_flag(what, "--depth_percent", type=float, nargs="+", metavar="D", help="depth of the needle in percent of the haystack's tokens")
    add_flag(what, "--depths", type=depths, metavar="LIST", help="0,25,50 or 0:100:5 or linear:11 or sigmoid:11 (default: 0:100:5)")
    add_flag(what, "--num_prompts", type=positive_int, default=10, metavar="N", help="prompts for each length and depth (default: %(default)s)")
    add_flag(what, "--num_samples", type=positive_int, default=argparse.SUPPRESS, dest="num_prompts", metavar="N", help="the same")
    add_flag(what, "--num_shots", type=int, choices=(0, 1, 2, 3), default=0, help="worked examples before the passage (default: %(default)s)")
    add_flag(what, "--num_digits", type=digit_counts, default=(5,), metavar="N", help="digits of a key; 4,5 takes turns (default: 5)")
    add_flag(what, "--seed", type=int, default=42, help="same arguments and seed, same rows (default: %(default)s)")
    add_flag(what, "--id", default="", help="a name that enters the seed, the ids and the hf folder's name")
    add_flag(what, "--is_eval", choices=YES_NO, default="yes", help="no: training data, the answer follows the question (default: %(default)s)")
    add_flag(what, "--check_key_in_dataset", metavar="DATASET", help="a data set whose answers must not be drawn")
    add_flag(what, "--exclude-keys-from", metavar="DATASET", default=argparse.SUPPRESS, dest="check_key_in_dataset", help="the same")
    add_flag(what, "--distinct-keys", choices=("call", "cell"), default="call", help="keys differ within the call, or within one length and depth (default: %(default)s)")
    _add_length_arguments(parser.add_argument_group("length and place"))
    _add_haystack_arguments(parser.add_argument_group("haystack and output"))


def _add_length_arguments(group: argparse._ArgumentGroup) -> None:
    add_flag(group, "--tokenizer_path", metavar="T", help="a folder or file with a fast tokenizer, a checkpoint folder, or a hub name")
    add_flag(group, "--tokenizer", metavar="T", default=argparse.SUPPRESS, dest="tokenizer_path", help="the same")
    add_flag(group, "--is_exact_context_length", choices=YES_NO, default="yes", help="no: lengths are drawn from N-700..N (default: %(default)s)")
    add_flag(group, "--is_padding", choices=YES_NO, default="yes", help="accepted for older commands: prompts are exact without padding either way")
    add_flag(group, "--length-includes-answer", choices=YES_NO, default="no", help="yes: prompt plus --answer-tokens is N; no: the prompt is N (default: %(default)s)")
    add_flag(group, "--answer-tokens", type=positive_int, default=16, metavar="K", help="tokens kept free for the answer (default: %(default)s)")
    add_flag(group, "--segment-length", type=token_count, metavar="L", help="the model's segment length, for the three flags below")
    add_flag(group, "--question-phase", metavar="PHASE", help="offset in its segment of the position that predicts the answer: 0..L-1, border or jitter; prompts get shorter to fit")
    add_flag(group, "--needle-segment", type=count, metavar="K", help="put the needle into this segment, counted from 0")
    add_flag(group, "--boundary", choices=("straddle", "before", "after"), help="put the needle across, right before or right after a segment border")


def _add_haystack_arguments(group: argparse._ArgumentGroup) -> None:
    add_flag(group, "--haystack_dir", default="english", metavar="H", help="english, filler, python-docs, a folder or file of .txt .md .jsonl .parquet, or hub:owner/name (default: %(default)s)")
    add_flag(group, "--haystack-per", choices=("prompt", "depth", "trial", "run"), default="prompt", help="what has a haystack of its own (default: %(default)s)")
    add_flag(group, "--allow-repeat", action="store_true", help="repeat a haystack that is too short")
    add_flag(group, "--save_path", required=True, metavar="DIR", help="folder to write into")
    add_flag(group, "--format", choices=("parquet", "hf"), default="parquet", help="parquet: one file; hf: a save_to_disk folder for each length and depth (default: %(default)s)")
    add_flag(group, "--is_push_to_hub", choices=YES_NO, default="no", help="also upload to --hub-id")
    add_flag(group, "--hub-id", metavar="OWNER/NAME", help="where --is_push_to_hub uploads to")
    add_flag(group, "--workers", type=positive_int, default=2, metavar="N", help="threads; they never change the rows (default: %(default)s)")
    add_flag(group, "--verify", choices=("auto", *YES_NO), default="auto", help="re-tokenise each finished prompt; auto: up to 256k tokens (default: %(default)s)")
    add_flag(group, "--quiet", action="store_true", help="say nothing but errors")


def depths(text: str) -> tuple[float, ...]:
    """A list as in flags.depth_list, or "linear:K" or "sigmoid:K" for K depths from 0 to 100."""
    from infini_eval.datasets.depths import spaced

    kind, _, number = text.partition(":")
    if kind not in ("linear", "sigmoid"):
        return depth_list(text)
    if not number.isdecimal() or int(number) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a depth schedule (valid: linear:11, sigmoid:11)")
    return spaced(int(number), kind)


def digit_counts(text: str) -> tuple[int, ...]:
    """"5" or "4,5" as numbers of digits, each 1..18."""
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 18 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of digits (valid: 1..18, or a list as 4,5)")
    return tuple(int(part) for part in parts)


def run(args: argparse.Namespace) -> int:
    from infini_eval.datasets.generate import generate
    from infini_eval.tasks import passkey

    if not args.tokenizer_path:
        raise ConfigError("a tokenizer is needed to count tokens", next_step="pass --tokenizer_path FOLDER")
    tokenizer = tokenizer_at(args.tokenizer_path)
    config = config_of(args)
    verify = None if args.verify == "auto" else args.verify == "yes"
    began = time.monotonic()
    rows, haystack = generate(
        config, tokenizer, passkey.recipe,
        forbidden_text=passkey.NEEDLE_OPENING, workers=args.workers, verify=verify,
    )  # fmt: skip
    if haystack.unique_fraction < 1:
        _say(args, f"the haystack repeats: {haystack.unique_fraction:.1%} of its tokens are unique")
    written = _write(args, config, _progress(args, rows), settings_of(config, tokenizer))
    _say(args, f"{written.count} prompts in {time.monotonic() - began:.1f} s: {written.where}")
    return 0


def config_of(args: argparse.Namespace) -> GenerateConfig:
    """The settings that decide the rows."""
    from infini_eval.datasets.plan import GenerateConfig

    chosen = args.depths or tuple(args.depth_percent or ()) or depth_list(DEFAULT_DEPTHS)
    outside = [depth for depth in chosen if not 0 <= depth <= 100]
    if outside:
        raise ConfigError(f"--depth_percent {outside[0]:g} is outside 0..100", valid="percent of the haystack: 0..100")
    if args.depths and args.depth_percent:
        raise ConfigError("--depths and --depth_percent say the same", next_step="pass one of them")
    return GenerateConfig(
        context_lengths=tuple(args.context_length),
        depths=tuple(int(depth) if float(depth).is_integer() else depth for depth in chosen),
        num_prompts=args.num_prompts,
        num_shots=args.num_shots,
        num_digits=args.num_digits,
        seed=args.seed,
        id=args.id,
        haystack=args.haystack_dir,
        haystack_per=args.haystack_per,
        allow_repeat=args.allow_repeat,
        length_includes_answer=args.length_includes_answer == "yes",
        answer_budget=args.answer_tokens,
        exact=args.is_exact_context_length == "yes",
        is_eval=args.is_eval == "yes",
        segment_length=args.segment_length,
        question_phase=args.question_phase,
        needle_segment=args.needle_segment,
        boundary=args.boundary,
        distinct_keys=args.distinct_keys,
        excluded_keys=_excluded_keys(args.check_key_in_dataset),
    )


def settings_of(config: GenerateConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the file says about how it was made; no paths."""
    hidden = ("excluded_keys", "haystack")
    settings = {name: value for name, value in vars(config).items() if name not in hidden}
    settings |= {"haystack": Path(config.haystack).name, "tokenizer_hash": tokenizer.fingerprint, "task": "passkey"}
    return settings


def tokenizer_at(path: str) -> Tokenizer:
    """The tokenizer of a folder, a file, a hub name, or of a checkpoint (beside it, else as its config.yaml says)."""
    from infini_eval.datasets.tokenizer import load_tokenizer

    folder = Path(path)
    is_checkpoint = (folder / "config.yaml").is_file() or (folder / "latest.txt").is_file()
    if not is_checkpoint:
        return load_tokenizer(path, beside=folder if folder.is_dir() else None)
    from infini_eval.checkpoint.config_yaml import read_config
    from infini_eval.checkpoint.layout import find_step_folder

    step = find_step_folder(folder)
    return load_tokenizer(read_config(step)[0].tokenizer, beside=step)


def _excluded_keys(dataset: str | None) -> frozenset[str]:
    if not dataset:
        return frozenset()
    from infini_eval.datasets.parquet import read_answers

    return frozenset(read_answers(dataset))


def _progress(args: argparse.Namespace, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass rows on; on a terminal, a line that counts them."""
    shown = not args.quiet and sys.stderr.isatty()
    for number, row in enumerate(rows, 1):
        if shown:
            print(f"\r{number} prompts", end="", file=sys.stderr, flush=True)
        yield row
    if shown:
        print("\r", end="", file=sys.stderr)


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, flush=True)


class _Written:
    """How many rows were written, and where."""

    def __init__(self) -> None:
        self.count, self.places = 0, list[Path]()

    @property
    def where(self) -> str:
        return ", ".join(map(str, self.places[:3])) + (f", … {len(self.places)} folders" if len(self.places) > 3 else "")


def _write(args: argparse.Namespace, config: GenerateConfig, rows: Iterator[dict[str, Any]], settings: dict[str, Any]) -> _Written:
    from itertools import groupby

    from infini_eval.datasets.write import PARQUET_NAME, write_parquet, write_saved_dataset

    written, target = _Written(), Path(args.save_path)
    if args.format == "parquet":
        file = target if target.suffix == ".parquet" else target / PARQUET_NAME
        written.count, written.places = write_parquet(rows, file, settings), [file]
    else:
        kind = "eval" if config.is_eval else "finetune"
        for (length, depth), cell in groupby(rows, key=lambda row: (row["context_length"], row["depth_percent"])):
            name = f"needle_{kind}_data_and_{length}_ctx_and_depth_{depth}_and_id_{args.id or 1}_and_num_shots_{config.num_shots}"
            written.count += write_saved_dataset(cell, target / name, settings)
            written.places.append(target / name)
    if args.is_push_to_hub == "yes":
        _push(args, written.places)
    return written


def _push(args: argparse.Namespace, places: list[Path]) -> None:
    if not args.hub_id:
        raise ConfigError("--is_push_to_hub yes needs a name", next_step="pass --hub-id OWNER/NAME")
    from huggingface_hub import HfApi

    from infini_eval.errors import DataError

    api = HfApi()
    try:
        api.create_repo(args.hub_id, repo_type="dataset", exist_ok=True)
        for place in places:
            upload = api.upload_folder if place.is_dir() else api.upload_file
            where = {"folder_path": str(place)} if place.is_dir() else {"path_or_fileobj": str(place)}
            upload(repo_id=args.hub_id, repo_type="dataset", path_in_repo=place.name, **where)
    except (OSError, ValueError) as error:  # the hub's HTTP errors are OSErrors
        raise DataError(f"upload to {args.hub_id} failed: {str(error).splitlines()[0]}", next_step="the data are on disk") from error
