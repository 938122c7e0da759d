"""parrot: repeats the last word of a sentence of the prompt; for trying the command line, not for knowing anything."""

from dataclasses import dataclass
from typing import ClassVar

from infini_eval.api import TextBackend, option


@dataclass(frozen=True)
class ParrotSettings:
    """Which sentence it repeats; the field is also the flag --parrot-hears."""

    TITLE: ClassVar[str] = "parrot"

    hears: str = option(
        "courier comes", "it repeats the last word of the first sentence with this text", flag="--parrot-hears"
    )


class ParrotBackend(TextBackend):
    """Everything but the answers is the base class's: no weights, one process a replica, data parallel."""

    settings = (ParrotSettings,)

    def complete(self, prompts: list[str]) -> list[str]:
        """The answers to the prompts of one batch."""
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: str) -> str:
        heard = self._config.settings(ParrotSettings).hears
        sentence = next((part for part in prompt.split(".") if heard in part), "nothing")
        return f" {sentence.split()[-1]}."
