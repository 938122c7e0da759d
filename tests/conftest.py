"""Shared settings of all tests: one thread, no hub, made-up examples that are the same in every run, and their order."""

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _log_lines_reach_pytest() -> Iterator[None]:
    """A run in this process sends the package's lines to stderr alone, and another tag; no later test sees that."""
    yield
    logger = logging.getLogger("infini_eval")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shuffle", type=int, metavar="SEED", help="files, and tests in a file, in an order drawn by SEED"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files stay together: what their tests share is made once."""
    seed = config.getoption("--shuffle")
    if seed is None:
        return
    draw = random.Random(seed)
    places = {path: draw.random() for path in sorted({str(item.path) for item in items})}
    numbers = {item.nodeid: draw.random() for item in sorted(items, key=lambda item: item.nodeid)}
    items.sort(key=lambda item: (places[str(item.path)], numbers[item.nodeid]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the folder of screenshots where the browser tests have left some."""
    folder = Path(__file__).parent / "browser" / "pictures"
    if ran := sum("tests/browser/" in report.nodeid for report in terminalreporter.stats.get("passed", [])):
        terminalreporter.write_line(f"{ran} browser tests; their screenshots: {folder}")
