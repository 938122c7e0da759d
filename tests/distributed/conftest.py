"""What the tests of this folder leave as they found it."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _package_logger_as_it_was():
    logger = logging.getLogger("infini_eval")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
