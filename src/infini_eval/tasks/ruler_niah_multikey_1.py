"""ruler_niah_multikey_1: RULER's needle in essays among three needles with other keys."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_multikey_1", haystack="english", keys=4)
