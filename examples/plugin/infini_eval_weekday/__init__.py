"""One extension of each kind: a task (weekday), a scorer (first_word), a backend (parrot), a report (wrong_answers)."""
