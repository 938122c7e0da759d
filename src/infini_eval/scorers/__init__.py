"""Scorers: how an answer is judged; objects made by `infini_eval.api.scorer`."""
