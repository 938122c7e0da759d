"""ruler_niah_multikey_2: RULER's needle in a haystack of needles: every sentence is one."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_multikey_2", haystack="needles")
