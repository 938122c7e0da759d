"""One batch on its way through a stage: the prefill steps, then one token at a time, as units the pipeline can interleave.

Legend: B batch, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from infini_eval.engine.batching import PrefillStep, plan_prefill
from infini_eval.engine.drawn import ON_DEVICES, DrawnTokens
from infini_eval.engine.fixed_decode import FixedDecode, FixedDecoders
from infini_eval.engine.links import BAD_LOGITS, Links
from infini_eval.engine.sampling import Sampler
from infini_eval.engine.shared_prefill import Prefixes, SharedPrefill, reused_tokens
from infini_eval.models.llama import Llama
from infini_eval.models.state import Step


@dataclass(frozen=True)
class Limits:
    """When an answer ends: at one of the `stop_ids`, or after `max_new_tokens`."""

    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()


Finish = Literal["stop", "length", "settled", "bad_logits"]
Settled = Callable[[int, Sequence[int]], bool]  # row of the batch, its new tokens: whether the answer may end here


@dataclass
class Completion:
    """The new tokens of one row (a stop token is not among them), and why they ended: stop, length, settled or bad_logits.

    reused_tokens: those of its prompt that were computed for another row.
    """

    token_ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    reused_tokens: int = 0


class Generation:
    """A batch of prompts at one stage. `run_unit` does the next unit of work; `absorb` takes the tokens it led to.

    All stages make the same units in the same order, since they know the same lengths and the same tokens; so `settled`
    must depend on nothing else.
    """

    def __init__(
        self,
        llama: Llama,
        links: Links,
        sampler: Sampler,
        prompts: Sequence[np.ndarray],
        limits: Limits,
        chunk_tokens: int | Callable[[int], int],
        prefixes: Prefixes | None = None,
        settled: Settled | None = None,
        decoders: FixedDecoders | None = None,
    ) -> None:
        """decoders: steps of fixed shapes to decode with, which one generation at a time may use."""
        self._llama, self._links, self._sampler, self._limits = llama, links, sampler, limits
        self._settled = settled
        self._decoders = decoders
        self._fixed: FixedDecode | None = None
        self._prompts = prompts
        lengths = [len(prompt) for prompt in prompts]
        length = llama.settings.segment_length
        self._shared = SharedPrefill(prefixes, lengths, length) if prefixes is not None and length else None
        shared = None if self._shared is None else self._shared.stretches
        self._steps = plan_prefill(lengths, length, chunk_tokens, shared)
        self._next_step = 0
        self._state = llama.new_state(len(self._steps[0].rows), max(lengths) + limits.max_new_tokens)
        self._last_BD: torch.Tensor | None = None  # hidden state of each row's last prompt token (last stage)
        self._own_tokens: torch.Tensor | None = None  # drawn here (last stage), not yet absorbed
        # other stages wait for the host to send them the tokens, so that it cannot be late there
        self._drawn = DrawnTokens(ON_DEVICES if llama.device.type == "cuda" and links.stages == 1 else 0)
        self._steps_drawn = 0
        self.completions = [Completion(reused_tokens=reused) for reused in reused_tokens(self._steps, lengths)]
        self.awaits_tokens = False
        self._current_B: torch.Tensor | None = None

    @property
    def finished(self) -> bool:
        return all(completion.finish for completion in self.completions)

    def run_unit(self) -> int:
        """Compute the next prefill step or decode step at this stage; returns its number of tokens (all rows)."""
        if self._next_step < len(self._steps):
            return self._prefill(self._steps[self._next_step])
        return self._decode_one_token()

    def absorb(self) -> None:
        """Take the tokens that the last unit led to: from this stage if it is the last, else from there."""
        if self._own_tokens is not None:
            tokens_B, self._own_tokens = self._own_tokens, None
        else:
            tokens_B = self._links.receive_tokens(len(self._prompts))
        self.awaits_tokens = False
        self._current_B = tokens_B
        self._steps_drawn += 1
        self._drawn.put(tokens_B)
        for tokens in self._drawn.read(everything=self._steps_drawn == self._limits.max_new_tokens):
            for row, token in enumerate(tokens):
                self._append(row, token)

    def _append(self, row: int, token: int) -> None:
        completion = self.completions[row]
        if completion.finish is not None:
            return
        if token == BAD_LOGITS:
            completion.finish = "bad_logits"
        elif token in self._limits.stop_ids:
            completion.finish = "stop"
        else:
            completion.token_ids.append(token)
            if len(completion.token_ids) == self._limits.max_new_tokens:
                completion.finish = "length"
            elif self._settled is not None and self._settled(row, completion.token_ids):
                completion.finish = "settled"

    def _prefill(self, plan: PrefillStep) -> int:
        if self._shared is not None:
            self._shared.before(plan, self._state)
        cursor = self._state.cursor
        step = cursor.take_segments(plan.segments) if plan.segments else cursor.take_open(plan.tokens, plan.counts)
        x_BTD = self._through_layers(lambda: self._prompt_tokens(plan), plan.tokens, step)
        self._next_step += 1
        if self._links.last:
            self._keep_last(x_BTD, plan)
        if self._shared is not None:
            self._shared.after(plan, self._state)
        if self._next_step == len(self._steps):
            self._end_prefill()
        return sum(plan.counts)

    def _end_prefill(self) -> None:
        if self._shared is not None:
            self._shared.part(self._state)
        self._draw(self._last_BD)
        if self._decoders is not None:
            longest = max(map(len, self._prompts)) + self._limits.max_new_tokens
            self._fixed = self._decoders.take_over(self._state, longest)

    def _decode_one_token(self) -> int:
        assert self._current_B is not None
        tokens_B = self._current_B.clamp(min=0)
        if self._fixed is not None:
            self.awaits_tokens = True
            self._draw_from(self._fixed.next_logits(tokens_B))
        else:
            x_B1D = self._through_layers(lambda: tokens_B[:, None], 1, self._state.cursor.take_open(1))
            self._draw(x_B1D[:, -1])
        return len(self._prompts)

    def _through_layers(self, token_ids: Callable[[], torch.Tensor], tokens: int, step: Step) -> torch.Tensor:
        llama, links = self._llama, self._links
        if links.first:
            x_BTD = llama.embed(token_ids().to(llama.device))
        else:
            shape = (self._state.cursor.batch, tokens, llama.config.hidden_size)
            x_BTD = links.receive_activation(shape, llama.dtype, llama.device)
        x_BTD = llama.run_layers(x_BTD, self._state, step)
        if not links.last:
            links.send_activation(x_BTD)
        return x_BTD

    def _prompt_tokens(self, plan: PrefillStep) -> torch.Tensor:
        """The step's tokens of every row [B, T] int64, zeros on the right where a prompt has ended."""
        ids = np.zeros((len(plan.rows), plan.tokens), dtype=np.int64)
        for row, (prompt, count) in enumerate(zip(plan.rows, plan.counts, strict=True)):
            ids[row, :count] = self._prompts[prompt][plan.start : plan.start + count]
        return torch.from_numpy(ids)

    def _keep_last(self, x_BTD: torch.Tensor, plan: PrefillStep) -> None:
        if self._last_BD is None:
            self._last_BD = x_BTD.new_zeros(len(self._prompts), x_BTD.shape[2])
        for prompt in plan.ending:
            row = plan.places[prompt]
            assert row is not None
            self._last_BD[prompt] = x_BTD[row, plan.counts[row] - 1]

    def _draw(self, hidden_BD: torch.Tensor | None) -> None:
        """Last stage: draw the next tokens and give them to the other stages; the others will wait for them."""
        self.awaits_tokens = True
        if self._links.last:
            assert hidden_BD is not None
            self._draw_from(self._llama.logits(hidden_BD))

    def _draw_from(self, logits_BV: torch.Tensor) -> None:
        tokens_B = self._sampler.next_tokens(logits_BV)
        bad_B = self._llama.tp.any(~torch.isfinite(logits_BV).all(dim=-1))
        self._own_tokens = torch.where(bad_B, BAD_LOGITS, tokens_B)
        if self._links.stages > 1:
            self._own_tokens = self._own_tokens.cpu()
            self._links.share_tokens(self._own_tokens)
