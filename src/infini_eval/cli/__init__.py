"""The commands: one file each; flags.py defines every flag once."""
