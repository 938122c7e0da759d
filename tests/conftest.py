"""Shared settings of all tests: one thread, no hub, and fresh tensors full of NaN so that nothing uninitialised passes."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
