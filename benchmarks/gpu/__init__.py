"""One script for one GPU: `python -m benchmarks.gpu`."""
