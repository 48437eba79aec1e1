"""Benchmarks: each prints a ratio against a ceiling or a peer measured in the same run."""
