"""The native model at work: batching, prefill, decode, sampling."""
