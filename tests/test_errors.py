"""Messages of other libraries, shortened: what a user reads of them is one line that is never empty."""

from __future__ import annotations

from infini_eval.errors import first_line, first_sentence, in_one_line


def test_messages_of_other_libraries_are_shortened() -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nsee the manual")
    assert in_one_line(error) == "CUDA out of memory. Tried to allocate 2.00 GiB see the manual"
    assert in_one_line(error, 4) == "CUDA" and in_one_line("x" * 600, None) == "x" * 600
    assert first_line(error) == "CUDA out of memory. Tried to allocate 2.00 GiB"
    assert first_sentence(error) == "CUDA out of memory"
    assert first_line(KeyError()) == first_sentence(KeyError()) == "KeyError"
