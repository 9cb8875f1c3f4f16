"""Benchmarks: timings of our code and of others' on the same inputs, in the same run.

``scripts/bench`` runs them. They are no tests: nothing fails when a machine is slow.
"""
