"""Own data's columns as ours: a mapping that the user gives or that is guessed, chats as prompts, depths where none are said."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from infini_eval.data.passkey import passkey_depth, whole_word_starts
from infini_eval.data.tables import NUMBERS, array_of
from infini_eval.errors import ConfigError, DataError
from infini_eval.foreign import parse_json, shown

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("prompt", "answer", "depth_percent", "id", "outputs", "needles", "is_eval", "haystack_id", *NUMBERS)
SHOWN_FIELDS = "prompt, answer, depth_percent, id, context_length, num_shots, num_digits, outputs"
REQUIRED = ("prompt", "answer")
CHATS = ("messages", "conversations", "conversation", "chat")
CONTEXTS = ("context", "passage", "document", "article", "story")
QUESTIONS = ("question", "query", "instruction", "problem", "input")
PROMPTS = ("inputs", "text")
ANSWERS = (
    "target", "answers", "output", "outputs", "expected", "expected_output", "expected_answer", "reference", "references",
    "gold", "label", "ideal", "solution", "response", "completion",
)  # fmt: skip
DEPTHS = ("depth", "needle_depth", "depth_pct")
LOOKED_AT = 50  # rows from which is guessed what a column holds
MESSAGES = "_messages"  # a column of this module's own: a chat of several turns as JSON, until rows become samples
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "developer": "system"}
KNOWN_ROLES = ("system", "user", "assistant", "tool")
VALID_CHAT = f"messages of role ({', '.join(KNOWN_ROLES)}) and text"
NAMES = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
STEP = 5  # percent: depths that are measured are labelled by the nearest multiple


@dataclass(frozen=True)
class Mapped:
    """A table with our columns, what was taken from where (fields whose column has another name), and what to say of it."""

    table: pa.Table
    used: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def mapped(table: pa.Table, source: str, given: Mapping[str, str]) -> Mapped:
    """The table with the columns prompt and answer; columns that make these are left out beside them.

    Args:
        given: our column to theirs; several of theirs are joined by "+", a blank line between them.

    Raises:
        ConfigError: a field that we do not have.
        DataError: a column that the data do not have, or none for prompt or answer; it names those that there are.
    """
    _check_fields(given)
    _check_columns(given, table, source)
    used = {ours: theirs for ours, theirs in given.items() if ours != theirs}
    guessed = _guessed(table, set(given) | set(table.column_names))
    used |= guessed
    taken = {ours: _parts(theirs, table.column_names) for ours, theirs in used.items()}
    if "prompt" not in {*used, *table.column_names}:
        raise _missing(table, source, used)
    if not used and _is_plain(table):
        return Mapped(table)
    values = {ours: _joined(table, parts) for ours, parts in taken.items()}
    prompts = values.get("prompt") or table.column("prompt").to_pylist()
    answers = values.get("answer") or (table.column("answer").to_pylist() if "answer" in table.column_names else None)
    chats = _chats(prompts, source)
    answers, said = _answers_of_chats(chats, answers, source)
    if answers is None:
        raise _missing(table, source, used)
    first, several = _references(answers)
    left = _without(table, {column for ours in REQUIRED for column in taken.get(ours, ())} - set(used))
    new = {ours: found for ours, found in values.items() if ours not in REQUIRED}
    new |= {"prompt": [transcript(chat) if chat else text for chat, text in zip(chats, prompts)], "answer": first}
    if several is not None and "outputs" not in {*used, *left.column_names}:
        new["outputs"] = several
    if any(chat and len(chat) > 1 for chat in chats):
        new[MESSAGES] = [json.dumps(chat) if chat and len(chat) > 1 else None for chat in chats]
    notes = [f"the columns of {source} were guessed: --columns {_spelled(guessed)}"] if guessed else []
    return Mapped(_with(left, new), used, (*notes, *said))


def _is_plain(table: pa.Table) -> bool:
    """Texts and single answers under our own names: nothing is to be done."""
    import pyarrow as pa

    if "answer" not in table.column_names:
        return False
    prompt, answer = (table.schema.field(name).type for name in REQUIRED)
    if pa.types.is_nested(answer) or not (pa.types.is_string(prompt) or pa.types.is_large_string(prompt)):
        return False
    prompts = table.column("prompt")
    return not any(_chat_in(prompts[row].as_py()) for row in range(min(len(prompts), LOOKED_AT)))


def _check_fields(given: Mapping[str, str]) -> None:
    for ours, theirs in given.items():
        if ours in FIELDS:
            continue
        turned = f"--columns {theirs}={ours}" if theirs in FIELDS else None
        near = difflib.get_close_matches(ours, FIELDS, n=1)
        raise ConfigError(
            f"--columns {ours}={theirs}: {ours!r} is none of our columns"
            + (f"; did you mean {near[0]}?" if near else ""),
            valid=f"OURS=THEIRS, ours being {SHOWN_FIELDS}",
            next_step=turned and f"ours stands first: {turned}",
        )


def _parts(columns: str, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that are joined by "+"; a name that holds a plus itself is taken whole."""
    return (columns,) if columns in names else tuple(columns.split("+"))


def _check_columns(given: Mapping[str, str], table: pa.Table, source: str) -> None:
    """Every column that the user names is there."""
    names = table.column_names
    for columns in given.values():
        for part in _parts(columns, names):
            if part in names:
                continue
            near = next(iter(difflib.get_close_matches(part, names, n=1)), None)
            meant = {ours: theirs.replace(part, near) if near else theirs for ours, theirs in given.items()}
            raise DataError(
                f"{source} has no column {part}" + (f"; did you mean {near}?" if near else ""),
                valid=f"its columns: {', '.join(names)}",
                next_step=f"--columns {_spelled(meant)}" if near else None,
            )


def _guessed(table: pa.Table, known: set[str]) -> dict[str, str]:
    """Fields that are not known, by columns whose names are usual for them."""
    names = table.column_names
    found: dict[str, str] = {}
    if "prompt" not in known:
        chat = next((name for name in CHATS if name in names), None)
        context = next((name for name in CONTEXTS if name in names), None)
        asked = next(([name] for name in QUESTIONS if name in names), [])
        if asked == ["instruction"] and "input" in names:
            asked = ["instruction", "input"]
        if chat:
            found["prompt"] = chat
        elif asked:
            found["prompt"] = "+".join([*([context] if context else []), *asked])
        elif plain := next((name for name in PROMPTS if name in names), None):
            found["prompt"] = plain
    used = set(found.get("prompt", "").split("+"))
    if "answer" not in known and (
        answer := next((name for name in ANSWERS if name in names and name not in used), None)
    ):
        found["answer"] = answer
    if "depth_percent" not in known and (depth := next((name for name in DEPTHS if _holds_percent(table, name)), None)):
        found["depth_percent"] = depth
    return found


def _holds_percent(table: pa.Table, name: str) -> bool:
    """Numbers from 0 to 100 of which some are above 1: others may be fractions, or no depths at all."""
    if name not in table.column_names:
        return False
    values = table.column(name).to_pylist()
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(values) > 0 and all(0 <= n <= 100 for n in numbers) and max(numbers) > 1


def _missing(table: pa.Table, source: str, used: Mapping[str, str]) -> DataError:
    """No prompt or no answer: which columns there are, which of them it may be, and how to say so."""
    names = table.column_names
    missing = [ours for ours in REQUIRED if ours not in names and ours not in used]
    likely = _likely(table, missing, {part for theirs in used.values() for part in theirs.split("+")})
    spelled = ",".join(
        f"{ours}={used.get(ours) or likely.get(ours) or 'COLUMN'}" for ours in REQUIRED if ours in {*missing, *used}
    )
    guess = "it may be meant so" if all(ours in likely for ours in missing) else "say which column it is"
    return DataError(
        f"{source} has no column {' and no column '.join(missing)}; its columns: {', '.join(names) or 'none'}",
        valid=f"columns {SHOWN_FIELDS} (prompt and answer are needed), or chats: messages of role and content",
        next_step=f"{guess}: --columns {spelled}",
    )


def _likely(table: pa.Table, missing: Sequence[str], used: set[str]) -> dict[str, str]:
    """For the prompt the column of the longest texts, for the answer a similar name or else the shortest values."""
    rows = table.slice(0, LOOKED_AT).to_pydict()
    free = {name: values for name, values in rows.items() if name not in used and name not in FIELDS}
    sizes = {
        name: sum(len(str(value)) for value in values) / len(values)
        for name, values in free.items()
        if values and not name.endswith("id") and any(isinstance(value, str | int | list) for value in values)
    }
    found: dict[str, str] = {}
    if "prompt" in missing and sizes:
        texts = {name: size for name, size in sizes.items() if any(isinstance(value, str) for value in free[name])}
        if texts:
            found["prompt"] = max(texts, key=lambda name: texts[name])
    sizes.pop(found.get("prompt", ""), None)
    if "answer" in missing and sizes:
        near = [name for ours in ("answer", *ANSWERS) for name in difflib.get_close_matches(ours, sizes, n=1)]
        found["answer"] = near[0] if near else min(sizes, key=lambda name: sizes[name])
    return found


def _spelled(used: Mapping[str, str]) -> str:
    return ",".join(f"{ours}={theirs}" for ours, theirs in used.items())


def _joined(table: pa.Table, parts: Sequence[str]) -> list[Any]:
    """The values of one column, or the texts of several with a blank line between them."""
    columns = [table.column(part).to_pylist() for part in parts]
    if len(columns) == 1:
        return list(columns[0])
    return ["\n\n".join(str(value) for value in row if value not in (None, "")) or None for row in zip(*columns)]


def _without(table: pa.Table, names: set[str]) -> pa.Table:
    return table.select([name for name in table.column_names if name not in names])


def _with(table: pa.Table, new: Mapping[str, list[Any]]) -> pa.Table:
    columns = {name: table.column(name) for name in table.column_names}
    import pyarrow as pa

    return pa.table(columns | {name: array_of(values) for name, values in new.items()})


def _references(answers: Sequence[Any]) -> tuple[list[Any], list[list[str]] | None]:
    """One answer a row, and all that count as right where rows have several (else None)."""
    lists = [_several(answer) for answer in answers]
    if all(one is None for one in lists):
        return list(answers), None
    whole = [[str(answer)] if one is None else one for answer, one in zip(answers, lists)]
    return [one[0] if one and answer is not None else None for answer, one in zip(answers, whole)], whole


def _several(answer: Any) -> list[str] | None:
    """The texts of a list of answers as data sets write them: a list, SQuAD's {"text": […]}, TriviaQA's value and aliases."""
    if isinstance(answer, str) and answer.startswith("["):
        try:
            answer = parse_json(answer)
        except ValueError:
            return None
    if isinstance(answer, Mapping) and "text" in answer:
        answer = answer["text"]
    elif isinstance(answer, Mapping) and "value" in answer:
        more = answer.get("aliases")
        answer = [answer["value"], *(more if isinstance(more, list) else ())]
    if not isinstance(answer, list):
        return None
    return list(dict.fromkeys(str(one) for one in answer if one is not None))


Chat = list[tuple[str, str]]  # role and text of each turn


def _chats(prompts: Sequence[Any], source: str) -> list[Chat | None]:
    """The turns of each prompt that is a chat, None for a text."""
    chats: list[Chat | None] = []
    for row, prompt in enumerate(prompts):
        found = _chat_in(prompt)
        if found is None and prompt is not None and not isinstance(prompt, str):
            raise DataError(
                f"{source}, row {row}: the prompt is {type(prompt).__name__}, not text",
                valid=f"a text, or {VALID_CHAT}",
            )
        try:
            chats.append(None if found is None else [_turn(message) for message in found])
        except ValueError as error:
            raise DataError(f"{source}, row {row}: {error}", valid=VALID_CHAT) from None
    return chats


def _chat_in(prompt: Any) -> list[Mapping[str, Any]] | None:
    """The messages of a chat, also of one written as JSON; None for anything else."""
    if isinstance(prompt, str) and prompt.startswith("[{"):
        try:
            prompt = parse_json(prompt)
        except ValueError:
            return None
    if not isinstance(prompt, list) or not prompt or not all(isinstance(one, dict) for one in prompt):
        return None
    return prompt if all({"role", "content"} <= set(one) or {"from", "value"} <= set(one) for one in prompt) else None


def _turn(message: Mapping[str, Any]) -> tuple[str, str]:
    """Role and text of a message; ValueError for roles that nobody knows and for contents that are no text."""
    said, content = (message["role"], message["content"]) if "role" in message else (message["from"], message["value"])
    role = ROLES.get(str(said), str(said))
    if role not in KNOWN_ROLES:
        raise ValueError(f"a message has the role {shown(said)}")
    if isinstance(content, list):
        others = [part for part in content if isinstance(part, dict) and not _is_text(part)]
        if others:
            kinds = sorted({str(part.get("type", "no text")) for part in others})
            raise ValueError(f"a message holds {shown(', '.join(kinds))}: only text can be asked")
        content = "\n".join(part["text"] if isinstance(part, dict) else str(part) for part in content)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"a message holds {type(content).__name__}, not text")
    return role, content or ""


def _is_text(part: Mapping[str, Any]) -> bool:
    return part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def _answers_of_chats(
    chats: Sequence[Chat | None], answers: list[Any] | None, source: str
) -> tuple[list[Any] | None, list[str]]:
    """The answers, and what to say; a last turn of the assistant's is the answer where there is no other, and is taken out."""
    last = [chat.pop()[1] if chat and chat[-1][0] == "assistant" else None for chat in chats]
    for row, chat in enumerate(chats):
        if chat is not None and (not chat or chat[-1][0] not in ("user", "tool")):
            raise DataError(
                f"{source}, row {row}: the chat asks nothing", valid="a last turn of the user's, or its answer"
            )
    taken = sum(turn is not None for turn in last)
    if answers is not None:
        note = f"{taken} chat(s) end with a turn of the assistant's, which is left out: the answers have a column"
        return answers, [note] * bool(taken)
    if not taken:
        return None, []
    if None in last:
        raise DataError(
            f"{source}, row {last.index(None)}: no answer, for the chat does not end with a turn of the assistant's",
            next_step="name a column of answers: --columns answer=COLUMN",
        )
    return list(last), ["the answers are the assistant's last turns"]


def transcript(chat: Chat) -> str:
    """A chat as text, for models without a chat format: one question is itself, several turns have names before them.

    It ends where the answer begins; inside the last turn where that is the assistant's.
    """
    if len(chat) == 1:
        return chat[0][1]
    turns = [text if role == "system" else f"{NAMES[role]}: {text}" for role, text in chat]
    return "\n\n".join([*turns, *["Assistant:"] * (chat[-1][0] != "assistant")])


def with_depths(table: pa.Table, source: str) -> tuple[pa.Table, Literal["measured", "none"], str]:
    """Give data without the column depth_percent one: where the answer stands, if that is plain in every row.

    The depth is a share of the prompt's characters (of the haystack's, where the wording is the passkey's), labelled by the
    nearest 5 %; `real_depth` is the exact one. Else all rows are one group, at 0.

    Returns:
        The table, which of the two it is, and what to say.
    """
    prompts, answers = table.column("prompt").to_pylist(), table.column("answer").to_pylist()
    depths = [_depth(prompt, answer) for prompt, answer in zip(prompts, answers)]
    if all(depth is not None for depth in depths):
        labels = [float(STEP * round(depth / STEP)) for depth in depths if depth is not None]
        note = f"{source} has no column depth_percent: depths are where the answers stand, to the nearest {STEP} %"
        return _with(table, {"depth_percent": labels, "real_depth": depths}), "measured", note
    note = f"{source} has no column depth_percent, and its answers do not stand once in their prompts: all rows are one group"
    return _with(table, {"depth_percent": [0.0] * table.num_rows}), "none", note


def _depth(prompt: Any, answer: Any) -> float | None:
    """Percent of the characters before the answer, None where it does not stand in the prompt just once."""
    if not isinstance(prompt, str) or answer in (None, ""):
        return None
    text = answer_text(answer)
    known = passkey_depth(prompt, text)
    if known is not None:
        return known
    places = whole_word_starts(prompt, text)
    return 100 * places[0] / max(1, len(prompt) - len(text)) if len(places) == 1 else None


def answer_text(value: Any) -> str:
    """An answer as text: 1234, 1234.0 and "1234" alike."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
