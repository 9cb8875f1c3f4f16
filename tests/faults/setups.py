"""The kinds of market that the table needs: what a plain job never does has to be provoked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.table import Fault


@dataclass(frozen=True, slots=True)
class Provocation:
    """Nodes of a role that are away for long, from a point on, so that others have to act."""

    action: str
    side: str
    role: str
    blocks: int
    count: int = 1
    """So many nodes, in each job."""
    fault: Fault = Fault.STOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One kind of market, and what is special about its jobs."""

    sellers: int = 5
    cones: int = 5
    attacks: Mapping[str, str] = field(default_factory=dict)
    """Hostile nodes by name; see `d2m_node.simulation.adversaries`."""
    mode: str = "sealed"
    audit_bps: int = 1000
    spare_sellers: int = 1
    """How many of them may be missing at the end of the enrolment."""
    first_set_size: int = 4
    in_token: bool = False
    seller_settings: tuple[str, ...] = ()
    """Further lines of the sellers' config.toml."""
    provocations: tuple[Provocation, ...] = ()
    drained: str | None = None
    """A CONE node that is drained after each job, and gets its stake out."""
    model_access: str = "participants"
    """Who may have the model, as the request says it."""
    is_cancelled: bool = False
    may_void: bool = False
    """Not even a majority of the CONE nodes is always there."""


SETUPS: Mapping[str, Setup] = {
    "plain": Setup(),
    "joining": Setup(),
    "open": Setup(mode="open"),
    # One seller comes too late for its place, and all of them are needed.
    "cancelled": Setup(
        spare_sellers=0,
        is_cancelled=True,
        provocations=(Provocation("tx/EnrolSeller", "before", "seller", 24),),
    ),
    # A vote is never opened, and an update neither: slashes and bitmaps go on record.
    "lossy": Setup(
        provocations=(
            Provocation("tx/SubmitCommits", "after", "cone", 16),
            Provocation("say/UpdateCommit", "after", "seller", 20),
        )
    ),
    "audited": Setup(audit_bps=10_000),
    # The node that is wrong appeals where it was not drawn, and its bond goes to those who come.
    "appealed": Setup(cones=7, attacks={"cone-7": "stale"}, first_set_size=3),
    # Nobody is there to vote or to count: the buyer gives the ballot up.
    "silent": Setup(
        may_void=True,
        provocations=(Provocation("say/AvailabilityBitmap", "after", "cone", 60, count=5),),
    ),
    "equivocal": Setup(attacks={"seller-5": "equivocate"}),
    # More than 20 payees: each claims its own share.
    "shared": Setup(cones=16),
    "token": Setup(in_token=True),
    "unbonding": Setup(drained="cone-5"),
    "private": Setup(
        seller_settings=(
            "[roles.seller.privacy]",
            "epsilon_budget = 1000.0",
            "delta = 0.001",
            "noise_multiplier = 1.0",
        )
    ),
    # A CONE node misses a decision and its check: the state after it comes from others, sealed.
    "sealed": Setup(
        model_access="buyer-only",
        provocations=(Provocation("say/AvailabilityBitmap", "after", "cone", 28),),
    ),
}
