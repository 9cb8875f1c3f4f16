"""The deployment's parameters that tests of rules and roles share."""

from protocol.params import ProtocolParams
from protocol.types import NO_ACCOUNT, Wei

PARAMS = ProtocolParams(
    cone_bps=3000,
    floor_bps=5000,
    bid_forfeit_bps=1000,
    slash_wrong_bps=5000,
    slash_noreveal_bps=5000,
    min_stake_wei=Wei(1),
    unbonding_blocks=10,
    max_window_blocks=100,
    seed_delay_blocks=1,
    retries=1,
    finals_max=3,
    audit_bps=1000,
    sweep_blocks=1000,
    refund_cap_bps=2000,
    token=NO_ACCOUNT,
)
