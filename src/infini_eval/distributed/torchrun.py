"""torchrun's launcher, with an end that a user can read: the message last, and nothing after Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infini_eval.distributed.shutdown import EXIT_FAILED, LAUNCHED, print_message
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, first_line

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def run_torchrun(argv: Sequence[str]) -> int:
    """Start processes as `torchrun ARGV` does, in this process, and wait for them.

    Returns:
        The exit status of the process that failed first; EXIT_INTERRUPTED after a signal.

    Raises:
        ConfigError: the processes could not be joined.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # its notes on signals and failures, which the message below says in a line
    os.environ[LAUNCHED] = "1"
    try:
        torchrun.run(torchrun.parse_args(list(argv)))
        return EXIT_OK
    except ChildFailedError as error:
        return _tell(error)
    except (SignalException, KeyboardInterrupt):  # the processes have been told, have said so, and have ended
        return EXIT_INTERRUPTED
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"the processes could not be started: {first_line(error)}", next_step="see infini-eval launch --help"
        ) from error
    finally:
        os.environ.pop(LAUNCHED, None)
        logging.disable(before)


def _tell(error: ChildFailedError) -> int:
    """Print why the first process failed, unless that has been said; its exit status."""
    failures: dict[int, Any] = dict(error.failures)
    explained = {rank: one for rank, one in failures.items() if isinstance(one.message, dict)}
    if explained:  # every rank that ends tells the run's first error; the first of them names the rank that had it
        rank = min(explained)
    else:
        rank = min(failures, key=lambda one: failures[one].timestamp)
    failure = failures[rank]
    if failure.exitcode == EXIT_INTERRUPTED:
        return EXIT_INTERRUPTED
    if explained:
        print_message(failure.message["message"])
    elif failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = ": often the host's memory ran out (dmesg says so)" if name == "SIGKILL" else ""
        print_message(
            f"error: the process of rank {rank} was ended by {name}{hint}\n  next:  the same command continues"
        )
    else:
        print_message(
            f"error: the process of rank {rank} ended with status {failure.exitcode}; see what it wrote above"
        )
    return int(failure.exitcode) if failure.exitcode > 0 else EXIT_FAILED
