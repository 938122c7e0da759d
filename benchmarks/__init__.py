"""Benchmarks that anyone can repeat: `python -m benchmarks`; each checks its answers before it says how fast they came."""
