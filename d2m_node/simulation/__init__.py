"""Hostile nodes, out of reach of an ordinary node."""
