"""Time limits of tests. They end what hangs, and nothing else: far above what the busiest machine needs.

pytest's own limit (`timeout` in pyproject.toml) lies above PROCESS_S, so that a hung process is shown by its test.
"""

from __future__ import annotations

PROCESS_S = 600.0  # for processes that a test starts, and for what it polls for
