"""Make passkey, needle and RULER data of exact length and depth, for any tokenizer, from 1k to 10m tokens."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infini_eval.cli.generate_flags import add_arguments, depths
from infini_eval.cli.generate_output import check_place, push, write
from infini_eval.errors import ConfigError, DataError
from infini_eval.options import option_pairs

if TYPE_CHECKING:
    from infini_eval.api.task import Generator
    from infini_eval.datasets.haystack import Haystack
    from infini_eval.datasets.plan import GenerateConfig, Shortage
    from infini_eval.datasets.tokenizer import Tokenizer

__all__ = ["add_arguments", "run", "tokenizer_at"]


def run(args: argparse.Namespace) -> int:
    """Generate and write; the exit status."""
    from infini_eval.cli import suite

    if not args.tokenizer_path:
        raise ConfigError("a tokenizer is needed to count tokens", next_step="pass --tokenizer_path FOLDER")
    if args.is_push_to_hub == "yes" and not args.hub_id:
        raise ConfigError("--is_push_to_hub yes needs a name", next_step="pass --hub-id OWNER/NAME")
    if tasks := suite.tasks_of(args.task):
        return suite.generate(args, tasks)
    generator = generator_of(args.task)
    check_place(Path(args.save_path))
    tokenizer = tokenizer_at(args.tokenizer_path)
    began = time.monotonic()
    count, places = make(args, generator, tokenizer)
    if args.is_push_to_hub == "yes":
        push(args.hub_id, places)
    where = ", ".join(map(str, places[:3])) + (f", … ({len(places)} folders)" if len(places) > 3 else "")
    _say(args, f"{count} prompts in {time.monotonic() - began:.1f} s: {where}")
    return 0


def make(args: argparse.Namespace, generator: Generator, tokenizer: Tokenizer) -> tuple[int, list[Path]]:
    """Make and write one task's prompts: how many, and where."""
    from infini_eval.datasets.generate import generate

    config = config_of(args, generator, tokenizer)
    rows, haystack = generate(config, tokenizer, generator, workers=args.workers, verify=args.verify != "no")
    notes = list(generator.notes)
    unique = haystack.unique_fraction(max(config.context_lengths))
    if unique < 1:
        notes.append(
            f"the haystack repeats itself: of the longest prompt {unique:.1%} is unique (column haystack_unique)"
        )
    for note in notes:
        _say(args, f"note: {note}")
    if generator.needs_haystack and config.is_eval and config.control is None:
        for text in _shortage_texts(config, haystack):
            _warn(args, text)
    off: list[str] = []
    rows = _off_label(_progress(args, rows), off)
    count, places = write(args, config, rows, settings_of(config, generator, tokenizer))
    if off:
        _warn(args, off_label_text(off, count))
    return count, places


def _shortage_texts(config: GenerateConfig, haystack: Haystack) -> list[str]:
    """One sentence for each length whose prompts have to share haystack text, and what would help."""
    from infini_eval.datasets.plan import plan_rows, shortages

    texts = []
    for short in shortages(plan_rows(config), haystack):
        text = (
            f"{short.asked} haystacks of {short.context_length:,} tokens are asked for, the pool of {short.pool:,} tokens "
            f"({Path(haystack.name).name}) holds {short.independent} without overlap: prompts share text, and reports "
            f"count at most {short.independent} independent sample(s) at this length"
        )
        texts.append(f"{text}; {_remedy(short, haystack, config)}")
    return texts


def _remedy(short: Shortage, haystack: Haystack, config: GenerateConfig) -> str:
    if haystack.repeats:
        return "the text repeats itself, however long; only another --haystack_dir gives more"
    if haystack.unique_tokens is None and haystack.tokens >= config.pool_tokens:
        return f"pass --pool-tokens {short.needed}, which is enough"
    return f"a text of {short.needed:,} tokens is enough" + (
        f", with --pool-tokens {short.needed}" if short.needed > config.pool_tokens else ""
    )


def _off_label(rows: Iterator[dict[str, Any]], off: list[str]) -> Iterator[dict[str, Any]]:
    """Pass rows on; those whose needle stands far from its label are noted in `off`."""
    from infini_eval.datasets.validate import is_off_label

    for row in rows:
        if is_off_label(row["depth_percent"], row):
            off.append(f"{row['id']} at {row['real_depth']:.1f} %")
        yield row


def off_label_text(off: list[str], count: int) -> str:
    """What is said of needles that stand far from their labels."""
    from infini_eval.datasets.depths import OFF_POINTS

    some = ", ".join(off[:3]) + (", …" if len(off) > 3 else "")
    return (
        f"in {len(off)} of {count} prompts the needle stands more than {OFF_POINTS:g} points from depth_percent ({some}); "
        "real_depth is where it stands"
    )


def generator_of(task: str) -> Generator:
    """The generator of a task by name."""
    from infini_eval.api import registry

    generator = registry.load("tasks", task).generator
    if generator is None:
        makers = [name for name in registry.names("tasks") if registry.load("tasks", name).generator]
        raise ConfigError(f"the task {task} has data of its own and makes none", valid=", ".join(makers))
    return generator


def config_of(args: argparse.Namespace, generator: Generator, tokenizer: Tokenizer) -> GenerateConfig:
    """The settings that decide the rows; what the flags leave open is the task's."""
    from infini_eval.datasets.plan import POOL_TOKENS, GenerateConfig

    includes = args.length_includes_answer
    return GenerateConfig(
        context_lengths=_lengths(args, generator, tokenizer),
        depths=_depths(args, generator),
        num_prompts=args.num_prompts,
        num_shots=args.num_shots,
        num_digits=args.num_digits,
        seed=args.seed,
        id=args.id,
        task=args.task.replace("-", "_"),
        options=option_pairs(args.option),
        control=args.control,
        haystack=args.haystack_dir or generator.haystack,
        haystack_per=args.haystack_per,
        allow_repeat=args.allow_repeat,
        pool_tokens=args.pool_tokens or POOL_TOKENS,
        length_includes_answer=generator.length_includes_answer if includes is None else includes == "yes",
        answer_budget=args.answer_tokens or generator.answer_budget,
        exact=args.is_exact_context_length == "yes",
        is_eval=args.is_eval == "yes",
        segment_length=args.segment_length,
        question_phase=args.question_phase,
        needle_segment=args.needle_segment,
        boundary=args.boundary,
        distinct_keys=args.distinct_keys,
        excluded_keys=_excluded_keys(args.check_key_in_dataset),
    )


def _lengths(args: argparse.Namespace, generator: Generator, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The lengths in tokens; a number of characters becomes the tokens that as much of the haystack has."""
    from infini_eval.datasets.characters import tokens_of_characters
    from infini_eval.datasets.sources import Source

    if bool(args.context_length) == bool(args.char_count):
        raise ConfigError(
            "the size of the prompts is needed once",
            valid="--context_length N (tokens), or --char-count C (characters)",
        )
    if args.context_length:
        return tuple(args.context_length)
    source = Source(args.haystack_dir or generator.haystack, args.seed)
    lengths = tuple(tokens_of_characters(chars, source.parts(), tokenizer) for chars in args.char_count)
    for chars, length in zip(args.char_count, lengths, strict=True):
        _say(args, f"note: {chars:,} characters of {source.name} are {length:,} tokens")
    return lengths


def _depths(args: argparse.Namespace, generator: Generator) -> tuple[float | None, ...]:
    if args.depths and args.depth_percent:
        raise ConfigError("--depths and --depth_percent say the same", next_step="pass one of them")
    chosen = args.depths or tuple(args.depth_percent or ()) or depths(generator.depths)
    outside = [depth for depth in chosen if depth is not None and not 0 <= depth <= 100]
    if outside:
        raise ConfigError(f"--depth_percent {outside[0]:g} is outside 0..100", valid="percent of the haystack: 0..100")
    whole = all(depth is not None and float(depth).is_integer() for depth in chosen)
    return tuple(int(depth) for depth in chosen if depth is not None) if whole else chosen


def settings_of(config: GenerateConfig, generator: Generator, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the file says about how it was made; no paths."""
    hidden = ("excluded_keys", "haystack")
    settings = {name: value for name, value in vars(config).items() if name not in hidden}
    options = {name: Path(value).name if name in generator.files else value for name, value in config.options.items()}
    settings |= {"options": options, "haystack": Path(config.haystack).name}
    return settings | {"tokenizer_hash": tokenizer.fingerprint}


def tokenizer_at(path: str) -> Tokenizer:
    """The tokenizer of a folder, a file, a hub name, or of a checkpoint (as its config.yaml says, or beside it)."""
    from infini_eval.datasets.tokenizer import load_tokenizer

    folder = Path(path)
    try:
        is_checkpoint = (folder / "config.yaml").is_file() or (folder / "latest.txt").is_file()
    except PermissionError as error:
        raise DataError(f"the tokenizer's folder {path} cannot be read: {error.strerror}") from error
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


def _warn(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(f"warning: {text}", file=sys.stderr, flush=True)
