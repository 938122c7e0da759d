"""One needle prompt of a given size in characters, made by `infini-eval generate` and kept for the next model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from infini_eval.data.config import GenerateConfig
from infini_eval.errors import InfiniEvalError

SAMPLE_TOKENS = 2048  # a prompt of this size tells how many characters a token has


@dataclass(frozen=True)
class NiahData:
    """How the prompt is made. `needle`, `question`, `expected` None: the task's own. `depth` in percent.

    `tokenizer` counts the tokens; servers count with their own, so their prompt may differ by a few percent.
    """

    tokenizer: str
    needle: str | None = None
    question: str | None = None
    expected: str | None = None
    depth: float = 50.0
    haystack: str | None = None
    seed: int = 42

    def make(self, characters: int, folder: Path) -> tuple[Path, int]:
        """The file with a prompt of about `characters` characters, and its number of tokens; made once."""
        per_token = self._characters_a_token(folder)
        tokens = max(256, round(characters / per_token))
        return self._generate(tokens, folder), tokens

    def _characters_a_token(self, folder: Path) -> float:
        from infini_eval.data.reading import load_samples

        (sample,) = load_samples(str(self._generate(SAMPLE_TOKENS, folder))).samples
        return len(sample.prompt) / SAMPLE_TOKENS

    def _generate(self, tokens: int, folder: Path) -> Path:
        from infini_eval.data.dataset import generate_dataset

        settings = (self.tokenizer, self.needle, self.question, self.expected, self.depth, self.haystack, self.seed)
        name = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
        place = folder / f"niah-{tokens}-{name}"
        kept = sorted(place.rglob("*.parquet"))
        if kept:
            return kept[0]
        try:
            return generate_dataset(self._config(tokens), place, self.tokenizer).path
        except InfiniEvalError as error:
            raise type(error)(
                f"no needle data: {error.problem}", valid=error.valid, next_step=error.next_step
            ) from None

    def _config(self, tokens: int) -> GenerateConfig:
        expected = self.expected or (self.needle.strip() if self.needle else None)  # the document looks for the needle
        options = {"markers": "yes", "needle": self.needle, "question": self.question, "expected": expected}
        return GenerateConfig(
            context_lengths=(tokens,),
            depths=(self.depth,),
            num_prompts=1,
            task="niah",
            options={name: value for name, value in options.items() if value},
            haystack=self.haystack,
            seed=self.seed,
        )
