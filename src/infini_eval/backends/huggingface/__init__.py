"""Hugging Face models: loading, prompts, generation, and the backend that puts them together."""
