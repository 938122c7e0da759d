"""ruler_niah_single_3: RULER's needle in essays: one key, one uuid."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_single_3", haystack="english", value_kind="uuids")
