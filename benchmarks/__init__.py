"""Benchmarks that anyone can regenerate and believe: ``python -m benchmarks --help``."""
