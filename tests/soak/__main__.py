"""Runs a soak; see ``scripts/soak --help``."""

from tests.soak.command import soak

if __name__ == "__main__":
    soak()
