"""Results folders: manifest, append-only sample files, resume, merge; never imports torch."""
