"""nanotron checkpoints: layout, reader, writer."""
