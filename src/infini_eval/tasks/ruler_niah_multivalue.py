"""ruler_niah_multivalue: RULER's key with four values in essays, all asked for."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_multivalue", haystack="english", values=4)
