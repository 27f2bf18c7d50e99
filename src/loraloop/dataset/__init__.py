"""Datasets: examples to split, rendered and fingerprinted rows, and to files."""
