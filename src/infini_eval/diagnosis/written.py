"""Does the memory hold the needle? Whether a read of M/z tells the needle's values apart, before any output path.

Four prompts: a row with its own answer and with another one that has the same tokens in another order, and both answers
in another row's haystack. One query reads all four memories; the reads are compared as vectors of values, before gate,
o_proj, final norm and unembedding. What separates the two answers in one haystack must name the answer in the other:
the share of four such identifications that are right is the rate. Where the answers leave less in the memory than the
haystacks differ by, two of them are right and two are wrong: chance is one half.

Legend: P points in time (right after the needle's segment; as the question reads it), L layers, N query heads, G kv heads,
H head width, E = H + 1 (M and z), K tokens of the needle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from infini_eval.api.backend import WorkItem
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.data.passkey import find_passkey, whole_word_starts
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.ablation import memories_at
from infini_eval.diagnosis.findings import CLOSED
from infini_eval.diagnosis.trace import Trace
from infini_eval.engine.native_model import NativeModel

NOTHING = 2.0**-9  # of a read's length, half a step of bfloat16: less is rounding
PARTNERS = 2  # other rows whose haystacks take the answers


@dataclass(frozen=True)
class Told:
    """How well one row's answer can be told from another by reads of its memory.

    question, own: rates [P, L, N] from 0 to 1 (chance 0.5) of the question's own query, and of the needle's own keys: of
    the tokens that hold the answer's token, in each head, the one whose key brings out most. memory_PLGHE: the row's
    memory. own_LNH: the chosen keys' features. open_LN: heads whose gate is not closed; dead_LN: heads whose slice of
    o_proj is nothing beside the others'. ids: what the question's position sees of its own segment.
    """

    question: torch.Tensor
    own: torch.Tensor
    memory_PLGHE: torch.Tensor
    own_LNH: torch.Tensor
    open_LN: torch.Tensor
    dead_LN: torch.Tensor
    ids: np.ndarray


def exchanged_answer(answer: str, place: int, tokenizer: Tokenizer) -> str | None:
    """An answer of as many tokens with another one at `place`: the same tokens in another order where that exists."""
    true = tokenizer.encode(answer, add_special_tokens=False)
    second = None
    for other in _others(answer, place):
        tokens = tokenizer.encode(other, add_special_tokens=False)
        if len(tokens) != len(true) or place >= len(true) or tokens[place] == true[place]:
            continue
        if sorted(tokens) == sorted(true):
            return other
        second = second or other
    return second


def _others(answer: str, place: int) -> list[str]:
    """Two characters exchanged, those from `place` on first; then one digit changed. No new leading zero."""
    pairs = [(i, j) for i in range(len(answer)) for j in range(i + 1, len(answer)) if answer[i] != answer[j]]
    pairs.sort(key=lambda pair: (pair[0] < place, pair))
    others = [answer[:i] + answer[j] + answer[i + 1 : j] + answer[i] + answer[j + 1 :] for i, j in pairs]
    digits = [i for i, letter in enumerate(answer) if letter.isdecimal()]
    others += [answer[:i] + str((int(answer[i]) + 5) % 10) + answer[i + 1 :] for i in digits]
    return [other for other in others if other[0] != "0" or answer[0] == "0"]


def with_answer(item: WorkItem, answer: str, tokenizer: Tokenizer, length: int) -> WorkItem | None:
    """The row with another answer in its needle; None where that would stand in the question's own segment."""
    prompt, last, pieces = item.sample.prompt, 0, []
    for start in whole_word_starts(prompt, item.sample.answer):
        pieces += [prompt[last:start], answer]
        last = start + len(item.sample.answer)
    sample = replace(item.sample, prompt="".join([*pieces, prompt[last:]]), answer=answer)
    made = prepare_sample(sample, find_passkey(sample.prompt, answer), tokenizer, length)
    return made if made.position.compressions else None


def needle_segment_of(item: WorkItem, length: int) -> int:
    """The segment with which the whole needle is written: that of its end, unless the question's own."""
    position = item.position
    assert position.needle_segment is not None and position.token_end is not None
    return max(position.needle_segment, min((position.token_end - 1) // length, (item.tokens - 1) // length - 1))


def told_apart(
    model: NativeModel,
    tokenizer: Tokenizer,
    traced: Trace,
    item: WorkItem,
    given: Sequence[int],
    partners: Sequence[WorkItem],
) -> Told | None:
    """Read the memories of the row and of its partners, each with both answers; None where no such prompts can be made.

    traced: the row's position that reads, behind the answer's tokens `given`; its keys are those of the needle.
    """
    length = model.config.segment_length
    assert length is not None
    other = exchanged_answer(item.sample.answer, len(given), tokenizer)
    twin = None if other is None else with_answer(item, other, tokenizer, length)
    if other is None or twin is None:
        return None
    pairs = [(item, twin)]
    for partner in partners[:PARTNERS]:
        made = [with_answer(partner, answer, tokenizer, length) for answer in (item.sample.answer, other)]
        if made[0] is not None and made[1] is not None:
            pairs.append((made[0], made[1]))
    if len(pairs) == 1:
        return None
    found = [[_Reads.of(model, traced, each, given) for each in pair] for pair in pairs]
    keys = _holding(item, twin, traced, len(given), tokenizer)
    best = _best_key(found[0], keys)
    question = [[reads.question for reads in pair] for pair in found]
    own = [[_chosen(reads.own, best) for reads in pair] for pair in found]
    border = (len(item.ids) + len(given) - 1) // length * length
    keys_LKNH = torch.stack([layer.keys_KNH for layer in traced.layers])
    at_question = best[-1]  # [L, N]
    own_LNH = keys_LKNH.gather(1, at_question[:, None, :, None].expand(-1, 1, -1, keys_LKNH.shape[-1]))[:, 0]
    ids = np.append(item.ids, np.asarray(given, dtype=item.ids.dtype))[border:]
    return Told(_rates(question), _rates(own), found[0][0].memory, own_LNH, *_open_and_dead(traced), ids)


@dataclass(frozen=True)
class _Reads:
    """One prompt: what the traced query gets [P, L, N, H], and each of the needle's keys [P, L, N, K, H]; its memory."""

    question: torch.Tensor
    own: torch.Tensor
    memory: torch.Tensor

    @classmethod
    def of(cls, model: NativeModel, traced: Trace, item: WorkItem, given: Sequence[int]) -> _Reads:
        length = model.config.segment_length
        assert length is not None
        ids = np.append(item.ids, np.asarray(given, dtype=item.ids.dtype))
        borders = [(needle_segment_of(item, length) + 1) * length, (len(ids) - 1) // length * length]
        kept = memories_at(model, ids, borders)
        memory = kept.repeat_interleave(model.llama.heads // kept.shape[2], dim=2)
        asked_LNH = torch.stack([layer.asked_NH for layer in traced.layers])
        keys_LKNH = torch.stack([layer.keys_KNH for layer in traced.layers])
        question = torch.einsum("lnh,plnhe->plne", asked_LNH, memory)
        own = torch.einsum("lknh,plnhe->plnke", keys_LKNH, memory)
        return cls(question[..., :-1] / question[..., -1:], own[..., :-1] / own[..., -1:], kept)


def _open_and_dead(traced: Trace) -> tuple[torch.Tensor, torch.Tensor]:
    """Heads [L, N] whose gate is not closed, and those whose slice of o_proj is nothing."""
    gate_LN = torch.stack([layer.gate_N for layer in traced.layers])
    size_LN = torch.stack([layer.out_weight_DNH.norm(dim=(0, 2)) for layer in traced.layers])
    return gate_LN.abs() >= CLOSED, size_LN <= NOTHING * size_LN.max()


def _holding(item: WorkItem, twin: WorkItem, traced: Trace, place: int, tokenizer: Tokenizer) -> list[int]:
    """Which of the needle's tokens hold the answer's token at `place`; all of them where that cannot be seen."""
    everything = list(range(traced.layers[0].keys_KNH.shape[0]))
    start = item.position.token_start or 0
    if len(item.ids) != len(twin.ids):
        return everything
    token = tokenizer.encode(item.sample.answer, add_special_tokens=False)[place]
    inside = [k for k in everything if item.ids[start + k] != twin.ids[start + k]]
    return [k for k in inside if item.ids[start + k] == token] or inside or everything


def _best_key(pair: Sequence[_Reads], keys: Sequence[int]) -> torch.Tensor:
    """The key, of these, whose reads of the two memories differ most for their length: [P, L, N] indices into all K."""
    true, twin = (reads.own[..., list(keys), :] for reads in pair)
    apart = (true - twin).norm(dim=-1) / true.norm(dim=-1).clamp(min=1e-30)
    return torch.tensor(keys)[apart.nan_to_num().argmax(-1)]


def _chosen(own: torch.Tensor, best_PLN: torch.Tensor) -> torch.Tensor:
    index = best_PLN[..., None, None].expand(*best_PLN.shape, 1, own.shape[-1])
    return own.gather(-2, index).squeeze(-2)


def _rates(pairs: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """The row's pair against each partner's, averaged."""
    first = torch.stack(list(pairs[0]))
    return torch.stack([rate(torch.cat([first, torch.stack(list(pair))])) for pair in pairs[1:]]).mean(0)


def rate(reads: torch.Tensor) -> torch.Tensor:
    """Right identifications of [4, …, H]: the line between the answers in one haystack, asked in the other; […] 0 to 1.

    NaN where a read is not finite.
    """
    first, second = reads[:2].double(), reads[2:].double()
    found = torch.stack([_identified(*pair) for pair in ((first, second), (second, first))]).mean(0)
    apart = torch.stack([(pair[0] - pair[1]).norm(dim=-1) for pair in (first, second)])
    size = torch.stack([pair.norm(dim=-1).amax(0) for pair in (first, second)])
    rates = found.masked_fill((apart <= NOTHING * size).any(0), 0.5)
    return rates.masked_fill(~reads.isfinite().all(-1).all(0), float("nan")).float()


def _identified(learned: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Of the two `asked` [2, …, H] the share that lies on its own side of the middle of the two `learned`."""
    line, middle = learned[0] - learned[1], learned.mean(0)
    side = ((asked - middle) * line).sum(-1)
    return ((side[0] > 0).double() + (side[1] < 0).double()) / 2
