"""A native model that answers in a thread of its own: calls come one by one and at once, the server's scheduler batches them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from infini_eval.config import Sampling
from infini_eval.data.columns import Chat, transcript
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.distributed.announce import TellsItself
from infini_eval.engine.text import end_ids
from infini_eval.errors import BackendError, ConfigError, in_one_line
from infini_eval.foreign import read_text
from infini_eval.harnesses.opened import open_model
from infini_eval.options import MOST_COUNTED
from infini_eval.serve.replica import Replica
from infini_eval.serve.scheduler import Answer, Closed, Failure, Job, Part, Report, Scheduler
from infini_eval.serve.text import token_texts

logger = logging.getLogger(__name__)


class BatchedModel:
    """A checkpoint, loaded in this process, whose answers to prompts that wait at the same time are computed together.

    Args:
        checkpoint: a step folder, or its parent with latest.txt.
        batch_size: prompts computed together at most.
        chat_template: a file with a Jinja template, or "off"; None: the tokenizer's own.
        arguments: device and the settings ModelSettings by name, as a harness passes them.

    Raises:
        InfiniEvalError: the checkpoint cannot be read, or an argument is not what it must be.
    """

    def __init__(
        self,
        checkpoint: str,
        *,
        tokenizer: str | None = None,
        batch_size: int,
        chat_template: str | None = None,
        arguments: Mapping[str, Any],
    ) -> None:
        _check_one_process(arguments)
        given = dict(arguments)
        opened = open_model(checkpoint, tokenizer, given.pop("device", None), given)
        if opened.world is not None:
            raise ConfigError("torchrun started several processes, but a harness asks from one", next_step=_SERVE)
        self.model = opened.model
        self.tokenizer: Tokenizer = self.model.tokenizer
        if chat_template is not None:
            self.tokenizer.settings["chat_template"] = (
                None if chat_template == "off" else read_text(Path(chat_template), ConfigError)
            )
        replica = Replica(
            self.model, TellsItself(), end_ids(self.tokenizer, self.model.config), self.tokenizer.vocab_size
        )
        self._scheduler = Scheduler(replica, self.tokenizer, max_batch=batch_size, max_queue=MOST_COUNTED)
        self.token_text = token_texts(self.tokenizer)
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="infini_eval", daemon=True)
        self._thread.start()

    def prompt(self, chat: Chat) -> np.ndarray:
        """The token ids [T] of a chat up to its answer: by the chat template, else its transcript."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(transcript(chat))
        open_end = chat[-1][0] == "assistant"  # the answer goes on where it stands
        text = self.tokenizer.render_chat(
            [{"role": role, "content": content} for role, content in chat],
            add_generation_prompt=not open_end,
            continue_final_message=open_end,
        )
        return self.tokenizer.encode(text, add_special_tokens=False)

    def submit(
        self,
        ids: np.ndarray,
        max_new_tokens: int,
        *,
        sampling: Sampling,
        stop: Sequence[str] = (),
        top: int | None = None,
        done: Callable[[Answer | BackendError], None],
    ) -> Callable[[], None]:
        """Queue a prompt; from any thread.

        An answer depends on the prompt, the sampling and how often this prompt was asked before, not on its companions.

        Args:
            top: log-probabilities of the new tokens are wanted, with so many of the likeliest ones; None: they are not.
            done: called from the engine's thread with the answer, or with why there is none.

        Returns:
            What says that nobody waits for it any more.
        """
        sampling = Sampling() if sampling.temperature == 0 else sampling

        def report(_: Job, found: Report) -> None:
            if not isinstance(found, Part):
                done(BackendError(found.message) if isinstance(found, Failure) else found)

        job = Job(ids, self._name(ids, sampling), sampling, max_new_tokens, tuple(stop), report, top)
        try:
            self._scheduler.submit([job])
        except Closed:
            raise BackendError("the engine has ended", next_step="see the message before, and start again") from None
        return lambda: setattr(job, "cancelled", True)

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        self._scheduler.close()
        self._thread.join()

    def _name(self, ids: np.ndarray, sampling: Sampling) -> str:
        """What tells the draws of this call from those of others with the same seed."""
        prompt = blake2b(np.ascontiguousarray(ids).tobytes(), digest_size=8).hexdigest()
        with self._lock:
            self._asked[f"{prompt}/{sampling}"] += 1
            return f"{prompt}/{self._asked[f'{prompt}/{sampling}']}"

    def _work(self) -> None:
        try:
            self._scheduler.work()
        except Exception as error:  # nobody else would tell those who wait
            logger.exception("the engine ended")
            self._scheduler.fail_all(f"the engine ended: {type(error).__name__}: {in_one_line(error)}")


_SERVE = "serve it, and ask the server: infini-eval launch -n 2 serve CHECKPOINT --tp 2 (docs/with-your-tools.md)"


def _check_one_process(arguments: Mapping[str, Any]) -> None:
    for axis in ("dp", "tp", "pp"):
        if str(arguments.get(axis) or 1) != "1":
            raise ConfigError(
                f"{axis}={arguments[axis]}: a harness that asks from one process has the model in that process",
                next_step=_SERVE,
            )
