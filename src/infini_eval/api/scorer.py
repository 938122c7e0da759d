"""Scorer: how an answer is judged. A function from the generated text and its sample to a `Score`::

    @scorer
    def starts_right(generation: str, sample: Sample) -> Score:
        '''starts_right: the answer stands at the very beginning.'''
        return Score(float(generation.lstrip().startswith(sample.answer)))

Its name is the function's.
"""

from __future__ import annotations

from collections.abc import Callable

from infini_eval.records import Sample, Score

Settles = Callable[[str, Sample], bool]


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

    def __call__(self, generation: str, sample: Sample) -> Score:
        return self._judge(generation, sample)

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
