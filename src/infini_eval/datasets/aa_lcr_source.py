"""Where AA-LCR lies: a folder or its CSV, a local folder of the hub id's name, or the hub's snapshot (also offline)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from infini_eval.datasets.judge_protocols import PROTOCOLS
from infini_eval.errors import DataError

VALID = "a folder with AA-LCR_Dataset.csv and extracted_text/, that CSV, or the hub id ArtificialAnalysis/AA-LCR"
PATTERNS = ["*.csv", "extracted_text/*"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """Folder or CSV, its name for people, and the hub's commit where the folder is a snapshot."""

    path: Path
    name: str
    commit: str | None
    notes: tuple[str, ...] = ()


def find_source(path_or_hub_id: str, revision: str = "any") -> Source:
    """The data; `revision` "v1.0", "v1.1" or a commit pins the hub's, "any" takes what is cached or newest."""
    name = path_or_hub_id
    path = Path(name).expanduser()
    if path.exists():
        return Source(path, str(path), _commit_of(path))
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        raise DataError(f"no data set at {name}", valid=VALID)
    local = Path(path.name)
    if local.is_dir():
        note = f"using the local folder ./{local} instead of the hub's {name}"
        return Source(local, str(local), _commit_of(local), (note,))
    folder = _snapshot(name, revision)
    return Source(folder, f"hub:{name}", _commit_of(folder))


def _commit_of(path: Path) -> str | None:
    """The commit in a path of the hub's cache, .../snapshots/<commit>."""
    parts = path.resolve().parts
    if "snapshots" in parts[:-1]:
        after = parts[parts.index("snapshots") + 1]
        return after if _COMMIT.fullmatch(after) else None
    return None


def _snapshot(name: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    wanted = PROTOCOLS[revision].revision if revision in PROTOCOLS else None if revision == "any" else revision
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=wanted, allow_patterns=PATTERNS))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the hub data set {name} cannot be had: {reason}",
            valid=VALID,
            next_step=f"huggingface-cli download --repo-type dataset {name}, or put its files into ./{Path(name).name}/",
        ) from error
