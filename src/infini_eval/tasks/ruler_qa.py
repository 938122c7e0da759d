"""ruler_qa: RULER's question answering over documents, from a file of the user's (`--option file=QUESTIONS.jsonl`)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from infini_eval.api.task import Generator, Question, RowInputs
from infini_eval.errors import ConfigError, DataError
from infini_eval.tasks._ruler import ruler_task
from infini_eval.tasks._ruler_lists import longest_that_fits

INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words."
)
LINE = '{"question": "…", "answers": ["…"], "context": "…"}'


@dataclass(frozen=True)
class Item:
    """A question with its references and the document that answers it."""

    question: str
    answers: tuple[str, ...]
    context: str


@lru_cache(maxsize=4)
def read_items(file: str) -> tuple[Item, ...]:
    """The questions of a JSON-lines file, each line as in LINE."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"no question file {file!r}", valid=f"JSON lines such as {LINE}")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            answers = tuple(str(answer) for answer in row.get("answers") or [row["answer"]])
            items.append(Item(str(row["question"]), answers, str(row["context"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{file}, line {number} is not a question: {error}", valid=LINE) from error
    if len({item.context for item in items}) < 2:
        raise DataError(f"{file} holds fewer than two documents", valid="many questions, each with its own document")
    return tuple(items)


def question(draw: RowInputs) -> Question:
    """The answering document among others of the file, as many as fit; its place is the row's depth."""
    if not draw.options["file"]:
        raise ConfigError("ruler_qa needs questions of yours", next_step="pass --option file=QUESTIONS.jsonl")
    items = read_items(draw.options["file"])
    asked = items[draw.rng.randrange(len(items))]
    others = sorted({item.context for item in items} - {asked.context})
    draw.rng.shuffle(others)

    def make(number: int) -> str:
        documents = others[:number]
        documents.insert(round(len(documents) * draw.depth / 100), asked.context)
        context = "\n\n".join(f"Document {i}:\n{document}" for i, document in enumerate(documents, 1))
        return (
            f"{INSTRUCTION}\n\nThe following are given documents.\n\n{context}\n\n{INSTRUCTION}\n\n"
            f"Question: {asked.question} Answer:"
        )

    text = longest_that_fits(make, draw.target, draw.tokenizer, smallest=0, largest=len(others))
    return Question(None, asked.answers[0], asked.answers, text=text)


GENERATOR = Generator(
    question,
    answer_budget=32,
    length_includes_answer=True,
    needs_haystack=False,
    options={"file": ""},
    notes=("a prompt holds whole documents: it is shorter than asked by up to one, or where the file runs out",),
)
TASK = ruler_task("ruler_qa", GENERATOR, 32, scorer="string_match_part")
