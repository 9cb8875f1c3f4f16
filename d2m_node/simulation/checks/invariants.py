"""What must hold in every block of a simulation, whoever cheats and whatever breaks.

1. Money adds up: none comes or goes, and each contract holds what it owes, bucket by bucket.
2. No wrong digest is decided, with as many hostile CONE nodes as the vote is planned for.
3. No honest node is slashed, no honest seller proved to have signed twice, and no honest bidder
   loses its deposit.
4. No buyer pays for data that it served, and that enough of the pool could have receipted.
5. Every job ends by a block that follows from its terms.
6. In the end everybody has what it is owed.

A violation names the seed, the block, the job and the node, so that it can be replayed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from d2m_node.errors import NodeError
from d2m_node.roles.payday import EXITS, find_stake
from d2m_node.roles.rooms import OVER
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.chain.ledger import Ledger
from d2m_node.simulation.checks.books import compute_holdings
from d2m_node.simulation.checks.votes import Votes
from d2m_node.simulation.computing.shared_results import KnownResult, SharedResults
from protocol.ballot import DecidedBallot
from protocol.bitmap import compute_input_set
from protocol.digest import RoundHeader
from protocol.errors import InvalidSignature
from protocol.events import (
    BidReclaimed,
    EquivocationProved,
    FinalDecided,
    RoundDecided,
    StakeSlashed,
    TrainingEnded,
)
from protocol.hashing import Domain
from protocol.job import JobState
from protocol.market import MarketState
from protocol.settlement import Outcome
from protocol.signatures import Availability, expand, recover_signer
from protocol.types import Address, BlockNumber, JobId, RoundIndex
from protocol.windows import compute_longest_ballot

NOT_OPENED: Final = 2
"""Reason of a slash: committed and did not open."""
PULLED: Final = tuple(find for find in EXITS if find is not find_stake)
"""Exits of all money that an account has without leaving the market."""
SLACK_BLOCKS: Final = 20
"""For each step that somebody has to take: late blocks of turns, orphaned calls."""


class InvariantViolated(NodeError):
    """Something happened that must not, whatever nodes do."""

    def __init__(self, what: str, *, seed: int, block: int, job: int, node: str) -> None:
        self.what = what
        self.seed = seed
        self.block = block
        self.job = job
        self.node = node
        super().__init__(f"seed {seed}, block {block}, job {job}, node {node}: {what}")


def find_violation(error: BaseException) -> InvariantViolated | None:
    """Find a violation in an error, or in a group of errors."""
    if isinstance(error, BaseExceptionGroup):
        found = (find_violation(one) for one in error.exceptions)
        return next((one for one in found if one is not None), None)
    return error if isinstance(error, InvariantViolated) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """What the referee knows of the scenario."""

    seed: int
    names: Mapping[Address, str]
    honest: frozenset[Address]
    is_wrong_tolerated: bool
    """More CONE nodes are hostile than the vote is planned for, or there is no real vote."""
    is_excused: Callable[[Address, BlockNumber, BlockNumber], bool]
    """Tells whether a node was down, cut off or misled between two blocks."""
    has_turned: Callable[[BlockNumber], bool]
    """Tells whether more blocks were taken back since a block than nodes wait."""


class Referee:
    """Looks at each block. What it finds wrong, it raises."""

    def __init__(self, ledger: Ledger, results: SharedResults, rules: Rulebook) -> None:
        self._ledger = ledger
        self._results = results
        self._rules = rules
        self._total_wei = ledger.total_wei()
        self._last_blocks: dict[JobId, int] = {}
        self._votes = Votes()

    def check_block(self, block: MinedBlock) -> None:
        """Check the newest block. Raises InvariantViolated."""
        state = self._ledger.state
        self._check_money(state)
        for recorded in block.events:
            match recorded.event:
                case RoundDecided() | FinalDecided() as decision:
                    self._check_decision(state, decision)
                case StakeSlashed() as slash:
                    self._check_slash(state, slash)
                case BidReclaimed() as bid if bid.forfeited_wei:
                    self._check_forfeit(state.jobs[bid.auction], bid)
                case TrainingEnded() as ended:
                    self._check_served(state.jobs[ended.job], ended)
                case EquivocationProved() as proof if proof.seller in self._rules.honest:
                    raise self._violation(
                        "it was proved to have signed twice", proof.job, proof.seller
                    )
        for job in state.jobs.values():
            self._votes.note(job)
            self._check_end(state, job)

    def check_payments(self) -> None:
        """Check that nothing honest nodes are owed is left. Raises InvariantViolated."""
        unpaid = find_unpaid(self._ledger.state, sorted(self._rules.honest))
        if unpaid is not None:
            account, key = unpaid
            raise self._violation(f"its money was never pulled: {key}", 0, account)

    def is_wrong(self, job: JobState, decided: DecidedBallot) -> bool:
        """Tell whether a decision is not what honest nodes compute from the agreed inputs."""
        decision = decided.decision
        known = KnownResult(
            job_id=job.job_id,
            round_index=RoundIndex(decision.round_index),
            is_final=isinstance(decision, FinalDecided),
            digest=decision.digest,
        )
        if known not in self._results.known:
            return True
        if isinstance(decision, FinalDecided):
            return False
        header = RoundHeader.decode(decision.header)
        return header.available != compute_agreed_inputs(
            self._ledger.domain, job, decided, header.sampled
        )

    def _check_money(self, state: MarketState) -> None:
        total = self._ledger.total_wei()
        if total != self._total_wei:
            raise self._violation(f"{total - self._total_wei:+d} wei came from nowhere", 0)
        for name, expected_wei in compute_holdings(state).items():
            held = self._ledger.balance(self._ledger.bindings.address_of(name))
            if held != expected_wei:
                raise self._violation(f"{name} holds {held} wei and owes {expected_wei}", 0)

    def _check_decision(self, state: MarketState, decision: RoundDecided | FinalDecided) -> None:
        job = state.jobs[decision.job]
        decided = next(
            (one for one in reversed(job.decided) if one.decision.digest == decision.digest), None
        )
        if decided is None or self._rules.is_wrong_tolerated:
            return  # another event of the same block took it back
        if self.is_wrong(job, decided):
            name = "final" if isinstance(decision, FinalDecided) else "round"
            raise self._violation(
                f"a wrong digest was decided for {name} {decision.round_index}, "
                f"with {decision.votes} votes",
                job.job_id,
            )

    def _check_slash(self, state: MarketState, slash: StakeSlashed) -> None:
        if slash.account not in self._rules.honest:
            return
        is_silent = slash.reason == NOT_OPENED
        if is_silent and self._is_excused_from_opening(state.jobs[slash.job], slash.account):
            return
        if self._rules.is_wrong_tolerated and not is_silent:
            return  # where liars are the majority, honest votes are the wrong ones
        reason = "it did not open its vote" if is_silent else "it voted for a rejected digest"
        raise self._violation(f"it is honest and was slashed: {reason}", slash.job, slash.account)

    def _is_excused_from_opening(self, job: JobState, account: Address) -> bool:
        index = job.cone_index(account)
        assert index is not None, "only members of the pool are slashed"
        return any(
            self._rules.is_excused(account, BlockNumber(blocks.start), BlockNumber(blocks.stop))
            for blocks in self._votes.find_unopened(job.job_id, index)
        )

    def _check_forfeit(self, job: JobState, bid: BidReclaimed) -> None:
        is_honest = bid.bidder in self._rules.honest
        if is_honest and not self._rules.is_excused(bid.bidder, job.opened_block, job.reveal_end):
            raise self._violation("it forfeited a bid that it could reveal", job.job_id, bid.bidder)

    def _check_served(self, job: JobState, ended: TrainingEnded) -> None:
        """Check that an honest buyer is not taken for one that kept its validation data back."""
        missed = find_missed_receipts(job, ended)
        if missed is None or job.buyer not in self._rules.honest:
            return
        if self._rules.has_turned(job.opened_block):
            return  # the draw of the samples may be another one than the buyer has served
        now = self._ledger.state.block_number
        able = [
            cone.account
            for cone in job.cones
            if cone.account in self._rules.honest
            and not self._rules.is_excused(cone.account, missed.since, now)
        ]
        is_buyer_excused = self._rules.is_excused(job.buyer, missed.since, now)
        if is_buyer_excused or 2 * len(able) <= len(job.cones):
            return
        raise self._violation(
            f"it served its validation data, and {missed.count} of {len(job.cones)} receipts were "
            f"recorded for part {missed.part}",
            job.job_id,
            job.buyer,
        )

    def _check_end(self, state: MarketState, job: JobState) -> None:
        if job.phase in OVER:
            return
        last_block = compute_last_block(job, state, self._ledger.params.seed_delay_blocks)
        # Terms fix it; before they are known it is the auction's end.
        last_block = max(last_block, self._last_blocks.get(job.job_id, 0))
        self._last_blocks[job.job_id] = last_block
        if state.block_number > last_block:
            raise self._violation(
                f"it should have ended by block {last_block}, and is in {job.phase.value}",
                job.job_id,
            )

    def _violation(self, what: str, job: int, account: Address | None = None) -> InvariantViolated:
        node = "-" if account is None else self._rules.names.get(account, account.hex())
        number = self._ledger.state.block_number
        return InvariantViolated(what, seed=self._rules.seed, block=number, job=job, node=node)


def compute_last_block(job: JobState, state: MarketState, seed_delay_blocks: int) -> int:
    """Compute by which block a job is over, whatever happens in it.

    Every round may take all its attempts, each attempt all its sets, and each decision may be
    checked and made again. Each step waits for the turns of all that could take it.
    """
    turns = len(state.peers) + SLACK_BLOCKS
    last_block = job.reveal_end + turns
    terms = job.terms
    if terms is None:
        return last_block
    gathering = terms.update_commit_blocks + terms.update_open_blocks + terms.availability_blocks
    ballot = compute_longest_ballot(terms, seed_delay_blocks) + terms.decision_blocks
    attempt = gathering + ballot + terms.appeal_blocks + 4 * seed_delay_blocks + turns
    attempts = MAX_ATTEMPTS * (terms.rounds_max + MAX_FINALS)
    preparation = terms.enrolment_blocks + terms.validation_blocks + 2 * turns
    return last_block + preparation + 2 * attempts * attempt + turns


@dataclass(frozen=True, slots=True, kw_only=True)
class MissedReceipts:
    """A part of the validation data that too few receipts were recorded for."""

    part: int
    count: int
    since: BlockNumber
    """When the part could first be asked for."""


def find_missed_receipts(job: JobState, ended: TrainingEnded) -> MissedReceipts | None:
    """Tell for which part of the buyer's data receipts were missing when a training ended."""
    terms = job.terms
    assert terms is not None, "a job that is trained has terms"
    if ended.outcome == Outcome.UNSERVED:
        part, since = SELECTION_PART, job.enrolment_end
    elif ended.outcome == Outcome.TARGET and not is_target_reached(job):
        last = job.decided[-1].decision.appeal_end if job.decided else job.enrolment_end
        part, since = FINAL_PART, BlockNumber(last - terms.appeal_blocks)
    else:
        return None
    return MissedReceipts(part=part, count=job.receipts.get(part, 0).bit_count(), since=since)


def is_target_reached(job: JobState) -> bool:
    """Tell whether the last decision is a final evaluation that found the target reached."""
    decision = job.decided[-1].decision if job.decided else None
    return (
        isinstance(decision, FinalDecided)
        and job.terms is not None
        and decision.utility >= job.terms.target
    )


MAX_ATTEMPTS: Final = 6
"""Of a round: the first and at most five retries (`protocol.params`)."""
MAX_FINALS: Final = 8


def compute_agreed_inputs(
    domain: Domain, job: JobState, decided: DecidedBallot, sampled: int
) -> int:
    """Compute which updates a round uses, from what was logged in time: the first validly signed
    bitmap of each node. Source: MECHANISM 6.
    """
    ballot, first = decided.ballot, dict[int, int]()
    for statement in ballot.bitmaps:
        if statement.cone_index in first or statement.cone_index >= len(job.cones):
            continue
        told = Availability(
            job=job.job_id,
            round_index=ballot.round_index,
            attempt=ballot.attempt,
            bitmap=statement.bitmap,
        )
        try:
            signer = recover_signer(told.digest(domain), expand(statement.r, statement.vs))
        except InvalidSignature:
            continue
        if signer == job.cones[statement.cone_index].account:
            first[statement.cone_index] = statement.bitmap
    return compute_input_set(list(first.values()), sampled, len(job.cones))


def find_unpaid(state: MarketState, accounts: Iterable[Address]) -> tuple[Address, str] | None:
    """Find an account that has money to pull, and the name of what it is; None if none has."""
    for account in accounts:
        for find in PULLED:
            found = find(state, account)
            if found is not None:
                return account, found.key
    return None
