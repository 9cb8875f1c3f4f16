"""What a planted bug of a contract is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong contract, and the test that must notice it."""

    bug: str
    """What is wrong, in a few words."""
    file: str
    """Path inside ``contracts/``."""
    contracts: tuple[str, ...]
    """Contracts that are compiled from the changed file; the others stay as they are."""
    old: str
    """Text that stands in the file exactly once."""
    new: str
    killed_by: str
    """``file::test`` inside ``tests/contracts/``; the test must fail."""
