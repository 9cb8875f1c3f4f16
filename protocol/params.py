"""The numbers that a deployment of the contracts fixes for ever, and the hash that names them.

The contracts hold them as immutables; `Market.params_hash()` must equal `compute_params_hash`.
Source: MECHANISM 1.
"""

from dataclasses import dataclass, fields

from protocol.errors import InvalidParams
from protocol.hashing import address_word, keccak, word
from protocol.terms import TermLimits
from protocol.types import Address, Digest, Wei

BPS = 10_000
MAX_DEPLOYMENT_WINDOW_BLOCKS = 1 << 32
MAX_RETRIES = 5
MAX_FINALS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolParams:
    """What all nodes of a market share. The order of the fields is the ABI's."""

    cone_bps: int
    """Share of a price that goes to the CONE nodes, in 1/10000."""
    floor_bps: int
    """Share paid for rounds done even if the target is missed, in 1/10000."""
    bid_forfeit_bps: int
    """Share of the deposit that a bid never revealed loses, in 1/10000."""
    slash_wrong_bps: int
    slash_noreveal_bps: int
    min_stake_wei: Wei
    unbonding_blocks: int
    max_window_blocks: int
    """Upper bound of every window that a job's terms may set."""
    seed_delay_blocks: int
    """From a deadline to the block whose randomness is the seed."""
    retries: int
    """Further attempts of a round after an undecided one."""
    finals_max: int
    """Final evaluations that one job may hold."""
    audit_bps: int
    """Chance that the whole pool is called to a decided ballot, in 1/10000."""
    sweep_blocks: int
    """From a settlement to the block after which money that nobody claimed may be burned."""
    refund_cap_bps: int
    """Most of the CONE nodes' pool that pays for the gas of batches, in 1/10000."""
    token: Address
    """The ERC-20 that prices may be in besides ether; zero for none."""

    @property
    def term_limits(self) -> TermLimits:
        """The bounds that these parameters put on a job's terms."""
        return TermLimits(self.min_stake_wei, self.max_window_blocks, self.seed_delay_blocks)


def encode_params(params: ProtocolParams) -> bytes:
    """ABI-encode the static struct: one 32-byte word per field, in order."""
    numbers = [getattr(params, field.name) for field in fields(params) if field.name != "token"]
    return b"".join(map(word, numbers)) + address_word(params.token)


def compute_params_hash(params: ProtocolParams) -> Digest:
    """Hash the encoded parameters."""
    return keccak(encode_params(params))


def validate_params(params: ProtocolParams) -> None:
    """Check the bounds that the contracts check when they are deployed.

    Raises
    ------
    InvalidParams
        Naming the first field out of range and what would be in range.
    """
    for name, (low, high) in _RANGES.items():
        value = getattr(params, name)
        if not low <= value <= high:
            raise InvalidParams(name, f"is {value}; give {low} to {high}")


_RANGES: dict[str, tuple[int, int]] = {
    "cone_bps": (0, BPS),
    "floor_bps": (0, BPS),
    "bid_forfeit_bps": (0, BPS),
    "slash_wrong_bps": (0, BPS),
    "slash_noreveal_bps": (0, BPS),
    # A lock of nothing could not be told from no lock.
    "min_stake_wei": (1, (1 << 256) - 1),
    "unbonding_blocks": (0, MAX_DEPLOYMENT_WINDOW_BLOCKS),
    "max_window_blocks": (1, MAX_DEPLOYMENT_WINDOW_BLOCKS),
    "seed_delay_blocks": (1, MAX_DEPLOYMENT_WINDOW_BLOCKS),
    "retries": (0, MAX_RETRIES),
    "finals_max": (0, MAX_FINALS),
    "audit_bps": (0, BPS),
    "sweep_blocks": (1, MAX_DEPLOYMENT_WINDOW_BLOCKS),
    "refund_cap_bps": (0, BPS),
}
