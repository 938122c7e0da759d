"""Scorer: how an answer is judged. A function from the generated text and its sample to a `Score`::

    @scorer
    def starts_right(generation: str, sample: Sample) -> Score:
        '''starts_right: the answer stands at the very beginning.'''
        return Score(float(generation.lstrip().startswith(sample.answer)))

Its name is the function's. A scorer with one keyword-only parameter takes a setting, written behind its name:
`--scorer semantic_similarity:FOLDER`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from infini_eval.errors import ConfigError
from infini_eval.records import Sample, Score

Settles = Callable[[str, Sample], bool]
Work = TypeVar("Work", bound=Callable[..., object])


class Scorer:
    """A named judgement of an answer; call it with the generated text and the sample.

    A scorer that can tell early when nothing that follows changes its score says so with `settled`; generation then
    ends there.
    """

    def __init__(self, judge: Callable[[str, Sample], Score]) -> None:
        self.name = judge.__name__
        self.__doc__ = judge.__doc__
        self.__module__ = judge.__module__
        self._judge = judge
        self._settled: Settles | None = None
        self._setup: Callable[..., object] | None = None

    def __call__(self, generation: str, sample: Sample) -> Score:
        return self._judge(generation, sample)

    def with_setting(self, setting: str) -> Scorer:
        """The same scorer under another setting; ConfigError where it takes none."""
        own = [one.name for one in inspect.signature(self._judge).parameters.values() if one.kind is one.KEYWORD_ONLY]
        if len(own) != 1 or not setting:
            raise ConfigError(
                f"--scorer {self.name}:{setting}",
                valid=f"{self.name}:{own[0].upper()}" if own else f"{self.name} alone",
            )
        found = Scorer(self._judge)
        found._judge = partial(self._judge, **{own[0]: setting})
        found._settled = self._settled
        found._setup = None if self._setup is None else partial(self._setup, setting)
        return found

    def before_first(self, work: Work) -> Work:
        """Declare (as a decorator) what is done once before any answer, with the setting where there is one."""
        self._setup = work
        return work

    def set_up(self) -> None:
        """Do what must be done before the first answer: what is missing is said before a model is loaded."""
        if self._setup is not None:
            self._setup()

    def settled(self, test: Settles) -> Settles:
        """Declare (as a decorator) when no further token can change the score."""
        self._settled = test
        return test

    @property
    def can_settle(self) -> bool:
        """Whether the scorer can tell early."""
        return self._settled is not None

    def is_settled(self, generation: str, sample: Sample) -> bool:
        """Whether nothing that follows this text changes the score; False for scorers that want the whole text."""
        return self._settled is not None and self._settled(generation, sample)

    def __repr__(self) -> str:
        return f"<scorer {self.name}>"


def scorer(judge: Callable[[str, Sample], Score]) -> Scorer:
    """Make a function a scorer, under its own name."""
    return Scorer(judge)
