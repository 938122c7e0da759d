"""Helpers for tests, shipped so that other projects can use them too."""
