"""The browser of this machine for tests: Debian's chromium, or the one that INFINI_EVAL_CHROMIUM names."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("INFINI_EVAL_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
WHY_NOT = "no chromium on this machine: apt-get install chromium, or INFINI_EVAL_CHROMIUM=/path/to/chromium"
