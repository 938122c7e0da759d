"""A miniature AA-LCR in the published layout, for tests: several documents a question, awkward names, broken members."""

from __future__ import annotations

import csv
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ACCENTED = "Éva’s Übersicht – 2024.txt"  # composed (NFC)


@dataclass(frozen=True)
class Row:
    """One question of the miniature; `files` are names and texts in the order of the prompt."""

    id: int
    category: str
    document_set: str
    question: str
    answer: str
    files: Sequence[tuple[str, str]]
    urls: Sequence[str] = ()


ROWS = (
    Row(1, "Company Reports", "reports_1", "Which port was busier?", "Oslo",
        (("b second.txt", "Bergen handled 3 ships."), ("a first.txt", "Oslo handled 5 ships.")),
        ("http://example.org/b", "http://example.org/a")),
    Row(2, "Company Reports", "reports_1", "How many ships together?", "8",
        (("a first.txt", "Oslo handled 5 ships."), ("b second.txt", "Bergen handled 3 ships."))),
    Row(3, "Academia", "papers_7", "Who wrote the survey?", "Éva; Jürgen",
        ((ACCENTED, "Éva and Jürgen wrote it."), ("Café menu.txt", "Soup."), ("plain.txt", "Nothing of interest."))),
    Row(4, "Legal", "acts_2", "What is the fine {in euro}?", "250",
        (("act.txt", "The fine is {250} euro; see BEGIN DOCUMENT 9."),)),
)  # fmt: skip
MOJIBAKE = ACCENTED.encode("utf-8").decode("cp437")
MEMBER_NAMES = {ACCENTED: MOJIBAKE, "Café menu.txt": unicodedata.normalize("NFD", "Café menu.txt")}


def write_tiny_aa_lcr(
    folder: Path, rows: Sequence[Row] = ROWS, *, names: Mapping[str, str] = MEMBER_NAMES, leave_out: Sequence[str] = ()
) -> Path:
    """Write the CSV and the zip; `names` are the members' awkward names, `leave_out` names of files without a member."""
    (folder / "extracted_text").mkdir(parents=True)
    with (folder / "AA-LCR_Dataset.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["", "document_category", "document_set_id", "question_id", "question", "answer", "data_source_filenames",
             "data_source_urls", "input_tokens"]
        )  # fmt: skip
        for number, row in enumerate(rows):
            files, tokens = ";".join(name for name, _ in row.files), 72_000 + 9_000 * number
            writer.writerow(
                [
                    number,
                    row.category,
                    row.document_set,
                    row.id,
                    row.question,
                    row.answer,
                    files,
                    ";".join(row.urls),
                    tokens,
                ]
            )
    members = {
        f"lcr/{row.category}/{row.document_set}/{names.get(name, name)}": text
        for row in rows
        for name, text in row.files
        if name not in leave_out
    }
    with zipfile.ZipFile(folder / "extracted_text" / "AA-LCR_extracted-text.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(members.items()):
            archive.writestr(name, text)
        archive.writestr("__MACOSX/lcr/Legal/acts_2/._act.txt", "rubbish")
    return folder


def break_member(zip_path: Path, member_end: str) -> None:
    """Flip bytes in the stored data of the member whose name ends so: its checksum no longer fits."""
    with zipfile.ZipFile(zip_path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(member_end))
    data = bytearray(zip_path.read_bytes())
    start = info.header_offset + 30 + len(info.filename.encode()) + len(info.extra)
    for place in range(start, start + info.compress_size):
        data[place] ^= 0xFF
    zip_path.write_bytes(bytes(data))
