"""What one account put into the jobs of a market, got back, spent and earned, to the wei.

An entry is one amount in one event. Of each job, role and currency

    held = put up - returned - spent        still in a contract, and not due to come back yet
    net  = earned - spent

Gas is no part of it: the chain takes it apart from any job. Payouts are recomputed by
`payout_explanation`; here they are what was credited. Source: MECHANISM 2, 3.1, 9.2, 14.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from protocol.events import (
    AppealOpened,
    AppealResolved,
    BidCommitted,
    BidReclaimed,
    DepositForfeited,
    DepositReturned,
    EquivocationProved,
    EscrowReclaimed,
    Event,
    JobSettled,
    PayoutCredited,
    RecordedEvent,
    SellerDeposited,
    SlashShared,
    StakeLocked,
    StakeReleased,
    StakeSlashed,
)
from protocol.job import JobState
from protocol.params import BPS, ProtocolParams
from protocol.payout_explanation import EventSource, locate
from protocol.settlement import PayeeRole
from protocol.shares import find_cone_share, find_seller_share
from protocol.types import NO_ACCOUNT, Address, JobId, Wei


class Role(Enum):
    """As what an account takes part in a job."""

    BUYER = "buyer"
    SELLER = "seller"
    CONE = "cone"


class Effect(Enum):
    """What an entry does to the account's money."""

    PUT_UP = "put up"
    RETURNED = "returned"
    SPENT = "spent"
    EARNED = "earned"


class Kind(Enum):
    """What an entry is for."""

    BID = "bid"
    BID_RETURNED = "bid returned"
    BID_FORFEITED = "bid forfeited"
    PRICE = "price"
    PRICE_RETURNED = "price returned"
    REFUND = "refund"
    DEPOSIT = "seller deposit"
    DEPOSIT_RETURNED = "seller deposit returned"
    DEPOSIT_BURNED = "seller deposit burned"
    SELLER_PAYOUT = "seller payout"
    STAKE = "stake locked"
    STAKE_RETURNED = "stake released"
    STAKE_SLASHED = "stake slashed"
    SLASH_REWARD = "reward of a slash"
    CONE_PAYOUT = "CONE payout"
    BATCH_REFUND = "gas of batches refunded"
    BOND = "appeal bond"
    BOND_RETURNED = "appeal bond returned"
    BOND_LOST = "appeal bond lost"
    BOND_REWARD = "part of an appeal bond"


_PAID: Mapping[int, tuple[Role, Kind]] = {
    PayeeRole.CONE: (Role.CONE, Kind.CONE_PAYOUT),
    PayeeRole.SELLER: (Role.SELLER, Kind.SELLER_PAYOUT),
    PayeeRole.BUYER: (Role.BUYER, Kind.REFUND),
    PayeeRole.BATCHER: (Role.CONE, Kind.BATCH_REFUND),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One amount that moved, or that a decision of the chain gave or took."""

    role: Role
    kind: Kind
    effect: Effect
    currency: Address
    amount_wei: Wei
    formula: str
    """How the contract came to the amount; empty if it is the account's own choice."""
    source: EventSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """All that one account has to do with one job, in one role and one currency."""

    job_id: JobId
    role: Role
    currency: Address
    entries: tuple[Entry, ...]
    due_wei: Wei
    """A share of the settled job that is set aside, and not claimed yet: not earned so far."""

    def sum(self, effect: Effect) -> Wei:
        """Add up all entries of an effect."""
        return Wei(sum(one.amount_wei for one in self.entries if one.effect is effect))

    @property
    def held_wei(self) -> Wei:
        """What is still in a contract."""
        gone = self.sum(Effect.RETURNED) + self.sum(Effect.SPENT)
        return Wei(self.sum(Effect.PUT_UP) - gone)

    @property
    def net_wei(self) -> int:
        """What was earned, less what was spent; negative for most buyers."""
        return self.sum(Effect.EARNED) - self.sum(Effect.SPENT)


def list_positions(
    jobs: Iterable[JobState], account: Address, params: ProtocolParams
) -> tuple[Position, ...]:
    """List what an account has to do with jobs; by job as they come, then by role and currency."""
    return tuple(position for job in jobs for position in _list_of_job(job, account, params))


def sum_by_currency(positions: tuple[Position, ...]) -> dict[Address, dict[Effect, Wei]]:
    """Add up positions; the sums are those of all their entries, to the wei."""
    sums: dict[Address, dict[Effect, Wei]] = {}
    for position in positions:
        row = sums.setdefault(position.currency, dict.fromkeys(Effect, Wei(0)))
        for effect in Effect:
            row[effect] = Wei(row[effect] + position.sum(effect))
    return sums


def _list_of_job(job: JobState, account: Address, params: ProtocolParams) -> Iterator[Position]:
    entries: dict[tuple[Role, Address], list[Entry]] = {}
    for entry in _Book(job, account, params).read():
        entries.setdefault((entry.role, entry.currency), []).append(entry)
    due = {Role.SELLER: find_seller_share(job, account), Role.CONE: find_cone_share(job, account)}
    for role, share in due.items():
        if share is not None:
            entries.setdefault((role, job.currency), [])
    for role in Role:
        if not any(role is one for one, _ in entries) and _takes_part(job, account, role):
            entries[role, job.currency] = []
    for (role, currency), listed in sorted(entries.items(), key=_order):
        share = due.get(role) if currency == job.currency else None
        yield Position(
            job_id=job.job_id,
            role=role,
            currency=currency,
            entries=tuple(listed),
            due_wei=Wei(0) if share is None else share.amount_wei,
        )


def _order(item: tuple[tuple[Role, Address], list[Entry]]) -> tuple[str, Address]:
    (role, currency), _ = item
    return role.value, currency


def _takes_part(job: JobState, account: Address, role: Role) -> bool:
    """Tell whether an account applied, though no money of it moved."""
    match role:
        case Role.BUYER:
            return account in job.bids
        case Role.SELLER:
            return job.has_seller_applied(account)
        case Role.CONE:
            return job.has_cone_applied(account)


class _Book:
    """The entries of one account in one job, from the events that moved money."""

    def __init__(self, job: JobState, account: Address, params: ProtocolParams) -> None:
        self._job = job
        self._me = account
        self._params = params
        self._bid_wei = 0
        """What is in the auction: a raise of an open bid adds the difference."""
        self._deposit_wei = 0
        self._stake_wei = 0
        self._appeal: AppealOpened | None = None

    def read(self) -> Iterator[Entry]:
        """Read the trail, in the order of the chain."""
        for recorded in self._job.trail:
            yield from self._read_event(recorded)

    def _read_event(self, recorded: RecordedEvent) -> Iterator[Entry]:
        event = recorded.event
        if isinstance(event, PayoutCredited):
            if event.payee == self._me:
                role, kind = _PAID[event.role]
                yield self._make(recorded, role, kind, Effect.EARNED, event.amount_wei)
        elif isinstance(event, AppealOpened | AppealResolved):
            yield from self._read_appeal(recorded, event)
        elif isinstance(event, StakeLocked | StakeReleased | StakeSlashed | SlashShared):
            yield from self._read_stake(recorded, event)
        elif getattr(event, "seller", None) == self._me:
            yield from self._read_deposit(recorded, event)
        elif self._me in (getattr(event, "bidder", None), getattr(event, "buyer", None)):
            yield from self._read_bid(recorded, event)

    def _read_bid(self, recorded: RecordedEvent, event: Event) -> Iterator[Entry]:
        make, role = self._make, Role.BUYER
        match event:
            case BidCommitted():
                added = event.deposit_wei - self._bid_wei
                self._bid_wei = event.deposit_wei
                yield make(recorded, role, Kind.BID, Effect.PUT_UP, added)
            case BidReclaimed():
                if event.amount_wei:
                    yield make(recorded, role, Kind.BID_RETURNED, Effect.RETURNED, event.amount_wei)
                if event.forfeited_wei:
                    lost = f"{self._bid_wei} * {self._params.bid_forfeit_bps} // {BPS}"
                    amount_wei = event.forfeited_wei
                    yield make(recorded, role, Kind.BID_FORFEITED, Effect.SPENT, amount_wei, lost)
                self._bid_wei = 0
            case EscrowReclaimed():
                yield make(recorded, role, Kind.PRICE_RETURNED, Effect.RETURNED, event.amount_wei)
            case JobSettled():
                yield make(recorded, role, Kind.PRICE, Effect.SPENT, event.price_wei)

    def _read_deposit(self, recorded: RecordedEvent, event: Event) -> Iterator[Entry]:
        make, role = self._make, Role.SELLER
        match event:
            case SellerDeposited():
                yield make(recorded, role, Kind.DEPOSIT, Effect.PUT_UP, event.amount_wei)
            case DepositReturned():
                kind = Kind.DEPOSIT_RETURNED
                yield make(recorded, role, kind, Effect.RETURNED, event.amount_wei)
            case DepositForfeited() | EquivocationProved():
                yield make(recorded, role, Kind.DEPOSIT_BURNED, Effect.SPENT, event.amount_wei)

    def _read_stake(
        self,
        recorded: RecordedEvent,
        event: StakeLocked | StakeReleased | StakeSlashed | SlashShared,
    ) -> Iterator[Entry]:
        if isinstance(event, SlashShared):
            if self._me in event.beneficiaries and event.reward_each_wei:
                count = len(event.beneficiaries)
                taken = event.burned_wei + event.reward_each_wei * count
                formula = f"{taken} // 2 // {count}"
                yield self._make_stake(
                    recorded, Kind.SLASH_REWARD, Effect.EARNED, event.reward_each_wei, formula
                )
            return
        if event.account != self._me:
            return
        match event:
            case StakeLocked():
                self._stake_wei = event.amount_wei
                yield self._make_stake(recorded, Kind.STAKE, Effect.PUT_UP, event.amount_wei)
            case StakeReleased():
                kind = Kind.STAKE_RETURNED
                yield self._make_stake(recorded, kind, Effect.RETURNED, event.amount_wei)
            case StakeSlashed():
                params = self._params
                is_wrong = event.reason == 1
                bps = params.slash_wrong_bps if is_wrong else params.slash_noreveal_bps
                formula = f"{self._stake_wei} * {bps} // {BPS}, or what is left of it"
                yield self._make_stake(
                    recorded, Kind.STAKE_SLASHED, Effect.SPENT, event.amount_wei, formula
                )

    def _read_appeal(
        self, recorded: RecordedEvent, event: AppealOpened | AppealResolved
    ) -> Iterator[Entry]:
        make = self._make
        if isinstance(event, AppealOpened):
            self._appeal = event
            if event.appellant == self._me:
                role = self._role_of_appellant()
                yield make(recorded, role, Kind.BOND, Effect.PUT_UP, event.bond_wei)
            return
        is_mine = self._appeal is not None and self._appeal.appellant == self._me
        if is_mine:
            role = self._role_of_appellant()
            kind, effect = Kind.BOND_LOST, Effect.SPENT
            if event.is_overturned:
                kind, effect = Kind.BOND_RETURNED, Effect.RETURNED
            yield make(recorded, role, kind, effect, event.bond_wei)
        if self._me in event.beneficiaries and event.reward_each_wei:
            formula = f"{event.bond_wei} // {len(event.beneficiaries)}"
            kind, amount_wei = Kind.BOND_REWARD, event.reward_each_wei
            yield make(recorded, Role.CONE, kind, Effect.EARNED, amount_wei, formula)

    def _role_of_appellant(self) -> Role:
        """Members appeal; one that is a seller and a CONE node appeals by what it computed."""
        if self._job.cone_index(self._me) is not None:
            return Role.CONE
        return Role.SELLER

    def _make_stake(
        self,
        recorded: RecordedEvent,
        kind: Kind,
        effect: Effect,
        amount_wei: int,
        formula: str = "",
    ) -> Entry:
        """Stake is ether, in any job."""
        entry = self._make(recorded, Role.CONE, kind, effect, amount_wei, formula)
        return replace(entry, currency=NO_ACCOUNT)

    def _make(  # noqa: PLR0913 - one entry
        self,
        recorded: RecordedEvent,
        role: Role,
        kind: Kind,
        effect: Effect,
        amount_wei: int,
        formula: str = "",
    ) -> Entry:
        return Entry(
            role=role,
            kind=kind,
            effect=effect,
            currency=self._job.currency,
            amount_wei=Wei(amount_wei),
            formula=formula,
            source=locate(recorded),
        )
