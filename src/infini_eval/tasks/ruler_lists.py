"""RULER's tasks whose prompt is a list as long as fits: variables in lines of noise, common words, frequent words.

Behaviour as RULER's own scripts have it since December 2024; what differs stands in docs/ruler.md.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from infini_eval.api.task import Generator, PromptTokenizer, Question, RowInputs, Span, Task
from infini_eval.data.english import all_words, word_pair
from infini_eval.data.sources import FILLER
from infini_eval.errors import ConfigError, DataError
from infini_eval.foreign import parse_json
from infini_eval.tasks._fitting import filling, largest_that_fits, no_exact_prompt
from infini_eval.tasks.ruler import ruler_task

# ruler_vt
VALUE_DIGITS = 5
NAME_LETTERS, EXAMPLE_LETTERS = 5, 3  # the example's names are shorter: they can never be those asked for
EXAMPLE_TOKENS, EXAMPLE_HOPS, EXAMPLE_LINES = 500, 10, 5  # the example's most tokens and hops, its fewest lines
FEWER_LINES = 4  # lines of noise that may go so that the last one makes the length come out
NOISE = FILLER.strip()
VT_INTRO = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
# "assgined" stands so in the published prompt; scores are compared with models that read it.
VT_QUESTION = (
    "\nQuestion: Find all variables that are assigned the value {value} in the text above. Answer: According to the "
    "chain(s) of variable assignment in the text above, {number} variables are assgined the value {value}, they are: "
)

# ruler_cwe
SHORT = 4_096  # below this context length the lists repeat their words less often
FULL = 0.98  # a list that ends below this share of its length has run out of words
CWE_INTRO = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
CWE_QUESTION = (
    "\nQuestion: What are the {common} most common words in the above list? "
    "Answer: The top {common} words that appear most often in the list are:"
)

# ruler_fwe
TOKENS_A_WORD = 50  # the vocabulary has a word for so many tokens of context
FEWEST_WORDS = 10
CODE_LETTERS = 6
DOTS = "..."  # takes the place of the commonest word; the question has four dots, as published
FWE_INTRO = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words. "
)
FWE_QUESTION = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
    "appeared words are:"
)


@dataclass(frozen=True)
class _Track:
    """Chains of assignments "VAR A = 12345", "VAR B = VAR A", …; the first chain's value is asked for."""

    chains: tuple[tuple[str, ...], ...]
    value: str
    names: tuple[str, ...]

    @classmethod
    def draw(cls, rng: random.Random, chains: int, hops: int, letters: int, values: Sequence[str]) -> _Track:
        names = _codes(rng, chains * (hops + 1), letters, ascii_uppercase)
        made = []
        for i, value in enumerate(values):
            own = names[i * (hops + 1) : (i + 1) * (hops + 1)]
            copies = (f"VAR {after} = VAR {before}" for before, after in itertools.pairwise(own))
            made.append((f"VAR {own[0]} = {value}", *copies))
        return cls(tuple(made), values[0], tuple(names[: hops + 1]))

    def lines(self, noise: int, order: int, last: str = "") -> list[str]:
        """`noise` lines of noise with each assignment on a line of its own, at places drawn with `order`; then `last`."""
        rng = random.Random(order)
        lines = [NOISE] * noise
        for chain in self.chains:
            places = sorted(rng.sample(range(len(lines)), len(chain)))
            for moved, (place, line) in enumerate(zip(places, chain, strict=True)):
                lines.insert(place + moved, line)
        return [*lines, last] if last else lines

    def prompt(self, lines: Sequence[str]) -> str:
        return VT_INTRO + "\n".join(lines) + VT_QUESTION.format(value=self.value, number=len(self.names))


def vt_question(draw: RowInputs) -> Question:
    """As many lines of noise as fit; the last one is cut so that the length is exact."""
    chains, hops = draw.int_option("chains"), draw.int_option("hops")
    example, used = _vt_example(draw, chains, hops)
    values = [draw.fresh_number(VALUE_DIGITS, used) for _ in range(chains)]
    track = _Track.draw(draw.rng, chains, hops, NAME_LETTERS, values)
    order = draw.rng.getrandbits(64)

    def made(noise: int, last: str = "") -> str:
        return example + track.prompt(track.lines(noise, order, last))

    noise = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=hops + 1)
    text = made(noise)
    if draw.tokenizer.count(text) != draw.target:
        text = _exactly(made, noise, hops + 1, draw)
    return _tracked(text, len(example) + len(VT_INTRO), track)


def _exactly(made: Callable[[int, str], str], noise: int, fewest: int, draw: RowInputs) -> str:
    for fewer in range(min(FEWER_LINES, noise - fewest + 1)):
        words = " ".join([NOISE] * (fewer + 1)).split(" ")
        with_last = partial(made, noise - fewer)
        last = filling(with_last, words, draw.target, draw.tokenizer)
        if last is not None:
            return with_last(last)
    raise no_exact_prompt(draw.target, draw.tokenizer)


def _tracked(text: str, start: int, track: _Track) -> Question:
    """The question with its assignments' places; the row's depth is that of the first assignment asked for."""
    end = text.rindex(VT_QUESTION[: VT_QUESTION.index("{")])
    needles: list[Span] = []
    for line in itertools.chain.from_iterable(track.chains):
        place = text.index(f"{line}\n", start)
        needles.append((place, place + len(line)))
    asked = sorted(needles).index(needles[0])
    depth = round(100 * (needles[0][0] - start) / (end - start))
    return Question(
        None,
        " ".join(track.names),
        track.names,
        text=text,
        asked=asked,
        needles=tuple(sorted(needles)),
        context=(start, end),
        columns={"depth_percent": float(depth), "haystack": "noise"},
        haystack="noise",
    )


def _vt_example(draw: RowInputs, chains: int, hops: int) -> tuple[str, set[str]]:
    """RULER's worked example with its answer, and its values: one layout for all prompts, names and values for each."""
    if not _with_example(draw):
        return "", set()
    hops = min(hops, EXAMPLE_HOPS)
    used: set[str] = set()
    values = [draw.fresh_number(VALUE_DIGITS, used) for _ in range(chains)]
    track = _Track.draw(draw.rng, chains, hops, EXAMPLE_LETTERS, values)
    lines = track.lines(_example_lines(draw.tokenizer, chains, hops), order=0)
    return f"{track.prompt(lines)} {' '.join(track.names)}\n\n", used


@lru_cache(maxsize=8)
def _example_lines(tokenizer: PromptTokenizer, chains: int, hops: int) -> int:
    """The lines of noise of an example that has at most EXAMPLE_TOKENS tokens without its answer."""
    values = [str(12345 + i) for i in range(chains)]
    track = _Track.draw(random.Random(0), chains, hops, EXAMPLE_LETTERS, values)
    fewest = max(EXAMPLE_LINES, hops + 1)
    noise = fewest
    while tokenizer.count(track.prompt(track.lines(noise + 1, order=0))) <= EXAMPLE_TOKENS:
        noise += 1
    return noise


def _with_example(draw: RowInputs) -> bool:
    if draw.options["example"] not in ("yes", "no"):
        raise ConfigError(f"--option example={draw.options['example']} is not known", valid="example=yes or example=no")
    return draw.options["example"] == "yes"


def _codes(rng: random.Random, number: int, letters: int, alphabet: str, first: Sequence[str] = ()) -> list[str]:
    """Different words of random letters, after those in `first`."""
    found = dict.fromkeys(first)
    while len(found) < number:
        found["".join(rng.choices(alphabet, k=letters))] = None
    return list(found)


@dataclass(frozen=True)
class _Shape:
    """How often common and other words stand in the list; words, and the same two, of the worked example."""

    common_times: int
    others_times: int
    example_words: int
    example_common_times: int
    example_others_times: int


LONG_SHAPE = _Shape(30, 3, 40, 10, 3)
SHORT_SHAPE = _Shape(6, 1, 20, 3, 1)


def cwe_question(draw: RowInputs) -> Question:
    """As many other words as fit; the list is never padded, so prompts are a little below their length."""
    shape = SHORT_SHAPE if draw.context_length < SHORT else LONG_SHAPE
    common = draw.int_option("common")
    times, others = _times(draw, "common_times", shape.common_times), _times(draw, "others_times", shape.others_times)
    example = _cwe_example(draw, common, shape)
    words = _Words(draw)
    order = draw.rng.getrandbits(64)

    def made(number: int) -> str:
        drawn = words.first(common + number)
        return example + _numbered(drawn[:common], times, drawn[common:], others, order)

    largest = None if words.most is None else words.most - common
    try:
        number = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=1, largest=largest)
    except DataError as error:
        step = "ask for a longer context, or for a shorter list: --option common_times=6 --option others_times=1"
        raise DataError(error.problem, next_step=step) from error
    text = made(number)
    if number == largest and draw.tokenizer.count(text) < FULL * draw.target:
        raise DataError(
            f"{draw.options['words']}: {words.most} words are too few for {draw.target} tokens",
            next_step="pass a longer list with --option words=FILE, or leave it out",
        )
    wanted = tuple(words.first(common + number)[:common])
    return Question(None, ", ".join(wanted), wanted, text=text)


class _Words:
    """Different words in a drawn order: of the package's lists, or all of a longer source where these are too few.

    So do RULER's scripts since they have a longer list (`--option words=FILE`); without one, pairs of an adjective and
    a noun take its place. `most` is how many there can be, None where there is no end.
    """

    def __init__(self, draw: RowInputs) -> None:
        self._usual = list(all_words())
        draw.rng.shuffle(self._usual)
        self._order = draw.rng.getrandbits(64)
        self._listed: list[str] = []
        if draw.options["words"]:
            self._listed = list(read_words(draw.options["words"]))
            random.Random(self._order).shuffle(self._listed)
        self.most = max(len(self._usual), len(self._listed)) if self._listed else None
        self._pairs: dict[str, None] = {}
        self._rng = random.Random(self._order)

    def first(self, number: int) -> list[str]:
        if number <= len(self._usual):
            return self._usual[:number]
        if self._listed:
            return self._listed[:number]
        while len(self._pairs) < number:
            self._pairs[word_pair(self._rng, part=1)] = None
        return list(itertools.islice(self._pairs, number))


@lru_cache(maxsize=2)
def read_words(file: str) -> tuple[str, ...]:
    """The different words of a file: one a line, or (.json) a list, or the values of an object as RULER's has them."""
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        held = parse_json(text) if path.suffix == ".json" else text.split("\n")
        words = dict.fromkeys(str(word).strip() for word in (held.values() if isinstance(held, dict) else held))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"--option words={file} cannot be read: {error}",
            valid="a text with a word a line, or JSON: a list of words, or an object whose values are words",
        ) from error
    return tuple(word for word in words if word)


def _numbered(common: Sequence[str], times: int, others: Sequence[str], others_times: int, order: int) -> str:
    """Intro, the numbered list in its shuffled order, question."""
    listed = [word for word in common for _ in range(times)] + [word for word in others for _ in range(others_times)]
    random.Random(order).shuffle(listed)
    context = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
    return f"{CWE_INTRO}{context}{CWE_QUESTION.format(common=len(common))}"


def _cwe_example(draw: RowInputs, common: int, shape: _Shape) -> str:
    """RULER's worked example, drawn anew for each prompt: a short list with its answer."""
    if not _with_example(draw):
        return ""
    drawn = draw.rng.sample(all_words(), max(shape.example_words, common + 1))
    order = draw.rng.getrandbits(64)
    answer = " ".join(f"{i}. {word}" for i, word in enumerate(drawn[:common], 1))
    times = shape.example_common_times, shape.example_others_times
    return f"{_numbered(drawn[:common], times[0], drawn[common:], times[1], order)} {answer}\n"


def _times(draw: RowInputs, name: str, usual: int) -> int:
    return usual if draw.options[name] == "auto" else draw.int_option(name)


def fwe_question(draw: RowInputs) -> Question:
    """The word of rank r stands there n * r**-alpha / zeta(alpha) times, rounded down; n as large as fits.

    The words are coded anew for each prompt, as published.
    """
    from scipy.special import zeta

    alpha = _alpha(draw.options["alpha"])
    number = max(FEWEST_WORDS, draw.context_length // TOKENS_A_WORD)
    words = _codes(draw.rng, number, CODE_LETTERS, ascii_lowercase, first=(DOTS,))
    weights = [rank**-alpha / float(zeta(alpha)) for rank in range(1, number + 1)]
    order = draw.rng.getrandbits(64)

    def made(size: int) -> str:
        counts = [int(size * weight) for weight in weights]
        listed = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
        random.Random(order).shuffle(listed)
        return FWE_INTRO + " ".join(listed) + FWE_QUESTION

    fewest = math.ceil(1 / (weights[3] - weights[4]))  # from here on the third word is more frequent than the fourth
    size = largest_that_fits(lambda n: draw.tokenizer.count(made(n)), draw.target, smallest=fewest)
    wanted = tuple(words[1:4])
    return Question(None, " ".join(wanted), wanted, text=made(size))


def _alpha(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 < value <= 10:
        raise ConfigError(f"--option alpha={text} is not known", valid="a number above 1 and up to 10, as alpha=2.0")
    return value


VT = Generator(
    vt_question,
    "noise",
    answer_budget=30,
    length_includes_answer=True,
    needs_haystack=False,
    options={"chains": "1", "hops": "4", "example": "yes"},
    depths="random",
)
CWE = Generator(
    cwe_question,
    answer_budget=120,
    length_includes_answer=True,
    needs_haystack=False,
    exact=False,
    options={"common": "10", "common_times": "auto", "others_times": "auto", "example": "yes", "words": ""},
    files=("words",),
    depths="0",
    notes=(
        "ruler_cwe: lists of more different words than the package wonderwords has (about 8,000: 24,000 entries) take them "
        "from --option words=FILE; without it from adjective-noun pairs, which is not comparable with published scores",
    ),
)
FWE = Generator(
    fwe_question,
    answer_budget=50,
    length_includes_answer=True,
    needs_haystack=False,
    exact=False,
    options={"alpha": "2.0"},
    depths="0",
)
TASKS: dict[str, Task] = {
    "ruler_vt": ruler_task("ruler_vt", VT, 30),
    "ruler_cwe": ruler_task("ruler_cwe", CWE, 120),
    "ruler_fwe": ruler_task("ruler_fwe", FWE, 50),
}
