"""Bytes of the tensors that are alive, counted instead of measured: the same in every run on every machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any


def peak_of_tensors(work: Callable[[], Any]) -> int:
    """The most bytes that torch's allocator for the CPU holds at once while `work` runs, beyond what it held before.

    Counted from the sizes that torch asks for, what an operation needs for itself included: neither malloc's holes and
    rounding nor pages and libraries show. torch's profiler tells them in its trace, in order of time.
    """
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    changes.sort(key=lambda event: event["ts"])
    return int(max(accumulate((event["args"]["Bytes"] for event in changes), initial=0)))
