"""Seeded haystack text: template sentences, the interpreter's documentation, repeated filler and word salad."""

from __future__ import annotations

import importlib
import inspect
import json
import pydoc_data.topics
import random
import re
from functools import lru_cache
from pathlib import Path

WORDS: dict[str, list[str]] = json.loads(Path(__file__).with_name("words.json").read_text())
NOUNS, ADJECTIVES, ADVERBS, NAMES = (WORDS[kind] for kind in ("nouns", "adjectives", "adverbs", "names"))
VERBS, INTRANSITIVE, PREPOSITIONS = (WORDS[kind] for kind in ("verbs", "intransitive", "prepositions"))
MAX_DIGITS = 9  # of keys and of the distractors' numbers alike: length must not tell them apart
CLASSIC_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def random_number(rng: random.Random) -> str:
    """A number of 1 to MAX_DIGITS digits without a leading zero; all digit counts equally likely."""
    digits = rng.randint(1, MAX_DIGITS)
    low = 0 if digits == 1 else 10 ** (digits - 1)
    return str(rng.randint(low, 10**digits - 1))


def distractor(rng: random.Random) -> str:
    """A sentence that states a number, as a needle does, for another thing: the model must go by the name."""
    name = rng.choice(WORDS["secrets"]) if rng.random() < 0.6 else rng.choice(NOUNS)
    number = random_number(rng)
    form = rng.random()
    if form < 0.5:
        return f"The {name} is {number}."
    if form < 0.7:
        return f"The {name} is {number}. Remember it."
    if form < 0.8:
        return f"The {name} is {number}. Remember it. {number} is the {name}."
    return f"The {name} of the {rng.choice(NOUNS)} is {number}."


def template_sentence(rng: random.Random) -> str:
    """One grammatical, meaningless sentence."""
    noun = lambda: rng.choice(WORDS["unusual"] if rng.random() < 0.01 else NOUNS)  # noqa: E731 - a local shorthand
    adj, name, adverb = rng.choice(ADJECTIVES), rng.choice(NAMES), rng.choice(ADVERBS)
    verb, verb2, stay = rng.choice(VERBS), rng.choice(VERBS), rng.choice(INTRANSITIVE)
    prep = rng.choice(PREPOSITIONS)
    forms = (
        f"The {adj} {noun()} {verb} the {noun()}.",
        f"{name} {verb} the {noun()} {prep} the {adj} {noun()}.",
        f"The {noun()} is {adj}.",
        f"The {noun()} of the {noun()} is {adj} and the {noun()} is {rng.choice(ADJECTIVES)}.",
        f"{adverb.capitalize()}, the {noun()} {stay} {prep} the {noun()}.",
        f"Every {noun()} {verb} a {noun()}, but no {noun()} {verb2} the {adj} {noun()}.",
        f"Why did the {noun()} {prep} the {noun()} {adverb} look {adj}?",
        f'"I {verb} the {noun()}," said {name}.',
        f"When {name} {stay}, the {noun()} and the {noun()} {verb} {rng.choice(NAMES)}.",
        f"It was a {adj} {noun()}; nobody {verb} it, and it {stay} {adverb}.",
        f"There are {rng.randint(2, 99)} {noun()}s {prep} the {noun()}.",
        f"In {rng.randint(1500, 2030)} the {noun()} {stay} in {name}.",
        f"We {verb} a key, a pass and the {noun()}.",
        f"“What is the {noun()}?” {name} asked — the {noun()} ’s {noun()} {stay}.",
    )
    # The last two are rare on purpose: decoys for the question's words, and bytes outside ASCII.
    return rng.choice(forms[:12]) if rng.random() < 0.95 else rng.choice(forms[12:])


def template_text(rng: random.Random, sentences: int, distractors: float = 0.08) -> str:
    """Template sentences in paragraphs, with a distractor after a share of them."""
    parts = []
    for _ in range(sentences):
        parts.append(template_sentence(rng))
        if rng.random() < distractors:
            parts.append(" " + distractor(rng))
        parts.append("\n" if rng.random() < 0.05 else " ")
    return "".join(parts)


@lru_cache(maxsize=1)
def interpreter_docs() -> str:
    """The interpreter's own documentation: language topics and the docstrings of standard modules."""
    parts = list(pydoc_data.topics.topics.values())
    for name in WORDS["documented_modules"]:
        module = importlib.import_module(name)
        # No submodules: which of them are attributes depends on what was imported before.
        members = [value for key, value in sorted(vars(module).items()) if not key.startswith("_")]
        members = [module, *(member for member in members if not inspect.ismodule(member))]
        parts += [doc for doc in (getattr(member, "__doc__", None) for member in members) if isinstance(doc, str)]
    unique = [part for part in dict.fromkeys(parts) if len(part) > 80]
    random.Random(0).shuffle(unique)
    text = "\n\n".join(unique)
    return re.sub(r"[ \t]+", " ", re.sub(r"[-=*~^+.]{4,}", "", text))


def doc_text(rng: random.Random, held_out: bool, distractors: float = 0.06) -> str:
    """The documentation with a distractor after a share of its sentences; its last tenth is kept for evaluation."""
    docs = interpreter_docs()
    cut = len(docs) * 9 // 10
    sentences = re.split(r"(?<=\.)\s+", docs[cut:] if held_out else docs[:cut])
    return " ".join(s + " " + distractor(rng) if rng.random() < distractors else s for s in sentences)


@lru_cache(maxsize=1)
def doc_words() -> list[str]:
    """The distinct words of the documentation, for word salad."""
    return sorted(set(re.findall(r"\b[A-Za-z]{3,12}\b", interpreter_docs())))


def salad_text(rng: random.Random, words: int) -> str:
    """Random words with little punctuation and a few numbers."""
    known = doc_words()
    parts = []
    for _ in range(words):
        roll = rng.random()
        if roll < 0.03:
            parts.append(distractor(rng))
        elif roll < 0.05:
            parts.append(random_number(rng))
        elif roll < 0.10:
            parts.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))))
        elif roll < 0.55:
            parts.append(rng.choice(known))
        else:
            parts.append(rng.choice(rng.choice((NOUNS, ADJECTIVES, VERBS, NAMES))))
        if rng.random() < 0.08:
            parts[-1] += rng.choice((".", ",", ".", ";", ":"))
    return " ".join(parts)


def filler_paragraph(rng: random.Random) -> str:
    """A short paragraph that is to be repeated; often the classic one of passkey tests."""
    if rng.random() < 0.4:
        return CLASSIC_FILLER + " "
    sentences = [template_sentence(rng) for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.15:
        sentences.append(distractor(rng))
    return " ".join(sentences) + rng.choice((" ", " ", "\n"))
