"""Our model in the harnesses of others: what each of them imports, and only there."""
