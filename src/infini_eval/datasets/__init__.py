"""Data sets: reading, validating and composing long-context samples; never imports torch."""
