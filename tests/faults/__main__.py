"""Runs the table of steps x faults, or a part of it; see ``scripts/faults --help``."""

from tests.faults.command import faults

if __name__ == "__main__":
    faults()
