"""Tasks: what is asked; objects of `infini_eval.api.Task`."""
