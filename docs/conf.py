"""How the documentation site is built: `scripts/docs.sh`, without network, warnings as errors."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

project = "infini_eval"
copyright = "the infini_eval authors, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cli_reference"]
nb_execution_mode = "off"  # notebooks are run by the tests and shown as they were saved
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext"]
smartquotes_action = "qe"  # quotes and ellipses; "--flag" keeps its dashes
html_theme = "furo"
html_title = "infini_eval"
html_static_path = ["images"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes are rows of their class, not objects beside it
# Signatures name types of other packages, which have no inventory here without network.
nitpicky = False


def outside_links(app: object, name: str, text: list[str]) -> None:
    """Links to files outside docs/ work on a forge and lead nowhere on the site: show them as file names there."""
    text[0] = re.sub(r"\[([^\]]+)\]\(((?:\.\./)+(?!docs/)[\w./-]+)\)", _as_file, text[0])


def _as_file(match: re.Match[str]) -> str:
    label, target = match[1], match[2].lstrip("./")
    if target.endswith(".ipynb"):  # docs/notebooks links to those of examples/notebooks
        return f"{{doc}}`{label} </notebooks/{Path(target).stem}>`"
    if (ROOT / "docs" / target).exists():
        return match[0]
    return f"`{target}`" if target.endswith(label.strip("`")) else f"{label} (`{target}`)"


def setup(app: object) -> None:
    app.connect("source-read", outside_links)  # type: ignore[attr-defined]
