"""Check a data set: count its tokens and name its defects (status 1).

infini-eval data check FILE --tokenizer checkpoints/infini-demo --segment-length 1024
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from infini_eval.cli.flags import add_flag
from infini_eval.errors import EXIT_CHECK_FAILED, EXIT_OK
from infini_eval.options import column_pairs, depth_list, token_count

if TYPE_CHECKING:
    from infini_eval.api.task import DataFinding
    from infini_eval.records import Sample

CELLS_SHOWN = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check",), help="what to do with the data set")
    parser.add_argument(
        "dataset", metavar="FILE", help="a file of rows (parquet, csv, jsonl, json), a folder, or a hub id"
    )
    add_flag(
        parser,
        "--tokenizer",
        metavar="T",
        help="count tokens with this tokenizer (a folder, a file, a checkpoint, a hub name)",
    )
    add_flag(
        parser,
        "--segment-length",
        type=token_count,
        metavar="L",
        help="also show how questions stand to the model's segments",
    )
    add_flag(parser, "--task", default="passkey", help="whose rules to check by (default: %(default)s)")
    add_flag(parser, "--num_shots", type=int, help="check only rows with that many shots")
    add_flag(parser, "--context_length", type=token_count, metavar="N", help="check only rows of that length")
    add_flag(parser, "--depths", type=depth_list, metavar="LIST", help="check only rows of these depths")
    add_flag(
        parser,
        "--columns",
        type=column_pairs,
        default=(),
        metavar="MAP",
        help="as of run: prompt=question,answer=target",
    )
    add_flag(parser, "--split", metavar="NAME", help="as of run: the split to check")


def run(args: argparse.Namespace) -> int:
    from infini_eval.api import registry
    from infini_eval.data.reading import load_data

    task = registry.task(args.task)
    filters = {"num_shots": args.num_shots, "context_length": args.context_length, "depths": args.depths}
    data = load_data(task, args.dataset, columns=dict(args.columns), split=args.split, **filters)
    print(f"{data.source}: {len(data.samples)} rows, sha256 {data.fingerprint}")
    for note in data.notes:
        print(f"note: {note}")
    tokenizer = None
    if args.tokenizer:
        from infini_eval.data.tokenizer import open_tokenizer

        tokenizer = open_tokenizer(args.tokenizer)
    counts = {sample.key: tokenizer.count(sample.prompt) for sample in data.samples} if tokenizer else {}
    print("\n".join(table(data.samples, counts, args.segment_length)))
    found = task.validate(data.samples)
    wrong = lengths(data.samples, counts)
    made_for = {sample.columns.get("tokenizer_hash") for sample in data.samples}
    if tokenizer and made_for == {tokenizer.fingerprint}:
        found = [*found, *wrong]
    elif wrong:
        print("note: the lengths that the data say were counted with another tokenizer; for this one they are as above")
    from infini_eval.data.passkey import off_labels

    for warning in off_labels(data.samples):
        print(f"warning: {warning}")
    return report(found)


def lengths(samples: Sequence[Sample], counts: Mapping[str, int]) -> list[DataFinding]:
    """The samples that do not have the tokens that their own column says."""
    from infini_eval.data.passkey import findings

    said = [(s.id, s.columns.get("token_count", s.columns.get("num_tokens")), counts.get(s.key)) for s in samples]
    return findings(
        {"wrong_length": [name for name, label, real in said if None not in (label, real) and label != real]}
    )


def report(findings: Sequence[DataFinding]) -> int:
    """Print the defects; the exit status says whether there are any."""
    if not findings:
        print("no defects found")
        return EXIT_OK
    for finding in findings:
        print(f"DEFECT {finding}")
    return EXIT_CHECK_FAILED


def table(samples: Sequence[Sample], counts: Mapping[str, int], segment_length: int | None) -> list[str]:
    """One line for each length and depth: rows, shots, digits, real tokens by sample key, and phases of the question."""
    cells: dict[tuple[int | None, float], list[Sample]] = defaultdict(list)
    for sample in samples:
        cells[sample.context_length, sample.depth_percent].append(sample)
    lines = [f"{'length':>9} {'depth':>6} {'rows':>6} {'shots':>6} {'digits':>6}  tokens"]
    for (length, depth), members in sorted(cells.items(), key=lambda cell: (cell[0][0] or 0, cell[0][1]))[:CELLS_SHOWN]:
        shots, digits = _span(s.num_shots for s in members), _span(len(s.answer) for s in members)
        lines.append(
            f"{length or '-':>9} {depth:>5g}% {len(members):>6} {shots:>6} {digits:>6}  "
            + _tokens(members, counts, segment_length)
        )
    if len(cells) > CELLS_SHOWN:
        lines.append(f"… {len(cells)} cells in all")
    return lines


def _span(values: Iterable[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    if not known:
        return "-"
    return str(known[0]) if len(known) == 1 else f"{known[0]}-{known[-1]}"


def _tokens(members: Sequence[Sample], all_counts: Mapping[str, int], segment_length: int | None) -> str:
    if not all_counts:
        labels = [s.columns.get("token_count", s.columns.get("num_tokens")) for s in members]
        return f"{_span(labels)} (as the data say)" if any(labels) else "not counted (no --tokenizer)"
    counts = [all_counts[sample.key] for sample in members]
    text = _span(counts)
    if segment_length:
        phases = Counter((n - 1) % segment_length for n in counts)
        border = phases[segment_length - 1]
        text += f"; question in segment {_span((n - 1) // segment_length for n in counts)}, phase {_span(phases)}"
        text += f", {border} on a border" if border else ""
    return text
