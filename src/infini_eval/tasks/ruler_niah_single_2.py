"""ruler_niah_single_2: RULER's needle in essays: one key, one number."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_single_2", haystack="english")
