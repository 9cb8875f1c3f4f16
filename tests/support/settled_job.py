"""A settled job whose payments were computed by hand."""

from collections.abc import Sequence

from protocol.bitmap import encode_bitmap
from protocol.consensus import OpenedVote
from protocol.digest import FinalResult, RoundHeader, add_credits, compute_credit_root
from protocol.events import JobSettled, PayoutCredited, TrainingEnded
from protocol.hashing import Domain, keccak
from protocol.payment_audit import CountedBallot, PayeeRole, SettledJob
from protocol.settlement import Outcome
from protocol.sortition import BallotKind
from protocol.types import (
    NO_DIGEST,
    Address,
    BlockNumber,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)

DOMAIN = Domain(1337, Address(b"\x11" * 20))
JOB = JobId(7)
CONES = tuple(Address(bytes([0xC0 + index]) * 20) for index in range(5))
SELLERS = tuple(Address(bytes([0x50 + index]) * 20) for index in range(4))
BUYER = Address(b"\xbb" * 20)
PRICE = Wei(10_007)
TARGET = UtilityQ20(1_000_000)
TRACE, COPIED = keccak(b"trace"), keccak(b"copied")
MODEL = keccak(b"model")


def pay(role: int, index: int, payee: Address, weight: int, amount: int) -> PayoutCredited:
    return PayoutCredited(
        job=JOB, payee=payee, role=role, index=index, weight=weight, amount_wei=Wei(amount)
    )


SETTLED = JobSettled(
    job=JOB,
    buyer=BUYER,
    price_wei=PRICE,
    cone_pool_wei=Wei(1501),
    seller_pool_wei=Wei(3502),
    refund_wei=Wei(10_007 - 1499 - 3501),
    rounds_done=2,
    initial_utility=100_000,
    last_utility=550_000,
    model_digest=MODEL,
)

PAYOUTS = (
    # 3002 // 2 = 1501 wei for eleven votes: 3, 3, 3 and 2.
    *(pay(PayeeRole.CONE, index, CONES[index], 3, 409) for index in range(3)),
    pay(PayeeRole.CONE, 3, CONES[3], 2, 272),
    # 7005 half of the way: 3502 for 2, 1, 1.
    pay(PayeeRole.SELLER, 0, SELLERS[0], 2, 1751),
    pay(PayeeRole.SELLER, 1, SELLERS[1], 1, 875),
    pay(PayeeRole.SELLER, 2, SELLERS[2], 1, 875),
    pay(PayeeRole.BUYER, 0, BUYER, 0, 10_007 - 1499 - 3501),
)


def make_header(
    index: int, accepted: Sequence[int], credits: tuple[int, ...], previous: Digest
) -> RoundHeader:
    return RoundHeader(
        job=JOB,
        round_index=RoundIndex(index),
        model_digest=MODEL,
        sampler_digest=keccak(b"sampler"),
        sampled=0b1111,
        available=0b1111,
        accepted=encode_bitmap(accepted),
        utility_before=UtilityQ20(100_000),
        utility_after=UtilityQ20(400_000),
        utilities=(UtilityQ20(1),) * 4,
        domain=DOMAIN,
        previous_digest=previous,
        credit_root=compute_credit_root(SELLERS, credits),
        credit_sum=sum(credits),
    )


def vote(node: int, digest: Digest, trace: Digest = TRACE) -> OpenedVote:
    return OpenedVote(node_index=node, mini_round_index=0, digest=digest, trace=trace)


def make_settled_job() -> SettledJob:
    """Two of four rounds and a final half of the way: by hand, half of every pool is paid."""
    ballots, credits, previous = [], (0,) * 4, NO_DIGEST
    # Node 4 votes for something else; node 3 copies the digest in round 0.
    for index, (accepted, honest) in enumerate([([0, 1], 3), ([0, 2], 4)]):
        credits = add_credits(credits, encode_bitmap(accepted))
        header = make_header(index, accepted, credits, previous).encode()
        previous = keccak(header)
        votes = [vote(node, previous) for node in range(honest)]
        votes += [vote(node, previous, COPIED) for node in range(honest, 4)]
        votes.append(vote(4, keccak(b"wrong")))
        ballots.append(
            CountedBallot(
                kind=BallotKind.ROUND,
                round_index=index,
                digest=previous,
                voters=encode_bitmap(range(honest)),
                openings=tuple(votes),
                header=header,
                initial_utility=UtilityQ20(0),
                utility=UtilityQ20(0),
            )
        )
    ballots.append(make_final(UtilityQ20(550_000)))
    ended = TrainingEnded(
        job=JOB,
        outcome=Outcome.ENDED,
        rounds_done=2,
        initial_utility=100_000,
        last_utility=550_000,
        model_digest=MODEL,
        credit_root=compute_credit_root(SELLERS, credits),
        credit_sum=4,
        final_block=BlockNumber(100),
    )
    return SettledJob(
        cone_bps=3000,
        floor_bps=5000,
        rounds_max=4,
        sellers_per_round=4,
        target=TARGET,
        lead=3,
        price_wei=PRICE,
        buyer=BUYER,
        sellers=SELLERS,
        cones=CONES,
        final_receipts=0b11111,
        ballots=tuple(ballots),
        ended=ended,
        settled=SETTLED,
        payouts=PAYOUTS,
    )


def make_final(utility: UtilityQ20) -> CountedBallot:
    result = FinalResult(
        domain=DOMAIN,
        job=JOB,
        round_index=RoundIndex(1),
        model_digest=MODEL,
        initial_utility=UtilityQ20(100_000),
        utility=utility,
    )
    return CountedBallot(
        kind=BallotKind.FINAL,
        round_index=1,
        digest=result.digest,
        voters=0b1111,
        openings=tuple(vote(node, result.digest) for node in range(4)),
        header=b"",
        initial_utility=UtilityQ20(100_000),
        utility=utility,
    )
