"""Generated English for haystacks: seeded, endless, and without any sentence twice in 2**32 sentences.

Sentence number n is looked up, not drawn: a keyed permutation of 0..2**32-1 turns n into the choice of words, so that
two sentences never have the same words in the same pattern, and any part of the text can be made on its own.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import uuid
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infini_eval.errors import MaterialError

NUMBER_DIGITS = 7
SENTENCES_PER_PART = 500
Kind = Literal["words", "numbers", "uuids"]


@functools.lru_cache(maxsize=1)
def word_lists() -> tuple[list[str], list[str]]:
    """Adjectives and nouns, sorted, letters only."""
    return _words("adjective"), _words("noun")


def _words(kind: str) -> list[str]:
    try:
        from wonderwords import RandomWord
    except ImportError as error:
        raise MaterialError(
            "the RULER tasks need the package wonderwords", next_step='pip install "infini-eval[tasks]"'
        ) from error
    drawn = RandomWord().filter(include_categories=[kind])
    return sorted({word for word in drawn if word.isalpha() and word.isascii()})


@functools.lru_cache(maxsize=1)
def all_words() -> tuple[str, ...]:
    """Adjectives, nouns and verbs, sorted, each once."""
    return tuple(sorted({*itertools.chain.from_iterable(word_lists()), *_words("verb")}))


def word_pair(rng: random.Random, part: Literal[0, 1]) -> str:
    """ "adjective-noun"; the pairs of part 0 (haystacks) and of part 1 (needles) are never the same."""
    adjectives, nouns = word_lists()
    nouns = nouns[part::2]
    return f"{adjectives[rng.randrange(len(adjectives))]}-{nouns[rng.randrange(len(nouns))]}"


def random_uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def needle_sentence(kind: Kind, key: str, value: str) -> str:
    """RULER's needle."""
    return f"One of the special magic {kind} for {key} is: {value}."


def needle_haystack(seed: int, kind: Literal["numbers", "uuids"]) -> Iterator[str]:
    """Endless text in which every sentence is a needle, with keys that no needle proper has."""
    rng = random.Random(f"needles/{kind}/{seed}")
    while True:
        sentences = []
        for _ in range(SENTENCES_PER_PART):
            key = random_uuid(rng) if kind == "uuids" else word_pair(rng, part=0)
            value = (
                random_uuid(rng)
                if kind == "uuids"
                else str(rng.randrange(10 ** (NUMBER_DIGITS - 1), 10**NUMBER_DIGITS))
            )
            sentences.append(needle_sentence(kind, key, value))
        yield " ".join(sentences) + " "


NOUNS = tuple(
    """anchor apron arch attic axe balcony banner barge barrel basin beacon bench blanket boiler bonnet boulder
    bracelet brick brook broom bucket buckle cabin cable candle canoe canvas carpet carriage cart cellar chapel
    chimney chisel cloak compass copper cottage cradle crate crown curtain cushion dagger dam desk dial ditch dome
    drawer drum easel engine envelope fable feather fern ferry fiddle flag flask flute forge fountain frame furnace
    gallery garland gate glacier glove goblet granary hammer harbor harness hatch hedge helmet hinge hook horn
    inkwell island jacket jar kettle kite ladder lagoon lantern latch ledger lens letter lever loom magnet mantle
    map marble mask mast meadow mill mirror mosaic needle net oar orchard organ oven paddle parcel path pebble
    pendant piano pillar pillow pipe plank plough pocket pottery prism pulley quarry quilt raft rail ribbon roof
    rope saddle sail scale scarf screen shed shelf shovel signal sketch sleigh spindle spire spoon stable staircase
    stove stream studio swamp tapestry telescope tent thimble thread tile torch tower trail tray trumpet tunnel
    valley vase veil viaduct village vine wagon wallet well whistle willow windmill workshop wreath yard""".split()
)
PLURALS = tuple(
    """acrobats actors archers bakers barbers beekeepers brewers builders carpenters carvers clerks climbers coopers
    couriers dancers divers drummers dyers engravers farmers fiddlers fishermen gardeners glaziers grooms guards
    guests guides harpists herders hunters jugglers knights masons merchants messengers millers miners monks nurses
    painters pilgrims pilots plumbers poets porters potters printers riders rowers sailors scholars scouts sculptors
    shepherds singers smiths soldiers spinners stewards tailors tanners teachers tinkers traders travelers tutors
    waiters weavers widows wrestlers writers""".split()
)
ADJECTIVES = tuple(
    """ample ancient ashen bare blunt bold brass brittle broad calm carved cheap chilly clumsy coarse common cracked
    crimson crooked curved damp dense distant dusty eager elegant enormous faded faint familiar fancy fragile frozen
    gilded gleaming gloomy golden graceful grand hollow humble idle ivory jagged joyful keen lavish leafy little
    lonely lovely massive mellow modest mossy muddy neat noble odd orderly ornate pale patient peculiar plain
    pleasant polished precious proud purple quaint quick rapid rare restless robust rough rugged rusty sacred
    scarlet shabby shady shaky shallow sharp silent silver simple sleek slender slim smoky solemn solid spare
    spotless stately steep stern stiff sturdy subtle sunny swift tame tender thick thin tidy timid tiny twisted
    upright urgent vacant vast velvet violet vivid weary wild wooden worn""".split()
)
VERBS = tuple(
    """abandoned admired arranged assembled balanced borrowed brushed buried carried carved cherished chose claimed
    cleaned collected copied decorated defended delivered described designed dismantled displayed divided donated
    drew emptied examined exchanged fastened fetched finished folded forgot framed gathered greased guarded hauled
    hid honored ignored improved inherited inspected insured kept labelled lifted lined loaded locked lowered
    measured mended mixed moved noticed offered opened ordered packed painted patched placed polished praised
    preserved purchased raised rebuilt recalled received recovered refused rented repaired replaced rescued restored
    returned rolled sank saved scrubbed sealed searched sewed shared shifted sketched sold sorted stacked stored
    studied swept tested tied traded traced trimmed unloaded unpacked valued varnished visited washed watched
    weighed wrapped""".split()
)
ADVERBS = tuple(
    """abruptly boldly briefly calmly cheerfully cleverly closely eagerly easily evenly fairly fiercely firmly freely
    gently gladly gracefully happily hastily honestly kindly lately lightly loudly merely mildly neatly nervously
    openly partly patiently plainly politely promptly proudly quickly quietly rarely readily roughly safely secretly
    seldom silently simply slowly smoothly softly solemnly somehow steadily swiftly tenderly thoroughly together
    twice usually warmly wisely""".split()
)
PEOPLE = tuple(
    """Abigail Adele Agnes Albert Alice Amos Arthur Beatrice Bernard Bertha Caleb Cecil Celia Clement Cora Cyril Daphne
    Delia Edgar Edith Edmund Eleanor Elias Ellen Ernest Esther Ethel Eugene Eunice Felix Flora Frances Gilbert
    Gloria Harold Harriet Hector Helen Herman Hilda Horace Hubert Ida Ingrid Iris Isaac Ivy Jasper Judith Julian
    Kurt Laura Leonard Lewis Lillian Louis Lydia Mabel Magnus Marcus Martha Matilda Maurice Mildred Miriam Morris
    Nathan Nora Norman Olive Oswald Otto Penelope Percy Phoebe Ralph Rebecca Reuben Rhoda Roland Rufus Ruth Sidney
    Silas Stella Sylvia Thelma Theodore Tobias Ursula Victor Vincent Viola Wallace Wilfred Winifred""".split()
)
PLACES = tuple(
    """Aberdeen Antwerp Athens Baltimore Bangkok Barcelona Basel Belfast Bergen Bristol Brussels Budapest Calais
    Canterbury Cardiff Chester Cologne Cork Damascus Delft Denver Dover Dresden Dublin Durham Edinburgh Exeter
    Florence Geneva Genoa Ghent Glasgow Gloucester Granada Hamburg Hanover Havana Helsinki Jakarta Kyoto Lancaster
    Leeds Leipzig Lisbon Liverpool Lucerne Lyon Manila Marseille Memphis Milan Montreal Munich Nairobi Naples
    Norwich Odessa Ottawa Oxford Padua Palermo Phoenix Plymouth Porto Prague Quebec Riga Rome Rotterdam Salzburg
    Santiago Seville Sheffield Siena Sofia Stockholm Sydney Toledo Toronto Trieste Turin Utrecht Valencia Venice
    Verona Vienna Warsaw Winchester York Zagreb""".split()
)
TIMES = (
    "at dawn", "at dusk", "at midday", "at midnight", "before breakfast", "after supper", "in early spring",
    "in late autumn", "during the harvest", "on market day", "on a foggy morning", "on the last evening",
    "under a full moon", "after the long rain", "before the first snow", "in the middle of the night",
    "on the third day", "shortly before noon", "during the storm", "at the end of summer", "every other week",
    "on a quiet afternoon", "in the heat of the day", "just after sunrise",
)  # fmt: skip

# text|slot|text|slot|…|text. The words of a pattern must allow at least 2**32 sentences (a test counts them).
PATTERNS = (
    "the |adjective| |noun| near the |adjective| |noun| was |verb| |time|.",
    "|person| |adverb| |verb| the |adjective| |noun| from |place|.",
    "|time|, the |plural| of |place| |verb| a |adjective| |noun|.",
    "a |adjective| |noun| stood beside the |adjective| |noun| that |person| |verb|.",
    "|person| and |person| |verb| the |noun| behind the |adjective| |noun|.",
    "no one in |place| knew why the |plural| |adverb| |verb| the |adjective| |noun|.",
    "the |plural| |verb| every |noun|, but |person| kept the |adjective| |noun|.",
    "in |year|, |person| |verb| a |adjective| |noun| in |place|.",
    "there were |number| |plural| who |verb| the |adjective| |noun| |time|.",
    "what the |adjective| |noun| meant to the |plural|, |person| |adverb| explained |time|.",
    "when the |noun| |adverb| vanished, |person| |verb| the |adjective| |noun| again.",
    "under the |noun| lay a |adjective| |noun|; the |plural| of |place| never |verb| it.",
    '"Our |adjective| |noun| is not for sale," said |person|, who |verb| it in |place|.',
    "it was |person| who |verb| the |noun|, the |noun| and the |adjective| |noun|.",
    "the road from |place| to |place| passes a |adjective| |noun| and a |adjective| |noun|.",
    "|adverb| and without a word, |person| |verb| the |noun| of the |adjective| |plural|.",
)


WORDS = {
    "noun": NOUNS,
    "plural": PLURALS,
    "adjective": ADJECTIVES,
    "verb": VERBS,
    "adverb": ADVERBS,
    "person": PEOPLE,
    "place": PLACES,
    "time": TIMES,
    "year": tuple(str(year) for year in range(1204, 1996)),
    "number": tuple(str(number) for number in range(12, 987)),
}
SENTENCES_PER_BLOCK = 2_000
PARAGRAPH = 7  # sentences

_PARTS = tuple(tuple(pattern.split("|")) for pattern in PATTERNS)  # text, slot, text, slot, ..., text


def blocks(seed: int) -> Iterator[str]:
    """The endless text of a seed in blocks of SENTENCES_PER_BLOCK sentences, each ending in a space or a newline."""
    first = 0
    while True:
        yield text(seed, first, SENTENCES_PER_BLOCK)
        first += SENTENCES_PER_BLOCK


def text(seed: int, first: int, count: int) -> str:
    """Sentences number `first` .. `first + count - 1`, a newline after each paragraph."""
    parts = sentences(seed, first, count)
    ends = ("\n" if (first + i + 1) % PARAGRAPH == 0 else " " for i in range(count))
    return "".join(sentence + end for sentence, end in zip(parts, ends, strict=True))


def sentences(seed: int, first: int, count: int) -> list[str]:
    """The sentences by number."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    choices = permute(numbers, seed).tolist()
    patterns = (_mix(numbers + np.uint64(0x5EED), seed) % np.uint64(len(_PARTS))).tolist()
    return [_sentence(_PARTS[pattern], choice) for pattern, choice in zip(patterns, choices, strict=True)]


def _sentence(parts: tuple[str, ...], choice: int) -> str:
    slots = parts[1::2]
    choice = choice * math.prod(len(WORDS[slot]) for slot in slots) >> 32  # spread over all combinations, still unique
    words = []
    for slot in slots:
        options = WORDS[slot]
        choice, index = divmod(choice, len(options))
        words.append(options[index])
    filled = parts[0] + "".join(word + between for word, between in zip(words, parts[2::2], strict=True))
    return filled[0].upper() + filled[1:]


def permute(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A keyed permutation of 0 .. 2**32 - 1 (four Feistel rounds on 16-bit halves)."""
    half = np.uint64(0xFFFF)
    left, right = (numbers >> np.uint64(16)) & half, numbers & half
    for turn in range(4):
        left, right = right, left ^ (_mix(right + (np.uint64(turn) << np.uint64(32)), seed) & half)
    return (left << np.uint64(16)) | right


def _mix(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Well-spread 64-bit values (the splitmix64 finaliser); arithmetic wraps around."""
    key = np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) % 2**64)
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
