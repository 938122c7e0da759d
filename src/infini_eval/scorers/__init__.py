"""Scorers: how an answer is judged; one file each, each with a function `score`."""
