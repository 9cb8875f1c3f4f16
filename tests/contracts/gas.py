"""What the market costs in gas: each call, rounds of several sizes, settlements, a whole job.

Run as a module in a process of its own; `scripts/gas` does. The numbers are exact: the same
contracts and the same inputs give the same gas everywhere.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boa
from boa.interpret import set_search_paths
from eth_utils.crypto import keccak

from protocol.merkle import compute_proof
from protocol.types import Digest
from tests.contracts import reference
from tests.contracts.blocks import header_of
from tests.contracts.metering import Meter
from tests.contracts.world import (
    ETHER,
    HONEST_TRACE,
    NAMES,
    NO_PERMIT,
    ONE_ETHER,
    SOURCES,
    Ballot,
    Job,
    World,
)

ROUNDS = 50
MIDDLE_ROUND = 25
SELLERS_PER_ROUND = 10
POOLS = (5, 10, 20, 40)
NOT_REACHED = 500_000
WRONG = Ballot(keccak(b"wrong"), keccak(b"wrong trace"))
GAS_PRICE_WEI = 10**10
"""More than nothing, so that refunds of batches are written down."""
MOST_CREDITED = 20
"""With more payees, each claims its share."""


def measure_all() -> dict[str, int]:
    """Gas by key, in the order of a job's life."""
    set_search_paths([str(SOURCES)])
    deployers = {name: boa.load_partial(str(SOURCES / f"{name}.vy")) for name in NAMES}
    boa.env._gas_price = GAS_PRICE_WEI
    meter = Meter()
    with meter.installed():
        for scenario in (_bids, _whole_job, _rounds, _appeals, _settlements):
            scenario(meter, deployers)
    return dict(sorted(meter.counted.items()))


def _world(deployers: Any, **changes: Any) -> World:
    boa.env.sstore_trace.clear()
    return World(deployers, **changes)


def _job(world: World, cones: int, sellers: int = 20, **changes: int) -> Job:
    """A job of 50 rounds whose first execution set is the whole pool."""
    job = Job(
        world,
        seller_count=sellers,
        cone_count=cones,
        price_wei=100 * ONE_ETHER,
        changes={
            "rounds_max": ROUNDS,
            "sellers_per_round": SELLERS_PER_ROUND,
            "lead": min(17, cones // 2 + 1),
            "first_set_size": cones,
            "sellers_min": SELLERS_PER_ROUND,
            "sellers_max": max(sellers, SELLERS_PER_ROUND),
            "seller_deposit_wei": 4 * ONE_ETHER,
            **changes,
        },
    )
    job.chains = [
        reference.ticket_chain(keccak(b"tip" + cone.raw), 2 * ROUNDS + 8) for cone in job.cones
    ]
    return job


def _bids(meter: Meter, deployers: Any) -> None:
    """An auction of each kind with two bidders."""
    for mode, kind in ((0, "sealed"), (1, "second_price")):
        world = _world(deployers)
        job = _job(world, cones=5).prepare()
        salt = keccak(b"salt")
        bidders = (world.buyer, world.other_buyer)
        commitments = [
            world.bid_commitment(1, bidder, job.price_wei, job.terms_list, salt)
            for bidder in bidders
        ]
        with meter.measure(f"open_auction_{kind}"):
            world.market.open_auction(
                1, _tags(world), mode, ETHER, 0, ONE_ETHER, 5, 5, commitments[0], job.price_wei,
                NO_PERMIT, value=job.price_wei, sender=world.buyer.address,
            )  # fmt: skip
        with meter.measure(f"commit_bid_{kind}"):
            world.market.commit_bid(
                1, commitments[1], job.price_wei, NO_PERMIT,
                value=job.price_wei, sender=world.other_buyer.address,
            )  # fmt: skip
        world.blocks.mine(6)
        for place, bidder in zip(("first", "second"), bidders, strict=True):
            with meter.measure(f"reveal_bid_{kind}_{place}"):
                world.market.reveal_bid(
                    1, job.price_wei, job.terms_list, keccak(b"request body"), salt,
                    sender=bidder.address,
                )  # fmt: skip
        world.blocks.mine(6)
        with meter.measure(f"close_auction_{kind}"):
            world.market.close_auction(1)
        with meter.measure(f"reclaim_bid_{kind}"):
            world.market.reclaim_bid(1, sender=world.other_buyer.address)
    _bids_in_the_clear(meter, deployers)


def _bids_in_the_clear(meter: Meter, deployers: Any) -> None:
    world = _world(deployers)
    job = _job(world, cones=5, seller_deposit_wei=5 * ONE_ETHER).prepare()
    body_hash = keccak(b"request body")
    with meter.measure("open_clear_auction"):
        world.market.open_clear_auction(
            1, _tags(world), ETHER, ONE_ETHER, 10, job.price_wei, job.terms_list, body_hash,
            NO_PERMIT, value=job.price_wei, sender=world.buyer.address,
        )  # fmt: skip
    raised = job.price_wei * 11 // 10
    with meter.measure("bid"):
        world.market.bid(
            1, raised, job.terms_list, body_hash, NO_PERMIT,
            value=raised, sender=world.other_buyer.address,
        )  # fmt: skip


def _tags(world: World) -> list[bytes]:
    return sorted([keccak(b"digits"), keccak(b"images")])


def _whole_job(meter: Meter, deployers: Any) -> None:
    """Every transaction of a job of 50 rounds with 20 nodes, 20 sellers and 20 votes in each round.

    The target is not reached, so a final evaluation follows the last round. Stakes and data sets
    are there before, as they serve many jobs; payees claim after it, each for itself.
    """
    world = _world(deployers)
    job = _job(world, cones=20)
    with meter.measure("deposit_stake"):
        world.stakes.deposit(value=job.terms["stake_wei"], sender=world.stranger.address)
    with meter.measure("register_dataset"):
        world.data.register_dataset(
            _tags(world), keccak(b"metadata"), 0, 0, sender=world.stranger.address
        )
    job.prepare()
    with meter.measure("job_50_rounds"):
        with meter.measure("job_auction"):
            job.open_auction().close_auction()
        _enrol(meter, job)
        with meter.measure("submit_receipts_20"):
            job.submit_receipts(0)
        with meter.measure("start_training"):
            job.start_training()
        for round_index in range(ROUNDS):
            with _named(meter, "round_20_votes", round_index == MIDDLE_ROUND):
                _round(meter, job, parts=round_index == MIDDLE_ROUND)
        with meter.measure("final_20_votes"):
            job.decide_final(NOT_REACHED)
        with meter.measure("settle_job_50_rounds"):
            job.settle()


def _enrol(meter: Meter, job: Job) -> None:
    for index in range(job.seller_count):
        with _named(meter, "enrol_seller", index == 1):
            job.enrol_seller(index)
    for index, (cone, chain) in enumerate(zip(job.cones, job.chains, strict=True)):
        with _named(meter, "enrol_cone", index == 1):
            job.world.enrolment.enrol_cone(
                job.number, job.terms_list, chain[0], sender=cone.address
            )
    with meter.measure(f"close_enrolment_{job.seller_count}_sellers_{job.cone_count}_cones"):
        job.close_enrolment()


@contextmanager
def _named(meter: Meter, name: str, is_wanted: bool) -> Iterator[None]:
    """Count under a name, or only under those around it."""
    if not is_wanted:
        yield
        return
    with meter.measure(name):
        yield


def _round(meter: Meter, job: Job, *, parts: bool = False, wrong: int = 0) -> None:
    """All transactions of a round: one batch of commitments, one of openings, the count.

    Bitmaps are put on record only in a round for which a node lacks an update.
    """
    count = job.cone_count
    header = job.round_header(NOT_REACHED)
    vote = Ballot(keccak(header), HONEST_TRACE)
    votes = {index: WRONG if index < wrong else vote for index in job.drawn()}
    sender = count - 1
    with _named(meter, f"submit_commits_{count}", parts):
        batch = job.commit(votes, sender=sender)
    with _named(meter, f"submit_openings_{count}", parts):
        job.open(votes, batch, sender=sender)
    job.world.blocks.mine_past(job.ballot.open_end)
    with _named(meter, f"tally_{count}", parts):
        job.tally([(0, one) for one in set(votes.values())], header)
    job.previous_digest = vote.digest
    job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]


def _log_bitmaps(job: Job) -> None:
    """What all nodes say they hold, with signatures as long as real ones."""
    signatures = [reference.sign_compact(cone.key, keccak(cone.raw)) for cone in job.cones]
    everybody, held = (1 << job.cone_count) - 1, (1 << SELLERS_PER_ROUND) - 1
    job.world.statements.log_bitmaps(
        job.number, job.ballot.ballot_number, [(everybody, held)], signatures
    )


def _rounds(meter: Meter, deployers: Any) -> None:
    """A round in mid-job, in pools of several sizes; all agree, or one in five does not."""
    for cones in POOLS:
        job = _job(_world(deployers), cones=cones).train()
        for _ in range(MIDDLE_ROUND):
            job.decide_round(NOT_REACHED)
        with meter.measure(f"log_bitmaps_{cones}"):
            _log_bitmaps(job)
        if cones != 20:
            with meter.measure(f"round_{cones}_votes"):
                _round(meter, job)
        else:
            _round(meter, job)
        with meter.measure(f"round_{cones}_votes_disputed"):
            _round(meter, job, wrong=cones // 5)


def _appeals(meter: Meter, deployers: Any) -> None:
    """Rounds decided by about 15 of 20 nodes; an appeal, then an audit calls the whole pool."""
    world = _world(deployers, audit_bps=10_000)
    job = _job(world, cones=20, first_set_size=15, lead=5).train()
    for reason in ("appeal", "audit"):
        parent, header, voted = job.course, job.round_header(NOT_REACHED), job.drawn()
        vote = Ballot(keccak(header), HONEST_TRACE)
        job.vote(dict.fromkeys(voted, vote))
        seed = header_of(job.ballot.open_end + world.params["seed_delay_blocks"])
        world.blocks.mine(1)
        job.tally([(0, vote)], header)
        with meter.measure(reason):
            _appeal(job, 20 - len(voted)) if reason == "appeal" else _audit(job, seed)
        with meter.measure(f"votes_after_{reason}"):
            job.vote(dict.fromkeys(job.drawn(), vote))
        with meter.measure(f"tally_pool_after_{reason}"):
            groups = [(m, vote.digest, vote.trace) for m in range(job.ballot.m + 1)]
            world.rounds.tally_pool(job.number, job.terms_list, job.course, parent, groups, b"")
        job.previous_digest = vote.digest
        job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]


def _appeal(job: Job, missing: int) -> None:
    appeals = job.world.appeals
    bond_wei = appeals.bond_of(job.number, job.terms_list, missing)
    appeals.appeal(
        job.number, job.terms_list, job.course, False, 0, NO_PERMIT,
        value=bond_wei, sender=job.cones[0].address,
    )  # fmt: skip


def _audit(job: Job, seed: bytes) -> None:
    job.world.rounds.audit(job.number, job.terms_list, job.course, seed)


def _settlements(meter: Meter, deployers: Any) -> None:
    """Jobs that were given up after a decided round: settled, then claimed by all or one by one."""
    for sellers, cones in ((10, 10), (20, 20), (200, 20)):
        job = _job(_world(deployers), cones=cones, sellers=sellers).train()
        job.decide_round(NOT_REACHED)
        with meter.measure("expire"):
            _expire(job)
        while job.outcome == 0:
            _expire(job)
        is_shared = sellers + cones > MOST_CREDITED
        with meter.measure(f"settlement_{sellers}_sellers"):
            job.settle()
        if is_shared:
            _claim_shares(meter, job)
        else:
            _claim(meter, job)


def _expire(job: Job) -> None:
    job.world.blocks.mine_past(job.ballot.open_end + job.terms["header_blocks"])
    job.world.rounds.expire(job.number, job.terms_list, job.course)


def _claim(meter: Meter, job: Job) -> None:
    world, payee = job.world, job.cones[0]
    with meter.measure("claim"):
        world.settlement.claim(ETHER, sender=payee.address)
    with meter.measure("release_stake"):
        world.stakes.release(job.number, payee.address)
    with meter.measure("request_unbond"):
        world.stakes.request_unbond(ONE_ETHER, sender=payee.address)
    world.blocks.mine(world.params["unbonding_blocks"] + 1)
    with meter.measure("withdraw_stake"):
        world.stakes.withdraw(sender=payee.address)
    with meter.measure("reclaim_deposit"):
        world.deposits.reclaim(job.number, sender=job.sellers[0].address)


def _claim_shares(meter: Meter, job: Job) -> None:
    credits = [(seller.raw, v) for seller, v in zip(job.sellers, job.credits, strict=True)]
    leaves = [Digest(leaf) for leaf in reference.credit_leaves(credits)]
    with meter.measure(f"claim_cone_share_of_{job.seller_count}_sellers"):
        job.world.settlement.claim_cone_share(job.number, 0)
    with meter.measure(f"claim_seller_share_of_{job.seller_count}_sellers"):
        job.world.settlement.claim_seller_share(
            job.number, 1, job.credits[1], compute_proof(leaves, 1)
        )


def main() -> None:
    """Write the report to standard output."""
    json.dump(measure_all(), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
