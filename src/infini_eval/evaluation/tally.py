"""What a replica read and what it reused: samples read whole apart from those that share what others had computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from infini_eval.records import Response


@dataclass
class Sums:
    """Of some samples: their number, prompt tokens, those reused, and seconds."""

    samples: int = 0
    tokens: int = 0
    reused: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> str:
        """Computed tokens a second; a reused token is nobody's speed."""
        return f"{(self.tokens - self.reused) / self.seconds:,.0f}" if self.seconds > 0 else "unknown"


@dataclass
class Tally:
    """The answered samples of one replica, cold and warm; those of backends that cannot say are not among them."""

    cold: Sums = field(default_factory=Sums)
    warm: Sums = field(default_factory=Sums)

    def add(self, response: Response) -> None:
        reused = response.details.get("reused_tokens")
        if reused is None or response.error is not None:
            return
        sums = self.warm if reused else self.cold
        sums.samples += 1
        sums.tokens += response.prompt_tokens
        sums.reused += reused
        sums.seconds += response.seconds

    def line(self) -> str | None:
        """One line for people; None where nothing was counted."""
        tokens = self.cold.tokens + self.warm.tokens
        if not tokens:
            return None
        kinds = (("read whole", self.cold), ("with shared prefixes", self.warm))
        rates = [
            f"{sums.samples} samples {words} at {sums.rate} computed tokens/s" for words, sums in kinds if sums.samples
        ]
        return f"prompt tokens: {tokens:,}, of which {self.warm.reused:,} reused; {', '.join(rates)}"
