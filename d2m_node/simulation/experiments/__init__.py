"""Experiments: a file with a grid of runs, their results on disk, and what is shown of them."""
