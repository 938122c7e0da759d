"""Tasks: what is asked; one file each."""
