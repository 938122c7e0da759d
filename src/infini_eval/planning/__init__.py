"""Planning: memory and time of a model at a context length, before anything is loaded. No torch here."""
