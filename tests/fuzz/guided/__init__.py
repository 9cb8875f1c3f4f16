"""Bytes chosen by the code that they reach, for every reader of hostile bytes."""
