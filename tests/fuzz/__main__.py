"""Fuzzes a node's network; see ``scripts/fuzz-network --help``."""

from tests.fuzz.command import fuzz

if __name__ == "__main__":
    fuzz()
