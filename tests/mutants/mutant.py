"""What a planted bug is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong rule, and the tests that must notice it."""

    bug: str
    """What is wrong, in a few words."""
    file: str
    """Path inside ``protocol/``."""
    old: str
    """Text that stands in the file exactly once."""
    new: str
    killed_by: tuple[str, ...]
    """Tests inside ``tests/protocol/`` of which at least one must fail."""

    def __post_init__(self) -> None:
        # pytest without names would run every test it finds.
        if not self.killed_by:
            raise ValueError(f"no test is named that notices: {self.bug}")
