"""What a devnet is made of."""

from dataclasses import dataclass
from pathlib import Path

from d2m_node.errors import UserError

DEFAULT_CONES = 5
DEFAULT_CONES_UNDER_ATTACK = 7
MAX_NODES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetOptions:
    """Counts, faults and places of a devnet."""

    buyers: int
    sellers: int
    cones: int
    byzantine_cones: int
    attack: str
    malicious_sellers: int
    seed: int
    chain_port: int
    block_seconds: float
    folder: Path
    stay_up: bool

    def __post_init__(self) -> None:
        """Check what the command line alone cannot. Raises UserError."""
        if self.buyers < 1:
            raise UserError("--buyers: give at least 1")
        if self.sellers < 4:
            raise UserError("--sellers: give at least 4, a round samples all but one")
        if self.cones < 1:
            raise UserError("--cones: give at least 1")
        if self.attack != "silent" and 2 * self.byzantine_cones >= self.cones:
            raise UserError(
                f"--byzantine-cones: {self.byzantine_cones} of {self.cones} CONE nodes is no "
                "minority; nothing can be decided honestly"
            )
        if 2 * self.malicious_sellers >= self.sellers:
            raise UserError(
                f"--malicious-sellers: {self.malicious_sellers} of {self.sellers} sellers is no "
                "minority"
            )
        if self.buyers + self.sellers + self.cones > MAX_NODES:
            raise UserError(f"a devnet has at most {MAX_NODES} nodes")
