"""The fault harness: real nodes that are killed, stopped, cut off and restarted at named steps.

``python -m tests.faults`` runs the whole table (`table.toml`); the tests run a selection.
"""
