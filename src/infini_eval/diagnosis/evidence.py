"""What a verdict is judged by: the controls, the intervals, what mends the wrong tokens, and findings about the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from infini_eval.api.backend import WorkItem
from infini_eval.api.task import Span
from infini_eval.backends.nanotron import prepare_sample
from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.data.passkey import find_passkey, question_start
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.diagnosis.ablation import all_gates_at
from infini_eval.diagnosis.findings import Finding
from infini_eval.diagnosis.sample import Diagnoser, SampleDiagnosis
from infini_eval.diagnosis.verdict import ENOUGH, TELLS, Control, Evidence, Interval, Share
from infini_eval.diagnosis.written import Told
from infini_eval.models import naive
from infini_eval.models.load import gates
from infini_eval.models.naive import Weights

TRIES = 8  # joints may be tokenised otherwise than the parts were
SPARE = 2  # tokens of the segment left free for that, beside the answer's


@dataclass(frozen=True)
class _Parts:
    """A prompt taken apart: its text without the needle and the question, and these two."""

    filler: str
    needle: str
    question: str


def is_control(item: WorkItem) -> bool:
    """Whether needle, question and answer stand in one segment."""
    at = item.position
    return at.compressions == 0 and not at.straddles_border and not at.answer_crosses_border


def control_of(item: WorkItem, tokenizer: Tokenizer, length: int) -> WorkItem | None:
    """The row with its needle moved into the question's segment, answer included; all else is the row's own filler.

    Where the question stands too near a border, filler before the needle is dropped, less than one segment of it. None
    where needle, question and answer do not fit into `length` tokens, or the needle is not found.
    """
    parts = _take_apart(item)
    if parts is None:
        return None
    _, offsets = tokenizer.encode_with_offsets(parts.filler, add_special_tokens=False)
    fixed = sum(tokenizer.count(text, add_special_tokens=False) for text in (parts.needle, parts.question))
    answer = tokenizer.count(item.sample.answer, add_special_tokens=False)
    room = length - fixed - answer - SPARE
    if room < 0 or not len(offsets):
        return None
    starts = [int(start) for start, _ in offsets]
    after = min(room // 2, len(starts) - 1)
    place = len(starts) - after
    highest, lowest = length - 1 - answer - SPARE, fixed + after
    phase = (len(tokenizer.special_prefix) + len(starts) + fixed + len(tokenizer.special_suffix) - 1) % length
    drop = max(0, phase - highest) if phase >= lowest else phase + length - highest
    for extra in range(TRIES):
        first = max(0, place - drop - extra)
        made = _put_together(item, parts, (_at(starts, first), _at(starts, place)), tokenizer, length)
        if is_control(made):
            return made
    return None


def _take_apart(item: WorkItem) -> _Parts | None:
    prompt = item.sample.prompt
    span, question = find_passkey(prompt, item.sample.answer), question_start(prompt)
    if span is None or span[1] > question or question == len(prompt):
        return None
    start, end = span
    return _Parts(prompt[:start] + prompt[end:question].lstrip(), prompt[start:end], prompt[question:])


def _at(starts: Sequence[int], token: int) -> int | None:
    """Where a token starts in the text; None behind the last one, where a slice ends by itself."""
    return starts[token] if token < len(starts) else None


def _put_together(
    item: WorkItem, parts: _Parts, dropped: tuple[int | None, int | None], tokenizer: Tokenizer, length: int
) -> WorkItem:
    """The filler without the dropped characters, the needle where they ended, the question at the end."""
    first, place = dropped
    before = parts.filler[:first].rstrip() + " "
    after = "" if place is None else parts.filler[place:].lstrip()
    prompt = f"{before}{parts.needle} {after}{parts.question}"
    needle: Span = (len(before), len(before) + len(parts.needle))
    sample = replace(item.sample, id=f"{item.sample.id}-control", prompt=prompt)
    return prepare_sample(sample, needle, tokenizer, length)


OPEN = 0.5  # a gate that is opened: memory and local attention alike


@dataclass(frozen=True)
class Change:
    """What is otherwise in the question's segment: where `own_LN` the last position reads with the needle's key, where
    `open_LN` the gate is at least OPEN, `reads` False takes every read away; `point` is which memory is read."""

    own_LN: torch.Tensor | None = None
    open_LN: torch.Tensor | None = None
    reads: bool = True
    point: int = -1


def mended(weights: Weights, checkpoint: Checkpoint, cases: Sequence[tuple[Told, int]], change: Change) -> Share:
    """How many wrong tokens come out right after a change: each with its memory, and the token that would have been right."""
    given = [int(last_logits(weights, checkpoint, told, change).argmax()) for told, _ in cases]
    return Share(sum(each == token for each, (_, token) in zip(given, cases, strict=True)), len(cases))


@torch.inference_mode()
def last_logits(weights: Weights, checkpoint: Checkpoint, told: Told, change: Change) -> torch.Tensor:
    """Logits [V] at the question's position, its segment read again with the memory that the row had."""
    config = checkpoint.config
    embedding = weights["model.token_position_embeddings.pp_block.token_embedding.weight"]
    x_BTD = embedding[torch.from_numpy(told.ids.astype("int64"))][None]
    for index in range(config.num_hidden_layers):
        prefix = f"model.decoder.{index}.pp_block."
        layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        normed = naive.rms_norm(x_BTD, layer["input_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + _attention(normed, layer, checkpoint, told, change, index)
        normed = naive.rms_norm(x_BTD, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
        x_BTD = x_BTD + naive.mlp(normed, layer)
    last_D = naive.rms_norm(x_BTD[0, -1], weights["model.final_layer_norm.pp_block.weight"], config.rms_norm_eps)
    return last_D @ weights.get("model.lm_head.pp_block.weight", embedding).T


def _attention(
    x_BTD: torch.Tensor, layer: Weights, checkpoint: Checkpoint, told: Told, change: Change, index: int
) -> torch.Tensor:
    config = checkpoint.config
    q, k, v = naive.project(x_BTD, layer, config)
    q_rotated, k_rotated = naive.rope(q, config), naive.rope(k, config)
    local_NTH = (naive.causal_softmax(q_rotated, k_rotated, config.softmax_scale) @ v)[0]
    asked_NTH = naive.feature_map(q_rotated if config.memory_query == "rotary" else q)[0]
    if change.own_LN is not None:
        own_N = change.own_LN[index]
        asked_NTH[own_N, -1] = told.own_LNH[index][own_N]
    memory_GHE = told.memory_PLGHE[change.point, index]
    sums = asked_NTH @ memory_GHE.repeat_interleave(len(asked_NTH) // len(memory_GHE), dim=0)
    read_NTH = sums[..., :-1] / sums[..., -1:]
    gate_N = naive.gate(layer["attn.balance_factors"], config.gate_activation)
    if change.open_LN is not None:
        gate_N = torch.where(change.open_LN[index], gate_N.clamp(min=OPEN), gate_N)
    g = gate_N[:, None, None]
    mixed = (g * read_NTH if change.reads else 0) + (1 - g) * local_NTH
    return mixed.transpose(0, 1).flatten(1)[None] @ layer["attn.o_proj.weight"].T


@dataclass(frozen=True)
class Controls:
    """Prompts that need no memory: one made of each row (`made`, by the row's place: right or wrong), and the data's own.

    verdict: what counts for the failures, the wrong rows' own controls and the data's. halved: the same with every gate
    at 0.5, asked only where the control fails.
    """

    made: Mapping[int, bool]
    from_data: Share
    verdict: Control
    halved: Share

    def blames_memory(self, item: SampleDiagnosis) -> bool:
        """Whether this row's own control is right, or there is none."""
        return self.made.get(id(item), True)

    def to_json(self) -> dict[str, Any]:
        right = sum(self.made.values()) + self.from_data.right
        closed = self.verdict.closed
        return {
            "n": len(self.made) + self.from_data.n,
            "right": right,
            "of_the_wrong": {"n": self.verdict.asked.n, "right": self.verdict.asked.right},
            "reads_closed": {"n": closed.n, "right": closed.right},
            "gates_halved": {"n": self.halved.n, "right": self.halved.right},
        }


def ask_controls(diagnoser: Diagnoser, done: Sequence[SampleDiagnosis], own: Sequence[WorkItem]) -> Controls:
    """Ask every row's control and the data's own ones; where they fail, again without reads and with gates halved."""
    length = diagnoser.checkpoint.config.segment_length or 1
    made = {id(item): control_of(item.item, diagnoser.tokenizer, length) for item in done}
    right = {key: diagnoser.is_right(control) for key, control in made.items() if control is not None}
    own_right = [diagnoser.is_right(item) for item in own]
    wrong = [id(item) for item in done if not item.correct and id(item) in right]
    asked = [control for key in wrong if (control := made[key]) is not None] + list(own)
    share = Share(sum(right[key] for key in wrong) + sum(own_right), len(asked))
    closed = halved = Share(0, 0)
    if wrong and not share.most:
        closed = Share(sum(diagnoser.is_right_closed(item) for item in asked), len(asked))
        with all_gates_at(diagnoser.model.llama, OPEN):
            halved = Share(sum(diagnoser.is_right(item) for item in asked), len(asked))
    return Controls(right, Share(sum(own_right), len(own)), Control(share, closed), halved)


def evidence(items: Sequence[SampleDiagnosis]) -> Evidence:
    """The intervals that a verdict is judged by, at each sample's decisive token."""
    probes = [item.probes[item.decisive] for item in items]
    return Evidence(
        written=Interval.of([found.written for found in probes]),
        held=Interval.of([found.held for found in probes]),
        change=Interval.of([found.held - found.written for found in probes]),
        reachable_after_writing=Interval.of([found.reachable[0].item() for found in probes]),
        reachable=Interval.of([found.reachable[-1].item() for found in probes]),
        read=Interval.of([found.read for found in probes]),
        against_given=Interval.of([found.against_given for found in probes if found.against_given is not None]),
        overturns=Interval.of([found.overturns for found in probes if found.overturns is not None]),
        lost_without_memory=Interval.of([item.effects.without_A.sum().item() for item in items]),
        **_rates(items),
    )


def _rates(items: Sequence[SampleDiagnosis]) -> dict[str, Interval]:
    told = [item.told for item in items if item.told is not None]
    if not told:
        return dict.fromkeys(("told_written", "told_held", "told_asked", "told_dead", "told_closed"), Interval.of([]))
    question, own = (
        torch.stack([getattr(each, name) for each in told]) for name in ("question", "own")
    )  # [S, P, L, N]
    any_read = torch.cat([question, own], dim=-1)  # [S, P, L, 2 N]
    open_LN, dead_LN = told[0].open_LN, told[0].dead_LN
    twice = torch.cat([open_LN, open_LN], dim=-1)
    return {
        "told_written": best(any_read[:, 0, twice]),
        "told_held": best(any_read[:, -1, twice]),
        "told_asked": best(question[:, -1, open_LN]),
        "told_dead": best(question[:, -1, open_LN & dead_LN]),
        "told_closed": best(any_read[:, -1, ~twice]),
    }


def best(rates_SX: torch.Tensor) -> Interval:
    """The interval of the column with the highest mean; no upper end where any column is NaN: nothing is ruled out then."""
    usable = rates_SX.isfinite().all(0)  # none of no columns
    if not usable.any():
        return Interval.of([])
    rates = rates_SX[:, usable]
    found = Interval.of(rates[:, rates.mean(0).argmax()].tolist())
    return found if usable.all() else replace(found, high=float("inf"))


def try_changes(diagnoser: Diagnoser, failed: Sequence[SampleDiagnosis]) -> dict[str, Share]:
    """What mends the first wrong tokens: "fresh" memory, gates "opened", the needle's "own keys", reads "closed".

    Gates are opened, and keys used, in the heads whose reads tell the answer apart.
    """
    cases = [(item.told, item.answer[item.decisive]) for item in failed if item.told is not None]
    if not cases:
        return dict.fromkeys(("fresh", "opened", "own keys", "closed"), Share(0, 0))
    question_LN, own_LN = (
        torch.stack([getattr(told, name)[-1] for told, _ in cases]).mean(0) > TELLS for name in ("question", "own")
    )
    changes = {
        "fresh": Change(point=0),
        "opened": Change(open_LN=question_LN),
        "own keys": Change(own_LN=own_LN),
        "closed": Change(reads=False),
    }
    return {name: mended(diagnoser.weights, diagnoser.checkpoint, cases, change) for name, change in changes.items()}


def beside(
    diagnoser: Diagnoser,
    done: Sequence[SampleDiagnosis],
    controls: Controls,
    tried: Mapping[str, Share],
    found: Sequence[Finding],
) -> list[str]:
    """Sentences that stand beside the verdict: what memory costs, what mends, and what `inspect` says of the weights."""
    wrong = [item for item in done if not item.correct]
    lines = []
    if wrong:
        lines.append(f"control, needle in the question's own segment: {controls.verdict.asked} right")
    cost = Interval.of([-item.effects.without_A.sum().item() for item in wrong or done])
    if cost.low > ENOUGH:
        lines.append(
            f"the memory costs the {'wrong' if wrong else 'right'} answers {cost} nats: closing the memory would help"
        )
    broken = sum(not item.effects.log_p_A.isfinite().all() for item in done)
    if broken:
        lines.append(f"{broken} of {len(done)} prompts end in NaN")
    if controls.verdict.closed.n:
        lines.append(f"control with the memory's reads closed: {controls.verdict.closed} right")
    if controls.halved.n:
        gates_LN = gates(diagnoser.checkpoint)
        span = f"the gates span {gates_LN.min():.2f} to {gates_LN.max():.2f}"
        meaning = ": the gates are what is broken" if controls.halved.most else ""
        lines.append(f"control with every gate at {OPEN}: {controls.halved} right{meaning} ({span})")
    lines += [
        f"first wrong tokens that come out right with {MENDS[name]}: {each}" for name, each in tried.items() if each.n
    ]
    return lines + [f"inspect: {finding.text}" for finding in found if finding.level != "ok"]


MENDS = {
    "fresh": "the memory as it was right after the needle",
    "opened": f"gates of at least {OPEN} in the heads whose read tells the answer",
    "own keys": "the needle's own keys as queries in the heads where they tell the answer",
    "closed": "the memory's reads closed",
}


def unloadable(checkpoint: Checkpoint, found: Sequence[Finding]) -> dict[str, Any]:
    """The report on weights that hold NaN or infinity: no prompt can be asked, the control neither."""
    reason = "weights hold NaN or infinity: no answer can be computed, with or without the memory"
    return {
        "schema_version": 3,
        "checkpoint": str(checkpoint.folder),
        "samples": 0,
        "left_out": 0,
        "correct": 0,
        "verdict": {"label": "not_a_memory_failure", "reason": reason, "where": None},
        "control": {"n": 0, "right": 0},
        "evidence": [f"inspect: {finding.text}" for finding in found if finding.level != "ok"],
    }
