"""Results in the forms of other tools: tables, lm-eval's files, experiment trackers. Each is one function under `@export`."""
