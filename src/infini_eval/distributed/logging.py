"""Log lines that say which rank they come from: `08/12/2025 18:41:23 [INFO|DP=0|PP=0|TP=0]: message`."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

CLEAR_LINE = "\r\x1b[2K"
PACKAGE = "infini_eval"
DATE = "%m/%d/%Y %H:%M:%S"


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever sys.stderr is at the moment, so that a progress bar can keep below the lines."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; rank 0's bar, which another rank's line would follow, is cleared first and drawn anew below."""
        if os.environ.get("RANK", "0") != "0" and sys.stderr.isatty():
            sys.stderr.write(CLEAR_LINE)
        super().emit(record)

    @property
    def stream(self) -> TextIO:
        """What sys.stderr is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream is always sys.stderr")


def setup_logging(tag: str = "DP=0|PP=0|TP=0", *, speaks: bool = True, level: int = logging.INFO) -> logging.Logger:
    """Send this package's log lines to stderr, tagged with `Mesh.tag`; may be called again with another tag.

    `speaks` is false for tp and pp peers of a replica's leader: they would repeat its lines, so only warnings appear.
    """
    logger = logging.getLogger(PACKAGE)
    handler = StderrHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s [%(levelname)s|{tag}]: %(message)s", DATE))
    logger.handlers = [handler]
    logger.setLevel(level if speaks else max(level, logging.WARNING))
    logger.propagate = False
    return logger
