"""How large the package is: files, lines, the median file, and the share of lines that are imports. One table row a state.

  python scripts/house_figures.py               the working tree
  python scripts/house_figures.py b673a7c .     a commit beside it

docs/architecture.md shows these figures.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/infini_eval"


@dataclass(frozen=True)
class Figures:
    """Counts over Python files. A file's lines are all of its lines, blank ones and comments included."""

    files: int
    lines: int
    median: float
    ninetieth: float
    imports: float  # percent

    def row(self, name: str) -> str:
        """As a line of a Markdown table."""
        return f"| {name} | {self.files} | {self.lines:,} | {self.median:.0f} | {self.ninetieth:.0f} | {self.imports:.1f} % |"


def figures(sources: Sequence[str]) -> Figures:
    """Count files given as their texts; ones that are empty do not count."""
    sources = [source for source in sources if source.strip()]
    lengths = sorted(len(source.splitlines()) for source in sources)
    imports = sum(map(import_lines, sources))
    ninetieth = statistics.quantiles(lengths, n=10, method="inclusive")[-1] if len(lengths) > 1 else lengths[0]
    return Figures(len(lengths), sum(lengths), statistics.median(lengths), ninetieth, 100 * imports / sum(lengths))


def import_lines(source: str) -> int:
    """Lines that import statements take, those inside functions included."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in found)


def sources_of(state: str) -> list[str]:
    """The package's files in the working tree (".") or in a commit."""
    if state == ".":
        return [path.read_text() for path in sorted((ROOT / PACKAGE).rglob("*.py"))]
    names = _git("ls-tree", "-r", "--name-only", state, PACKAGE).split("\n")
    return [_git("show", f"{state}:{name}") for name in names if name.endswith(".py")]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "states", nargs="*", default=["."], metavar="COMMIT", help="commits, and . for the working tree"
    )
    print("| state | files | lines | median file | 90th percentile | imports |\n|---|---|---|---|---|---|")
    for state in parser.parse_args().states:
        print(figures(sources_of(state)).row("working tree" if state == "." else f"`{state}`"))


if __name__ == "__main__":
    main()
