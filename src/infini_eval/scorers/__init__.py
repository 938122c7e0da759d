"""Scorers: how an answer is judged; one file each, each with a function `score(generation, sample)`.

A file may also have `settled(generation, sample)`: whether no further text could change the score, given a text that is
only a beginning. Generation may stop there (`--no-early-stop` forbids it). A scorer without it wants the whole text.
"""
