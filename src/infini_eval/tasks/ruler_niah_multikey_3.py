"""ruler_niah_multikey_3: RULER's needle in a haystack of needles, keys and values uuids."""

from __future__ import annotations

from infini_eval.tasks._ruler import niah_task

TASK = niah_task("ruler_niah_multikey_3", haystack="uuid-needles", key_kind="uuids", value_kind="uuids")
