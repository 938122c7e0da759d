"""ruler_niah_multiquery: RULER's four keys in essays, all asked for."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_multiquery", haystack="english", keys=4, queries=4)
