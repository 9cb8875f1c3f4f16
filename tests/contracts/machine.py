"""Jobs for the stateful machine: steps by stage, and what must hold of money and votes after each.

What is expected is computed here once more, from what the nodes did; nothing is taken from the
contracts but what they hold and what they announce.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import boa
from boa import BoaError
from eth_utils.crypto import keccak

from tests.contracts.blocks import header_of
from tests.contracts.world import (
    BODY_HASH,
    BURN_ACCOUNT,
    ETHER,
    HONEST_TRACE,
    NO_DATA,
    NO_PERMIT,
    ONE_ETHER,
    TAGS,
    Actor,
    Ballot,
    Job,
    World,
    make_actor,
)

MOST_SELLERS = 6
MOST_CONES = 7
SLASHED_FOR_WRONG = 1
OTHER_TRACE = keccak(b"other trace")

AUCTION, CANCELLED, ENROLMENT, RUNNING, SETTLED = 1, 2, 3, 4, 5
"""Status of a job."""

BEHAVIOURS = (
    *("honest",) * 6,
    *("wrong",) * 2,  # all who are wrong vote for one other header
    "copying",  # the honest digest without the work behind it
    "lacking",  # says that it lacks an update
    "silent",  # commits and does not open
    "absent",
)


class MachineWorld(World):
    """A world with a token, that remembers all that the contracts announce."""

    def __init__(self, deployers: Mapping[str, Any]) -> None:
        self.seen: list[Any] = []
        self.history: list[tuple[int, Any]] = []
        """Every event of the walk, with its block."""
        self.token = deployers["TokenPlain"].deploy()
        super().__init__(
            deployers, token=self.token.address, audit_bps=4000, unbonding_blocks=3, sweep_blocks=50
        )
        self.bidders = [self.buyer, self.other_buyer, make_actor("shy buyer")]
        sellers = [make_actor(f"seller {i}") for i in range(MOST_SELLERS)]
        cones = [make_actor(f"cone {i}") for i in range(MOST_CONES)]
        self.actors = [*self.bidders, *sellers, *cones, self.stranger]
        self.keepers = (
            self.market, self.stakes, self.deposits, self.appeals, self.settlement,
        )  # fmt: skip
        for actor in self.actors:
            self.token.mint(actor.address, 1000 * ONE_ETHER)
            for keeper in (self.market, self.deposits, self.appeals):
                self.token.approve(keeper.address, 2**256 - 1, sender=actor.address)
        self.totals = {currency: self.total(currency) for currency in self.currencies}
        self.purses = {
            (actor.address, currency): self.held(actor.address, currency)
            for actor in self.actors
            for currency in self.currencies
        }
        """What each had at the start."""

    @property
    def currencies(self) -> tuple[str, str]:
        return ETHER, self.token.address

    def _see(self, entry: Any) -> None:
        super()._see(entry)
        self.seen.append(entry)
        self.history.append((self.blocks.number, entry))

    def held(self, account: str, currency: str) -> int:
        if currency == ETHER:
            return self.balance(account)
        return int(self.token.balanceOf(account))

    def total(self, currency: str) -> int:
        """All money of a currency: what actors have, what contracts keep, what is burned."""
        accounts = [actor.address for actor in self.actors]
        accounts += [keeper.address for keeper in self.keepers]
        return sum(self.held(account, currency) for account in [*accounts, BURN_ACCOUNT])


@dataclass
class Played:
    """What the nodes did in one ballot."""

    opened: dict[int, tuple[int, Ballot]] = field(default_factory=dict)
    """By node: mini-round and vote."""
    committed: set[int] = field(default_factory=set)
    decision: bytes | None = None

    def votes_of(self, digest: bytes) -> int:
        """In each mini-round the largest group with one trace counts."""
        groups = Counter(
            (m, vote.trace) for m, vote in self.opened.values() if vote.digest == digest
        )
        minis = {m for m, _ in groups}
        return sum(max(n for (m, _), n in groups.items() if m == mini) for mini in minis)

    @property
    def lacking(self) -> int:
        return sum(1 for _, vote in self.opened.values() if vote.trace == bytes(32))

    @property
    def ranking(self) -> list[tuple[int, bytes]]:
        """Votes and digests, the leader first; on a tie the smaller digest."""
        digests = {vote.digest for _, vote in self.opened.values() if vote.trace != bytes(32)}
        return sorted(((self.votes_of(digest), digest) for digest in digests), key=_lead_order)

    def leads(self, digest: bytes, lead: int, cones: int) -> bool:
        votes = self.votes_of(digest)
        others = [n for n, other in self.ranking if other != digest]
        return votes >= max(others, default=0) + self.lacking + lead or 2 * votes > cones


def _lead_order(entry: tuple[int, bytes]) -> tuple[int, bytes]:
    return -entry[0], entry[1]


class MachineJob(Job):
    """A job in either currency and any mode, with bidders that hold back and nodes that cheat."""

    world: MachineWorld
    mode: int = 0
    currency: str = ETHER

    def __post_init__(self) -> None:
        # Making an actor gives it a fortune: the actors of the world keep what they have.
        held = {actor.address: self.world.balance(actor.address) for actor in self.world.actors}
        super().__post_init__()
        for account, amount_wei in held.items():
            boa.env.set_balance(account, amount_wei)

    def begin(self, mode: int, currency: str) -> None:
        """Open an auction of a mode; a second bidder bids less, a third one never reveals."""
        self.mode, self.currency = mode, currency
        self.has_applicants = False
        self.played: dict[int, Played] = defaultdict(Played)
        self.headers: dict[bytes, tuple[bytes, list[int]]] = {}
        self.options: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        self.parents: dict[int, tuple[bytes, list[int], tuple[Any, ...]]] = {}
        self.faults: dict[str, Counter[str]] = {"wrong": Counter(), "unopened": Counter()}
        self.prepare()
        self.number = self.world.market.auction_count() + 1
        self.amounts = [self.price_wei, self.price_wei - ONE_ETHER, self.price_wei]
        if mode == 2:
            self._bid_in_the_clear()
        else:
            self._bid_sealed()

    def _bid_sealed(self) -> None:
        world, market = self.world, self.world.market
        for place, (bidder, amount) in enumerate(zip(world.bidders, self.amounts, strict=True)):
            sealed = world.bid_commitment(
                self.number, bidder, amount, self.terms_list, keccak(b"salt")
            )
            end = (sealed, amount, NO_PERMIT)
            value = amount if self.currency == ETHER else 0
            if place == 0:
                market.open_auction(
                    self.number, TAGS, self.mode, self.currency, ONE_ETHER, ONE_ETHER, 5, 5, *end,
                    value=value, sender=bidder.address,
                )  # fmt: skip
            else:
                market.commit_bid(self.number, *end, value=value, sender=bidder.address)
        world.blocks.mine(6)
        for bidder, amount in list(zip(world.bidders, self.amounts, strict=True))[:2]:
            market.reveal_bid(
                self.number, amount, self.terms_list, BODY_HASH, keccak(b"salt"),
                sender=bidder.address,
            )  # fmt: skip

    def _bid_in_the_clear(self) -> None:
        world, market = self.world, self.world.market
        low, high = self.price_wei - ONE_ETHER, self.price_wei
        terms = (self.terms_list, BODY_HASH, NO_PERMIT)
        paid = [amount if self.currency == ETHER else 0 for amount in (low, high)]
        market.open_clear_auction(
            self.number, TAGS, self.currency, ONE_ETHER, 5, low, *terms,
            value=paid[0], sender=world.other_buyer.address,
        )  # fmt: skip
        market.bid(self.number, high, *terms, value=paid[1], sender=world.buyer.address)

    @property
    def status(self) -> int:
        return int(self.world.market.job_of(self.number).status)

    @property
    def expected_price_wei(self) -> int:
        return self.amounts[1] if self.mode == 1 else self.amounts[0]

    def close_bidding(self) -> None:
        self.world.blocks.mine_past(self.world.market.auction_of(self.number).reveal_end)
        self.world.market.close_auction(self.number, sender=self.world.stranger.address)
        record = self.world.market.job_of(self.number)
        assert record.price_wei == self.expected_price_wei
        assert record.buyer == self.world.buyer.address

    def apply(self, sellers: int) -> None:
        """Let some sellers apply, and all nodes that have had enough stake since the auction."""
        self.has_applicants = True
        self.sellers = self.sellers[:sellers]
        seller_wei = self.expected_price_wei - self.expected_price_wei * 3000 // 10_000
        most_wei = -(-seller_wei // self.terms["sellers_min"])
        deposit_wei = min(self.terms["seller_deposit_wei"], most_wei)
        for index in range(sellers):
            self.enrol_seller(index, value=deposit_wei if self.currency == ETHER else 0)
        enrol = self.world.enrolment.enrol_cone
        applied = [
            (cone, chain)
            for cone, chain in zip(self.cones, self.chains, strict=True)
            if succeeds(partial(enrol, self.number, self.terms_list, chain[0]), cone)
        ]
        self.cones = [cone for cone, _ in applied]
        self.chains = [chain for _, chain in applied]
        self.seller_count, self.cone_count = sellers, len(applied)
        self.credits = [0] * sellers

    def end_enrolment(self) -> None:
        if self.has_applicants:
            self.close_enrolment()
            return
        self.world.blocks.mine_past(self.world.market.job_of(self.number).enrolment_end)
        self.world.enrolment.close_enrolment(self.number, self.terms_list, [], [], b"")

    # --- votes -------------------------------------------------------------------------------

    @property
    def is_voting(self) -> bool:
        return self.status == RUNNING and int(self.ballot.ballot_number) > 0

    @property
    def is_called(self) -> bool:
        return bool(self.ballot.is_pool_called)

    def headers_of_ballot(self) -> tuple[bytes, bytes]:
        """What an honest and what a hostile node hash, each of them once for a ballot."""
        ballot = self.ballot
        key = (int(ballot.ballot_number), self.base[0])
        if key not in self.options:
            previous = self.previous_digest, self.credits
            self.previous_digest, self.credits = self.base
            if ballot.kind == 1:
                utilities = (996_147, 400_000) if self.number % 2 else (80_000, 996_147)
                options = tuple(map(self.final_vote, utilities))
            else:
                options = (
                    self.round_header(self._honest_utility()),
                    self.round_header(123, sampler_digest=keccak(b"hostile")),
                )
            credits = [v + (1 if i < 2 else 0) for i, v in enumerate(self.credits)]
            self.previous_digest, self.credits = previous
            self.options[key] = options
            for header in options:
                self.headers[keccak(header)] = (header, credits)
        return self.options[key]

    def _honest_utility(self) -> int:
        """Some rounds reach the target, so that final evaluations come."""
        return 996_147 if (self.number + int(self.ballot.round_index)) % 4 > 1 else 500_000

    @property
    def base(self) -> tuple[bytes, list[int]]:
        """What the current ballot builds on: if the pool is called, the decision before."""
        if self.is_called:
            previous, credits, _ = self.parents[int(self.ballot.ballot_number)]
            return previous, credits
        return self.previous_digest, self.credits

    def vote_as(self, behaviours: Sequence[str]) -> None:
        """Play one mini-round, each drawn node as it is told, and count it."""
        ballot = self.ballot
        played = self.played[int(ballot.ballot_number)]
        honest, hostile = (Ballot(keccak(h), HONEST_TRACE) for h in self.headers_of_ballot())
        kinds = {
            "honest": honest,
            "silent": honest,
            "wrong": hostile,
            "copying": Ballot(honest.digest, OTHER_TRACE),
            "lacking": NO_DATA,
        }
        votes = {
            index: kinds[behaviours[index]]
            for index in self.drawn()
            if behaviours[index] != "absent" and index not in played.committed
        }
        silent = [index for index in votes if behaviours[index] == "silent"]
        self._cast(votes, silent, played)
        self.world.blocks.mine_past(self.ballot.open_end)
        self.count(played)

    def _cast(self, votes: Mapping[int, Ballot], silent: list[int], played: Played) -> None:
        barred = int(self.world.ballots.pool_of(self.number)[2])
        able = {index: vote for index, vote in votes.items() if not (barred >> index) & 1}
        if not able:
            return
        batch = self.commit(able)
        assert set(batch) == able.keys(), "a commitment was refused"
        played.committed |= able.keys()
        if able.keys() == set(silent):
            return
        m = int(self.ballot.m)
        self.open(able, batch, silent)
        opened = able.keys() - set(silent)
        played.opened |= {index: (m, able[index]) for index in opened}
        assert int(self.ballot.opened) == sum(1 << index for index in played.opened)

    def count(self, played: Played) -> None:
        """Count the ballot; the header of the leader is brought."""
        groups = sorted({(m, vote.digest, vote.trace) for m, vote in played.opened.values()})
        ranking = played.ranking
        header = self.headers[ranking[0][1]][0] if ranking else b""
        rounds, sender = self.world.rounds, self.world.stranger.address
        number = int(self.ballot.ballot_number)
        if self.is_called:
            parent = self.parents[number][2]
            rounds.tally_pool(
                self.number, self.terms_list, self.course, parent, groups, header, sender=sender
            )
        else:
            self.parents[number] = (self.previous_digest, self.credits, self.course)
            rounds.tally(self.number, self.terms_list, self.course, groups, header, sender=sender)

    def learn(self, entry: Any) -> None:
        """Take in what Rounds announced, and check what must hold of it."""
        name = type(entry).__name__
        if name in ("RoundDecided", "FinalDecided"):
            self._check_decision(entry)
        elif name == "AttemptUndecided":
            played = self.played[int(entry.ballot_number)]
            for index in played.committed - played.opened.keys():
                self.faults["unopened"][self.cones[index].address] += 1
        elif name == "DecisionUpheld":
            self._blame(int(entry.ballot_number))

    def _check_decision(self, entry: Any) -> None:
        number, digest = int(entry.ballot_number), bytes(entry.digest)
        played = self.played[number]
        lead, cones = int(self.terms["lead"]), self.cone_count
        is_overturning = played.decision is not None
        if is_overturning:
            assert 2 * played.votes_of(digest) > cones, "overturned without a majority"
        else:
            assert played.leads(digest, lead, cones), "decided without its lead"
        assert played.ranking[0][1] == digest, "decided against the leader"
        played.decision = digest
        self._blame(number)
        if type(entry).__name__ == "RoundDecided":
            self.previous_digest, self.credits = digest, self.headers[digest][1]
        elif is_overturning:
            self.previous_digest, self.credits, _ = self.parents[number]

    def _blame(self, number: int) -> None:
        """Count who may be slashed for a ballot; a later count of the same ballot replaces it."""
        played = self.played[number]
        wrong = {
            index
            for index, (_, vote) in played.opened.items()
            if vote.digest != played.decision and vote.trace != bytes(32)
        }
        self._blamed = getattr(self, "_blamed", {})
        before_wrong, before_unopened = self._blamed.get(number, (set(), set()))
        unopened = played.committed - played.opened.keys()
        for kind, old, new in (
            ("wrong", before_wrong, wrong),
            ("unopened", before_unopened, unopened),
        ):
            for index in new - old:
                self.faults[kind][self.cones[index].address] += 1
            for index in old - new:
                self.faults[kind][self.cones[index].address] -= 1
        self._blamed[number] = (wrong, unopened)

    def punish(self, entry: Any) -> None:
        """Check a slash against what the node did; each fault pays for one."""
        kind = "wrong" if entry.reason == SLASHED_FOR_WRONG else "unopened"
        assert self.faults[kind][entry.account] > 0, f"slashed, but not {kind}"
        self.faults[kind][entry.account] -= 1

    # --- ways on that need nobody ------------------------------------------------------------

    def wait_out(self) -> None:
        """Let time pass and take the next exit that anyone can take, until the job is closed."""
        blocks, sender = self.world.blocks, self.world.stranger.address
        status = self.status
        if status == AUCTION:
            blocks.mine_past(self.world.market.auction_of(self.number).reveal_end)
            self.world.market.close_auction(self.number, sender=sender)
        elif status == ENROLMENT:
            self.end_enrolment()
        elif status == RUNNING and self.outcome != 0 and not self.is_voting:
            blocks.mine_past(self.result.final_block + self.world.params["max_window_blocks"])
            leaves = [] if self.number % 2 else self.leaves
            self.world.settlement.settle(
                self.number, self.terms_list, self.course, leaves, sender=sender
            )
        elif status == RUNNING and not self.is_voting:
            self.start_training()
        elif status == RUNNING:
            blocks.mine_past(self.ballot.open_end + self.terms["header_blocks"])
            self.world.rounds.expire(self.number, self.terms_list, self.course, sender=sender)

    def exits(self) -> Iterator[tuple[Actor, Callable[..., Any]]]:
        """Every call by which somebody takes its own money out of a closed job."""
        world, number = self.world, self.number
        for bidder in world.bidders:
            yield bidder, lambda **to: world.market.reclaim_bid(number, **to)
        yield world.buyer, lambda **to: world.market.reclaim_escrow(number, **to)
        for seller in self.sellers:
            yield seller, lambda **to: world.deposits.reclaim(number, **to)
        for cone in self.cones:
            yield cone, lambda cone=cone, **to: world.stakes.release(number, cone.address, **to)

    def audit_if_drawn(self, decided_open_end: int) -> None:
        """Audit the last decision if chance says so."""
        header = header_of(decided_open_end + self.world.params["seed_delay_blocks"])
        audit = self.world.rounds.audit
        succeeds(
            partial(audit, self.number, self.terms_list, self.course, header), self.world.stranger
        )


def succeeds(call: Callable[..., Any], actor: Actor) -> bool:
    try:
        call(sender=actor.address)
    except BoaError:
        return False
    return True


def check_books(world: MachineWorld, jobs: Sequence[MachineJob]) -> None:
    """Each contract holds the sum of what it owes, and no money came or went."""
    for currency in world.currencies:
        assert world.total(currency) == world.totals[currency], "money came or went"
        own = [job for job in jobs if job.currency == currency]
        assert world.held(world.market.address, currency) == sum(
            world.market.escrow_of(job.number)
            + sum(
                world.market.bid_of(job.number, bidder.address).deposit_wei
                for bidder in world.bidders
            )
            for job in own
        )
        assert world.held(world.deposits.address, currency) == sum(
            world.deposits.deposit_of(job.number, seller.address)
            for job in own
            for seller in job.sellers
        )
        assert world.held(world.settlement.address, currency) == sum(
            world.settlement.claimable(currency, actor.address) for actor in world.actors
        ) + sum(world.settlement.shares_left(job.number) for job in own)
        assert world.held(world.appeals.address, currency) == sum(
            world.appeals.withdrawable(currency, actor.address) for actor in world.actors
        ) + sum(world.appeals.appeal_of(job.number).bond_wei for job in own)
    held = [world.stakes.holding_of(actor.address) for actor in world.actors]
    locked = sum(
        world.stakes.lock_of(job.number, cone.address).remaining_wei
        for job in jobs
        for cone in job.cones
    )
    assert world.balance(world.stakes.address) == locked + sum(
        one.free_wei + one.unbonding_wei + one.reward_wei for one in held
    )


def check_announcements(world: MachineWorld, jobs: Mapping[int, MachineJob]) -> None:
    """Look at what was announced since the last look; sums of settlements, votes and slashes."""
    shared: Counter[int] = Counter()
    entries, world.seen = world.seen, []
    for entry in entries:
        name = type(entry).__name__
        if name == "PayoutCredited":
            shared[int(entry.job)] += entry.amount_wei
        elif name == "StakeSlashed":
            jobs[int(entry.job)].punish(entry)
        elif name == "JobSettled":
            left = world.settlement.shares_left(int(entry.job))
            assert shared[int(entry.job)] + left == entry.price_wei, "not the price"
            assert entry.price_wei == jobs[int(entry.job)].expected_price_wei
        elif hasattr(entry, "job") and int(entry.job) in jobs:
            jobs[int(entry.job)].learn(entry)
