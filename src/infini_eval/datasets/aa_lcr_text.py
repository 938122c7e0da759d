"""AA-LCR's wording: the official prompt around documents and question, and the document's reasoning prompt."""

from __future__ import annotations

from collections.abc import Sequence

OFFICIAL, REASONING = "official", "reasoning"
PROMPTS = (OFFICIAL, REASONING)
REASONING_STEPS = (
    "Reason before you answer, in these steps:\n"
    "1. Repeat the question.\n"
    "2. List the sub-questions that have to be answered first.\n"
    "3. Give the evidence for each, with the number of the document it stands in.\n"
    "4. Put the evidence together.\n"
    '5. End with the final answer alone on one line, which starts with "Final answer:".\n'
)


def official_prompt(documents: Sequence[str], question: str) -> str:
    """The prompt of the data card: documents in their order, numbered from 1, then the question."""
    texts = "\n\n".join(f"BEGIN DOCUMENT {i}:\n{text}\nEND DOCUMENT {i}" for i, text in enumerate(documents, 1))
    return (
        f"BEGIN INPUT DOCUMENTS\n\n{texts}\n\nEND INPUT DOCUMENTS\n\n"
        "Answer the following question using the input documents provided above.\n\n"
        f"START QUESTION\n\n{question}\n\nEND QUESTION\n"
    )


def reasoning_prompt(documents: Sequence[str], question: str) -> str:
    """The official prompt and the steps to reason in: a deviation, whose scores are not the official ones."""
    return f"{official_prompt(documents, question)}\n{REASONING_STEPS}"


def prompt(kind: str, documents: Sequence[str], question: str) -> str:
    """The prompt of that kind."""
    return reasoning_prompt(documents, question) if kind == REASONING else official_prompt(documents, question)
