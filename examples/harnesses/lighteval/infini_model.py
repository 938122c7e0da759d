"""The file that lighteval loads for its command `custom`: a nanotron checkpoint as its model.

lighteval custom checkpoints/infini-demo examples/harnesses/lighteval/infini_model.py TASKS
"""

from infini_eval.harnesses.lighteval import InfiniLightevalModel

__all__ = ["InfiniLightevalModel"]
