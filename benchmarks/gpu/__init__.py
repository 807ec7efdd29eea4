"""Benchmarks that need a GPU; each is one command that says so where there is none."""
