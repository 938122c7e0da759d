"""RULER's question answering over documents: ruler_qa_1 (SQuAD), ruler_qa_2 (HotpotQA), ruler_qa (questions of yours).

The files are the user's (`--option file=…`); nothing of them is shipped. Distractors come from the same file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any

from infini_eval.api.task import Generator, PromptTokenizer, Question, RowInputs, Span, Task
from infini_eval.errors import DataError, MaterialError
from infini_eval.foreign import parse_json
from infini_eval.tasks._fitting import filling, largest_that_fits, no_exact_prompt
from infini_eval.tasks.ruler import ruler_task

INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words."
)
BEFORE = f"{INSTRUCTION}\n\nThe following are given documents.\n\n"
TRIED_DOCUMENTS = 12  # that the last place is offered to, until one can be cut so that the length is exact
LINE = '{"question": "…", "answers": ["…"], "context": "…"}'
SQUAD_LAYOUT = '{"data": [{"paragraphs": [{"context": "…", "qas": [{"question": "…", "answers": [{"text": "…"}]}]}]}]}'
HOTPOT_LAYOUT = (
    '[{"question": "…", "answer": "…", "context": [["title", ["sentence", …]], …], "supporting_facts": […]}]'
)


@dataclass(frozen=True)
class Item:
    """A question with its references. Documents by their numbers: `own` stand in every prompt, and `gold` of them
    answer it; `near` are the first distractors (of the same article)."""

    question: str
    answers: tuple[str, ...]
    own: tuple[int, ...]
    gold: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Corpus:
    """The questions of a file in its order, and its different documents, sorted."""

    items: tuple[Item, ...]
    documents: tuple[str, ...]


def _numbered(documents: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    different = tuple(sorted(set(documents)))
    return different, {document: number for number, document in enumerate(different)}


def read_own(file: str) -> Corpus:
    """The questions of a JSON-lines file, each line as in LINE."""
    rows = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        try:
            row = parse_json(line)
            answers = tuple(str(answer) for answer in row.get("answers") or [row["answer"]])
            rows.append((str(row["question"]), answers, str(row["context"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}, line {number} is not a question: {error}", valid=LINE) from error
    documents, numbers = _numbered([context for _, _, context in rows])
    return Corpus(tuple(Item(asked, answers, *2 * ((numbers[c],),)) for asked, answers, c in rows), documents)


def read_squad(file: str) -> Corpus:
    """SQuAD's layout (2.0, or 1.1): the questions that have an answer; near are the other paragraphs of the article."""
    articles = [[p["context"] for p in article["paragraphs"]] for article in _json(file)["data"]]
    documents, numbers = _numbered(list(itertools.chain.from_iterable(articles)))
    items = []
    for article in _json(file)["data"]:
        around = tuple(dict.fromkeys(numbers[p["context"]] for p in article["paragraphs"]))
        for paragraph in article["paragraphs"]:
            own = numbers[paragraph["context"]]
            near = tuple(number for number in around if number != own)
            for asked in paragraph["qas"]:
                answers = tuple(dict.fromkeys(str(answer["text"]) for answer in asked["answers"]))
                if answers and not asked.get("is_impossible", False):
                    items.append(Item(str(asked["question"]), answers, (own,), (own,), near))
    return Corpus(tuple(items), documents)


def read_hotpotqa(file: str) -> Corpus:
    """HotpotQA's layout: a question's own documents are all of its context, gold those that its supporting facts name."""
    rows = _json(file)
    documents, numbers = _numbered([_paragraph(*found) for row in rows for found in row["context"]])
    items = []
    for row in rows:
        own = {title: numbers[_paragraph(title, sentences)] for title, sentences in row["context"]}
        facts = dict.fromkeys(fact[0] for fact in row.get("supporting_facts", ()))
        gold = tuple(own[title] for title in facts if title in own) or tuple(own.values())
        items.append(Item(str(row["question"]), (str(row["answer"]),), tuple(dict.fromkeys(own.values())), gold))
    return Corpus(tuple(items), documents)


def _paragraph(title: str, sentences: Sequence[str]) -> str:
    return f"{title}\n{''.join(sentences)}"


@dataclass(frozen=True)
class Layout:
    """A kind of question file: how it is read, what it looks like, and where it is had."""

    read: Callable[[str], Corpus]
    valid: str
    source: str


OWN = Layout(read_own, f"JSON lines such as {LINE}", "pass --option file=QUESTIONS.jsonl")
SQUAD = Layout(
    read_squad,
    f"SQuAD's layout: {SQUAD_LAYOUT}",
    "download dev-v2.0.json (https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json), then "
    "--option file=dev-v2.0.json (in the suite: --option qa_1.file=dev-v2.0.json)",
)
HOTPOTQA = Layout(
    read_hotpotqa,
    f"HotpotQA's layout: {HOTPOT_LAYOUT}",
    "download hotpot_dev_distractor_v1.json (http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json), then "
    "--option file=hotpot_dev_distractor_v1.json (in the suite: --option qa_2.file=…)",
)


def read_corpus(layout: Layout, task: str, options: Mapping[str, str]) -> Corpus:
    """The questions of the file that the options name. MaterialError where they name none, DataError where it is no such."""
    file = options["file"]
    if not file:
        raise MaterialError(f"{task} needs questions of yours", valid=layout.valid, next_step=layout.source)
    if not Path(file).expanduser().is_file():
        raise DataError(f"no question file {file!r}", valid=layout.valid, next_step=layout.source)
    return _read(layout, file)


@lru_cache(maxsize=4)
def _read(layout: Layout, file: str) -> Corpus:
    try:
        corpus = layout.read(file)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{file} has another layout ({reason})", valid=layout.valid, next_step=layout.source) from error
    if not corpus.items or len(corpus.documents) < 2:
        found = f"{len(corpus.items)} question(s) with an answer and {len(corpus.documents)} document(s)"
        raise DataError(f"{file} holds {found}", valid="at least one question and two documents: " + layout.valid)
    return corpus


def _text(file: str) -> str:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the question file {file} cannot be read: {error}") from error


def _json(file: str) -> Any:
    try:
        return parse_json(_text(file))
    except ValueError as error:
        raise DataError(f"the question file {file} is not JSON: {error}") from error


class _Prompt:
    """One question among distractors, as prompts of more and more documents.

    A single document that answers stands at the row's depth, several anywhere, as published. The distractors come in a
    drawn order, near ones first; after the last one they are repeated, as published, but never the question's own.
    """

    def __init__(self, corpus: Corpus, item: Item, draw: RowInputs) -> None:
        self.item, self.depth = item, draw.depth
        self.texts = corpus.documents
        near, own = list(item.near), {*item.own, *item.near}
        rest = [number for number in range(len(corpus.documents)) if number not in own]
        draw.rng.shuffle(near)
        draw.rng.shuffle(rest)
        self.distractors = near + rest
        self.order = draw.rng.getrandbits(64)

    def distractor(self, number: int) -> str:
        return self.texts[self.distractors[number % len(self.distractors)]]

    @property
    def most(self) -> int | None:
        """How many distractors there can be: no end, but where there is none at all."""
        return None if self.distractors else 0

    def made(self, number: int, *cut: str) -> tuple[str, tuple[Span, ...]]:
        """The prompt with `number` whole distractors and those `cut`, and the character spans of the gold documents."""
        rng = Random(self.order)
        placed = [(-1, self.distractor(i)) for i in range(number)]
        rng.shuffle(placed)
        placed += [(-1, text) for text in cut]
        for already, own in enumerate(rng.sample(self.item.own, len(self.item.own))):
            alone = len(self.item.own) == 1
            place = round(len(placed) * self.depth / 100) if alone else rng.randrange(number + already + 1)
            placed.insert(place, (own, self.texts[own]))
        return self._joined(placed)

    def _joined(self, placed: Sequence[tuple[int, str]]) -> tuple[str, tuple[Span, ...]]:
        parts, chars = [BEFORE], len(BEFORE)
        gold: list[Span] = []
        for i, (number, document) in enumerate(placed, 1):
            head = f"Document {i}:\n" if i == 1 else f"\n\nDocument {i}:\n"
            chars += len(head)
            if number in self.item.gold:
                gold.append((chars, chars + len(document)))
            parts += [head, document]
            chars += len(document)
        return "".join([*parts, _after(self.item)]), tuple(gold)

    def fitted(self, target: int, tokenizer: PromptTokenizer) -> tuple[str, tuple[Span, ...], int]:
        """The prompt of exactly `target` tokens, its gold spans, and how many distractors it has at least.

        The last distractor is cut where the tokens run out; where no cut gives the count, the one before it is halved.
        """
        number = largest_that_fits(lambda n: tokenizer.count(self.made(n)[0]), target, smallest=0, largest=self.most)
        if tokenizer.count(self.made(number)[0]) == target:
            return *self.made(number), number
        if self.most == 0:
            raise no_exact_prompt(target, tokenizer)
        halves = [] if number == 0 else [(number - 1, (_half(self.distractor(number - 1)),))]
        for whole, cut in [(number, ()), *halves]:
            for tried in range(TRIED_DOCUMENTS):
                words = self.distractor(number + tried).split(" ")
                last = filling(partial(self._with_last, whole, cut), words, target, tokenizer)
                if last is not None:
                    return *self.made(whole, *cut, last), number
        raise no_exact_prompt(target, tokenizer)

    def _with_last(self, whole: int, cut: tuple[str, ...], last: str) -> str:
        return self.made(whole, *cut, last)[0]


def _half(document: str) -> str:
    words = document.split(" ")
    return " ".join(words[: (len(words) + 1) // 2])


def question(draw: RowInputs, layout: Layout, task: str) -> Question:
    """The questions in the file's order, as published, but for those whose own documents do not fit.

    A row of several gold documents is labelled with the depth of the first of them. Questions on the same document count
    as one haystack.
    """
    corpus = read_corpus(layout, task, draw.options)
    item = _asked(corpus, draw)
    prompt = _Prompt(corpus, item, draw)
    text, gold, number = prompt.fitted(draw.target, draw.tokenizer)
    end = len(text) - len(_after(item))
    columns: dict[str, Any] = {"haystack": Path(draw.options["file"]).name}
    if len(prompt.distractors) < number:
        columns["haystack_unique"] = round(len(prompt.distractors) / number, 6)
    if len(item.own) > 1:
        columns["depth_percent"] = float(round(100 * (gold[0][0] - len(BEFORE)) / (end - len(BEFORE))))
    return Question(
        None,
        item.answers[0],
        item.answers,
        text=text,
        needles=gold,
        context=(len(BEFORE), end),
        columns=columns,
        haystack=corpus.documents[item.own[0]],
    )


def _asked(corpus: Corpus, draw: RowInputs) -> Item:
    """The row's question: after the last one that fits, the first again, among other distractors."""
    fitting = _first_fitting(corpus, draw)
    if not fitting:
        fewest = min(_alone(corpus, number, draw.tokenizer) for number in range(len(corpus.items)))
        raise DataError(
            f"{draw.target} tokens are too few: the documents that answer a question take at least {fewest}",
            next_step="ask for a longer context",
        )
    return fitting[draw.number % len(fitting)]


def _first_fitting(corpus: Corpus, draw: RowInputs) -> list[Item]:
    """The questions that fit, in order, as many as the row's number needs."""
    numbers = (n for n in range(len(corpus.items)) if _alone(corpus, n, draw.tokenizer) <= draw.target)
    return [corpus.items[n] for n in itertools.islice(numbers, draw.number + 1)]


@lru_cache(maxsize=65_536)
def _alone(corpus: Corpus, number: int, tokenizer: PromptTokenizer) -> int:
    """The tokens of a prompt with a question's own documents only."""
    item = corpus.items[number]
    documents = "\n\n".join(f"Document {i}:\n{corpus.documents[own]}" for i, own in enumerate(item.own, 1))
    return tokenizer.count(f"{BEFORE}{documents}{_after(item)}")


def _after(item: Item) -> str:
    return f"\n\n{INSTRUCTION}\n\nQuestion: {item.question} Answer:"


def _task(name: str, layout: Layout) -> Task:
    generator = Generator(
        lambda draw: question(draw, layout, name),
        answer_budget=32,
        length_includes_answer=True,
        needs_haystack=False,
        options={"file": ""},
        files=("file",),
        depths="random",
        notes=(
            "questions over documents: whole documents, but for the last distractor (or two), cut so that the length is exact",
        ),
    )
    return ruler_task(name, generator, 32, scorer="string_match_part")


TASKS: dict[str, Task] = {
    "ruler_qa": _task("ruler_qa", OWN),
    "ruler_qa_1": _task("ruler_qa_1", SQUAD),
    "ruler_qa_2": _task("ruler_qa_2", HOTPOTQA),
}
