"""first_word: the first word of the answer is the expected one, whatever its case."""

from infini_eval.api import Sample, Score, scorer


@scorer
def first_word(generation: str, sample: Sample) -> Score:
    """first_word: "monday, I think" passes for Monday, "not Monday" does not."""
    words = generation.split()
    word = words[0].strip(".,;:!?\"'") if words else None
    return Score(float(word is not None and word.casefold() == sample.answer.casefold()), word)


@first_word.settled
def first_word_has_ended(generation: str, sample: Sample) -> bool:
    """Once a second word begins, the first cannot change."""
    return len(generation.split()) > 1
