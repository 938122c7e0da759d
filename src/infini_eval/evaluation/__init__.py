"""The parts of one evaluation, each a step of run.py."""
