"""Data sets of long-context samples, read, checked and made; never imports torch.

Reading: reading, passkey (its wording and defects), tokenizer. Making, from the top: dataset (the whole of it), generate
(rows), plan and compose, haystack, sources (english, words), config (the settings), write.
"""
