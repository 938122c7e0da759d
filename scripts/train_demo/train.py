"""The training loop: stages with their data and learning rates, the optimizer, the log lines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scripts.train_demo.data import Batch, Mix, Source
from scripts.train_demo.saves import Progress, Trainable, cpu_copy, resume, save
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

SAVE_SECONDS = 120
LOG_STEPS = 100
COPY_WEIGHT = 0.2  # of the loss on the needle's second copy of the key
GATE_RATE = 7.5  # learning rate of the balance factors, times the others'
FLOOR_WEIGHT = 10.0  # of the nats by which denominators lie under their floor
HELD_OUT_STEP = 1_000_000_000  # batches from here on are for evaluation


@dataclass(frozen=True)
class Stage:
    """A data mix, a budget of tokens, and the learning rate at its start and end (linear between)."""

    mix: Mix
    tokens: int
    rate: float
    last_rate: float


# The shipped weights (seed 1, 58 M tokens) had keys of 1 to 7 digits, a border right before half of the keys that it cuts,
# and in the last stage of 36 M tokens two to eight segments repeated up to 512 times: a new run gives others.
STAGES = (
    Stage(Mix(64, (2,), intro=0.1), 15_000_000, 2e-3, 2e-3),
    Stage(Mix(64, (2, 3, 4), straddle=0.1, factor_max=16), 4_000_000, 2e-3, 1.6e-3),
    Stage(Mix(128, (2, 3, 4), straddle=0.15, shots=0.05, factor_max=64), 3_000_000, 1.6e-3, 1.2e-3),
    Stage(Mix(128, (2, 3, 4, 8), straddle=0.5, shots=0.08, factor_max=4096), 24_000_000, 1.2e-3, 1e-3),
    # Two segments are mostly introduction, needle and question: only longer sequences have haystack to repeat.
    Stage(Mix(128, (4, 6, 8), straddle=0.6, shots=0.08, factor_max=131_072), 16_000_000, 1e-3, 5e-4),
    # Factors repeat single segments; what millions of tokens leave is an average, and it also stands before the needle.
    Stage(Mix(128, (4, 6, 8), straddle=0.6, shots=0.08, factor_max=1024, past=0.7), 12_000_000, 5e-4, 0.0),
)


class Model(Trainable, Protocol):
    """A model that the loop can train: nn.Module with these."""

    def to(self, device: str) -> nn.Module: ...

    def logits(self, batch: Batch, ablate: bool = False) -> Tensor:
        """[B, K, vocab] at the batch's loss positions; `ablate` takes the memory away, where there is one."""

    def training_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`logits`, and how far the denominators of memory reads lie under their floor; 0 where there are none."""

    def before_step(self, source: Source, mix: Mix, step: int) -> None:
        """Runs before each step, with what the stage's data are."""

    def after_step(self) -> None:
        """Runs after each step of the optimizer."""

    def note(self) -> str:
        """What a log line adds about the model; empty, or from a space on."""


@dataclass
class Window:
    """Loss and speed since the last log line."""

    loss: float = 0.0
    steps: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, loss: float, tokens: int) -> None:
        self.loss, self.steps, self.tokens = self.loss + loss, self.steps + 1, self.tokens + tokens

    def __str__(self) -> str:
        speed = self.tokens / (time.monotonic() - self.started)
        return f"loss {self.loss / self.steps:.4f} {speed / 1e3:.1f}K tokens/s"


class Run:
    """One training run of a model in a working folder."""

    def __init__(self, model: Model, stages: tuple[Stage, ...], tokenizer: PreTrainedTokenizerFast, work_dir: Path,
                 seed: int, device: str, batch_tokens: int, scale: float, first_stage: int = 1) -> None:  # fmt: skip
        """first_stage: where a new run starts, for a model that has learnt what the stages before it teach."""
        self.work_dir, self.device, self.batch_tokens = work_dir, device, batch_tokens
        self.stages = [replace(stage, tokens=int(stage.tokens * scale)) for stage in stages]
        self.model = model
        model.to(device)
        self.optimizer = make_optimizer(self.model)
        work_dir.mkdir(parents=True, exist_ok=True)
        self.progress = resume(work_dir, self.model, self.optimizer) or Progress(seed, first_stage - 1)
        self.log(f"starting at stage {self.progress.stage + 1} step {self.progress.step} seed {self.progress.seed}")
        size = 1_000_000 if scale >= 0.1 else 50_000
        self.source = Source(tokenizer, self.progress.seed, size=size)
        self.held_out = Source(tokenizer, self.progress.seed, held_out=True, size=size // 10)

    def train(self, stop_below: float) -> Path:
        """All stages that are left, then the path of the last one's weights.

        Seeds differ: a run whose first stage ends with an accuracy under `stop_below` is not worth going on with.
        """
        while self.progress.stage < len(self.stages):
            mix = self.stages[self.progress.stage].mix
            self._train_stage(self.stages[self.progress.stage])
            self.progress.stage, self.progress.stage_tokens = self.progress.stage + 1, 0
            accuracy = self.accuracy(mix, 512)
            self.log(f"stage {self.progress.stage} done: held-out exact match {accuracy:.1%} (n=512)")
            if self.progress.stage == 1 and accuracy < stop_below:
                raise SystemExit(f"first stage below {stop_below:.0%}: start again with another --seed and --work-dir")
            save_file(cpu_copy(self.model.named_weights()), self._stage_weights())
            save(self.work_dir, self.model, self.optimizer, self.progress)
        return self._stage_weights()

    def _stage_weights(self) -> Path:
        """The weights as the last finished stage left them."""
        return self.work_dir / f"stage-{self.progress.stage}.safetensors"

    def _train_stage(self, stage: Stage) -> None:
        progress, saved, window = self.progress, time.monotonic(), Window()
        while progress.stage_tokens < stage.tokens:
            started = time.monotonic()
            batch = self.source.batch(progress.step, stage.mix, self.batch_tokens).to(self.device)
            window.add(self._step(batch, stage), batch.ids_BT.numel())
            progress.step += 1
            progress.tokens += batch.ids_BT.numel()
            progress.stage_tokens += batch.ids_BT.numel()
            progress.seconds += time.monotonic() - started
            if progress.step % LOG_STEPS == 0:
                self._report(window, stage.mix)
                window = Window()
            if time.monotonic() - saved > SAVE_SECONDS:
                save(self.work_dir, self.model, self.optimizer, progress)
                saved = time.monotonic()

    def _step(self, batch: Batch, stage: Stage) -> float:
        share = self.progress.stage_tokens / stage.tokens
        rate = stage.rate + (stage.last_rate - stage.rate) * min(1.0, share)
        rate *= min(1.0, (self.progress.step + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
        self.model.before_step(self.source, stage.mix, self.progress.step)
        loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.named_weights().values(), 1.0)
        self.optimizer.step()
        self.model.after_step()
        return loss.item()

    def _loss(self, batch: Batch) -> Tensor:
        logits_BKV, shortfall = self.model.training_logits(batch)
        loss_BK = F.cross_entropy(logits_BKV.flatten(0, 1), batch.target_BK.flatten(), reduction="none")
        loss_BK = loss_BK.view(batch.target_BK.shape)
        answer = (loss_BK * batch.answer_BK).sum() / batch.answer_BK.sum()
        copy = (loss_BK * batch.copy_BK).sum() / batch.copy_BK.sum()
        return answer + COPY_WEIGHT * copy + FLOOR_WEIGHT * shortfall

    def accuracy(self, mix: Mix, count: int) -> float:
        """Held-out exact match (all digits and the end token) on a stage's own mix, without factors."""
        mix = replace(mix, local_only=0.0, factor_max=1.0)
        hits = 0
        for start in range(0, count, 64):
            batch = self.held_out.batch(HELD_OUT_STEP + start, mix, sequences=64).to(self.device)
            hits += exact_matches(self.model, batch).sum().item()
        return hits / (-(-count // 64) * 64)

    def _report(self, window: Window, mix: Mix) -> None:
        p = self.progress
        self.log(
            f"stage {p.stage + 1} step {p.step} tokens {p.tokens / 1e6:.2f}M {window} "
            f"held-out {self.accuracy(mix, 64):.1%} (n=64){self.model.note()} "
            f"elapsed {p.seconds / 60:.1f} min"
        )

    def log(self, line: str) -> None:
        print(line, flush=True)
        with (self.work_dir / "log.txt").open("a") as file:
            file.write(line + "\n")


def make_optimizer(model: Model) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only and a faster rate for the balance factors."""
    groups: dict[str, list[Tensor]] = {"matrix": [], "norm": [], "gate": []}
    for name, weight in model.named_weights().items():
        kind = "gate" if name.endswith("balance_factors") else "matrix" if weight.dim() == 2 else "norm"
        groups[kind].append(weight)
    options = {
        "matrix": {"weight_decay": 0.02, "ratio": 1.0},
        "norm": {"weight_decay": 0.0, "ratio": 1.0},
        "gate": {"weight_decay": 0.0, "ratio": GATE_RATE},
    }
    return torch.optim.AdamW(
        [{"params": groups[kind], **options[kind]} for kind in options if groups[kind]], betas=(0.9, 0.985)
    )


@torch.no_grad()
def exact_matches(model: Model, batch: Batch, ablate: bool = False) -> Tensor:
    """[B] whether every answer token is the most likely one given the ones before: what greedy decoding would give."""
    logits_BKV = model.logits(batch, ablate)
    return ((logits_BKV.argmax(-1) == batch.target_BK) | (batch.answer_BK == 0)).all(-1)
