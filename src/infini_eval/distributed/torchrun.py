"""torchrun's launcher, with an end that a user can read: the message last, and nothing after Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infini_eval.distributed.shutdown import EXIT_FAILED, LAUNCHED, print_message
from infini_eval.distributed.store import host_store
from infini_eval.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, first_line

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

LOOPBACK = "127.0.0.1"
STORE_TIMEOUT_S = 300.0


def run_torchrun(argv: Sequence[str]) -> int:
    """Start processes as `torchrun ARGV` does, in this process, and wait for them.

    With --standalone their store listens on the loopback interface alone; torchrun's own would listen on every one.

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
        store, words = _on_loopback(argv) if "--standalone" in argv else (None, list(argv))
        torchrun.run(torchrun.parse_args(words))
        del store  # it has to live as long as the processes
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


def _on_loopback(argv: Sequence[str]) -> tuple[TCPStore, list[str]]:
    """A store of this process, and the flags with which torchrun takes it for its own instead of making one.

    torchrun's static rendezvous opens a store at the given port, and one process has one store at a port.
    """
    store = host_store(LOOPBACK, 0, STORE_TIMEOUT_S)
    flags = [
        "--rdzv_backend=static",
        f"--rdzv_id={uuid.uuid4()}",
        f"--master_addr={LOOPBACK}",
        f"--master_port={store.port}",
        f"--local_addr={LOOPBACK}",
    ]
    place = list(argv).index("--standalone")
    return store, [*argv[:place], *flags, *argv[place + 1 :]]


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
