"""ruler_niah_single_1: RULER's needle in repeated noise: one key, one number."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_single_1", haystack="noise")
