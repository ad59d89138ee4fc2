"""Benchmarks: a correctness gate first, then times and memory of interleaved providers."""
