"""Time limits of tests. They end what hangs, and nothing else: far above what the busiest machine needs.

pytest's own limit (`timeout` in pyproject.toml) lies above PROCESS_S, so that a hung process is shown by its test.
"""

from __future__ import annotations

from infini_eval.testing.distributed import PROCESS_S

__all__ = ["PROCESS_S"]
