"""A server of a native checkpoint that speaks OpenAI's protocol: requests checked, queued, computed in batches."""
