"""Training of the demo Infini-Attention checkpoint: `python -m scripts.train_demo --out checkpoints/infini-demo`."""
