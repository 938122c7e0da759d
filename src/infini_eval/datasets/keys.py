"""Draws the keys of needles and worked examples: never one twice, never one that stands elsewhere."""

from __future__ import annotations

import random
from collections.abc import Collection

from infini_eval.errors import DataError

TRIES = 10_000


def key_range(num_digits: int) -> range:
    """All keys of that many digits, without a leading zero (1 digit: 1..9)."""
    if not 1 <= num_digits <= 18:
        raise DataError(
            f"--num_digits {num_digits} is outside 1..18", valid="1..18 digits: answers are stored as int64"
        )
    return range(10 ** (num_digits - 1), 10**num_digits)


class KeyDrawer:
    """Hands out keys of one seed, each at most once, shots' keys apart from needles' keys."""

    def __init__(self, seed: str, excluded: Collection[str] = ()) -> None:
        self.rng = random.Random(seed)
        self.excluded = frozenset(excluded)
        self.used: set[str] = set()

    def draw(self, num_digits: int, forbidden: Collection[str] = ()) -> str:
        """A key of `num_digits` digits that was not drawn before and is not in `forbidden`."""
        keys = key_range(num_digits)
        taken = self.used | self.excluded | set(forbidden) if len(keys) <= TRIES else None
        if taken is not None:
            free = [key for key in map(str, keys) if key not in taken]
            if free:
                return self._take(free[self.rng.randrange(len(free))])
        else:
            for _ in range(TRIES):
                key = str(keys[self.rng.randrange(len(keys))])
                if not (key in self.used or key in self.excluded or key in forbidden):
                    return self._take(key)
        raise DataError(
            f"no key of {num_digits} digit(s) is left: {len(self.used)} are in use, {len(self.excluded)} excluded, "
            f"{len(forbidden)} stand in the haystack; there are {len(keys)} in all",
            valid="fewer prompts in one call, or more digits",
            next_step=f"pass --num_digits {num_digits + 1}; --distinct-keys cell (keys differ within a cell); or "
            "--haystack_dir filler (a text without numbers)",
        )

    def _take(self, key: str) -> str:
        self.used.add(key)
        return key
