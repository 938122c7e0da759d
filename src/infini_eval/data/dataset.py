"""Makes a whole data set: settings in; a parquet file or save_to_disk folders, and what should be said of them, out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from infini_eval.api import registry
from infini_eval.api.task import Generator
from infini_eval.data.config import GenerateConfig, ResolvedConfig
from infini_eval.data.generate import generate
from infini_eval.data.haystack import OFF_POINTS, Haystack
from infini_eval.data.passkey import is_off_label
from infini_eval.data.plan import Shortage, plan_rows, shortages
from infini_eval.data.reading import read_answers
from infini_eval.data.sources import Source
from infini_eval.data.tokenizer import Tokenizer, open_tokenizer
from infini_eval.data.write import check_place, push_to_hub, write_rows
from infini_eval.errors import ConfigError

MEASURED_CHARS = 1_000_000  # a longer text is taken to have as many characters a token as this much of it


@dataclass(frozen=True)
class Message:
    """Something to know about generated data; a warning says what makes them worth less."""

    kind: Literal["note", "warning"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class GeneratedDataset:
    """What was made: how many rows, the files or folders that hold them, and what should be said of them."""

    num_rows: int
    places: tuple[Path, ...]
    messages: tuple[Message, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What is good to know."""
        return [message.text for message in self.messages if message.kind == "note"]

    @property
    def warnings(self) -> list[str]:
        """What makes the data worth less."""
        return [message.text for message in self.messages if message.kind == "warning"]

    @property
    def path(self) -> Path:
        """Where `evaluate` reads it: the file, or the folder of one length and depth.

        Raises:
            ConfigError: there are several folders, each a data set of its own.
        """
        if len(self.places) == 1:
            return self.places[0]
        raise ConfigError(
            f"{len(self.places)} folders were written, each a data set of its own", valid="one of .places"
        )


def generate_dataset(
    config: GenerateConfig,
    save_path: str | Path,
    tokenizer: str | Path | Tokenizer,
    *,
    format: Literal["parquet", "hf"] = "parquet",
    workers: int = 2,
    verify: bool = True,
    hub_id: str | None = None,
    on_message: Callable[[Message], None] | None = None,
    on_row: Callable[[int, int], None] | None = None,
) -> GeneratedDataset:
    """Make a task's prompts and write them.

    Args:
        config: what to make; the same settings and tokenizer give the same rows.
        save_path: a folder, or a file ending in .parquet.
        tokenizer: counts the tokens: a tokenizer, or the path of one or of a checkpoint, or a hub name.
        format: one parquet file, or ("hf") a save_to_disk folder for each length and depth.
        workers: threads; they never change the rows.
        verify: re-tokenise each finished prompt and take its measures from that.
        hub_id: also upload what was written to that data set of the hub.
        on_message: called with each note and warning as it comes; shortages are known before the first row is made.
        on_row: called with the number of rows made, and of those to make.

    Raises:
        InfiniEvalError: the prompts cannot be made, or not be written there; nothing unfinished is left.
    """
    messages: list[Message] = []

    def tell(kind: Literal["note", "warning"], text: str) -> None:
        messages.append(Message(kind, text))
        if on_message is not None:
            on_message(messages[-1])

    generator = generator_of(config.task)
    if format not in ("parquet", "hf"):
        raise ConfigError(f"the format {format!r} is not known", valid="parquet, hf")
    check_place(Path(save_path))
    if not isinstance(tokenizer, Tokenizer):
        tokenizer = open_tokenizer(tokenizer)
    resolved = _resolve(config, generator, tokenizer)
    for chars, length in zip(config.char_counts, resolved.context_lengths):
        tell("note", f"{chars:,} characters of {resolved.haystack} are {length:,} tokens")
    total = len(resolved.context_lengths) * len(resolved.depths) * resolved.num_prompts
    if on_row is not None:
        on_row(0, total)  # before the first row a long haystack is tokenised
    rows, haystack = generate(resolved, tokenizer, generator, workers=workers, verify=verify)
    for note in _notes(resolved, generator, haystack):
        tell("note", note)
    for warning in _shortages(resolved, generator, haystack):
        tell("warning", warning)
    off: list[str] = []
    rows = _watched(rows, off, total, on_row)
    count, places = write_rows(rows, resolved, Path(save_path), format, settings_of(resolved, generator, tokenizer))
    if off:
        tell("warning", off_label_text(off, count))
    if hub_id is not None:
        push_to_hub(hub_id, places)
    return GeneratedDataset(count, tuple(places), tuple(messages))


def generator_of(task: str) -> Generator:
    """The generator of a task by name; ConfigError where the task makes no data."""
    generator = registry.task(task).generator
    if generator is None:
        makers = [name for name in registry.names("tasks") if registry.task(name).generator]
        raise ConfigError(f"the task {task} has data of its own and makes none", valid=", ".join(makers))
    return generator


def _resolve(config: GenerateConfig, generator: Generator, tokenizer: Tokenizer) -> ResolvedConfig:
    """Settle what is open: sizes in characters become tokens, names become underscored, excluded keys are read."""
    if bool(config.context_lengths) == bool(config.char_counts):
        raise ConfigError(
            "the size of the prompts is needed once",
            valid="--context_length N (tokens), or --char-count C (characters)",
        )
    source = Source(config.haystack or generator.haystack, config.seed)
    lengths = tuple(tokens_of_characters(chars, source.parts(), tokenizer) for chars in config.char_counts)
    excluded = frozenset(config.excluded_keys)
    if config.exclude_keys_from:
        excluded |= read_answers(config.exclude_keys_from)
    return replace(
        config,
        context_lengths=config.context_lengths or lengths,
        task=config.task.replace("-", "_"),
        excluded_keys=excluded,
    ).resolved(generator)


def tokens_of_characters(characters: int, parts: Iterable[str], tokenizer: Tokenizer) -> int:
    """The tokens that about `characters` characters of the text have (special tokens not counted), at least 1."""
    wanted = min(characters, MEASURED_CHARS)
    pieces, length = [], 0
    for part in parts:
        pieces.append(part)
        length += len(part)
        if length >= wanted:
            break
    text = "".join(pieces)[:wanted]
    if not text:
        return characters  # an empty source: building the haystack says so
    return max(1, round(tokenizer.count(text, add_special_tokens=False) * characters / len(text)))


def settings_of(config: ResolvedConfig, generator: Generator, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the file says about how it was made; no paths."""
    hidden = ("char_counts", "exclude_keys_from", "excluded_keys", "haystack")
    settings = {name: value for name, value in vars(config).items() if name not in hidden}
    options = {name: Path(value).name if name in generator.files else value for name, value in config.options.items()}
    settings |= {"options": options, "haystack": Path(config.haystack).name}
    return settings | {"tokenizer_hash": tokenizer.fingerprint}


def _notes(config: ResolvedConfig, generator: Generator, haystack: Haystack) -> Iterator[str]:
    yield from generator.notes
    unique = haystack.unique_fraction(max(config.context_lengths))
    if unique < 1:
        yield f"the haystack repeats itself: of the longest prompt {unique:.1%} is unique (column haystack_unique)"


def _shortages(config: ResolvedConfig, generator: Generator, haystack: Haystack) -> Iterator[str]:
    """One sentence for each length whose prompts have to share haystack text, and what would help."""
    if generator.needs_haystack and config.is_eval and config.control is None:
        for short in shortages(plan_rows(config), haystack):
            yield _shortage_text(short, haystack, config)


def _shortage_text(short: Shortage, haystack: Haystack, config: ResolvedConfig) -> str:
    """The prompts of one length have to share haystack text, and what would help."""
    return (
        f"{short.asked} haystacks of {short.context_length:,} tokens are asked for, the pool of {short.pool:,} tokens "
        f"({Path(haystack.name).name}) holds {short.independent} without overlap: prompts share text, and reports "
        f"count at most {short.independent} independent sample(s) at this length; {_remedy(short, haystack, config)}"
    )


def _remedy(short: Shortage, haystack: Haystack, config: ResolvedConfig) -> str:
    if haystack.repeats:
        return "the text repeats itself, however long; only another --haystack_dir gives more"
    if haystack.unique_tokens is None and haystack.tokens >= config.pool_tokens:
        return f"pass --pool-tokens {short.needed}, which is enough"
    return f"a text of {short.needed:,} tokens is enough" + (
        f", with --pool-tokens {short.needed}" if short.needed > config.pool_tokens else ""
    )


def _watched(
    rows: Iterator[dict[str, Any]], off: list[str], total: int, on_row: Callable[[int, int], None] | None
) -> Iterator[dict[str, Any]]:
    """Pass rows on; those whose needle stands far from its label are noted in `off`."""
    for number, row in enumerate(rows, 1):
        if is_off_label(row["depth_percent"], row):
            off.append(f"{row['id']} at {row['real_depth']:.1f} %")
        if on_row is not None:
            on_row(number, total)
        yield row


def off_label_text(off: list[str], count: int) -> str:
    """What is said of needles that stand far from their labels."""
    some = ", ".join(off[:3]) + (", …" if len(off) > 3 else "")
    return (
        f"in {len(off)} of {count} prompts the needle stands more than {OFF_POINTS:g} points from depth_percent ({some}); "
        "real_depth is where it stands"
    )
