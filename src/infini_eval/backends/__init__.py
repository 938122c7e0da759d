"""Backends: who answers; one file each, each with a class `Backend`."""
