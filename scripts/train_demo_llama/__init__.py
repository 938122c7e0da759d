"""Training of the plain demo Llama: `python -m scripts.train_demo_llama --out checkpoints/llama-demo`."""
