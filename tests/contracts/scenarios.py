"""Small scenarios that several test files start from."""

from collections.abc import Iterable
from typing import Any

from eth_utils.crypto import keccak

from tests.contracts import reference
from tests.contracts.blocks import header_of
from tests.contracts.world import ETHER, HONEST_TRACE, NO_PERMIT, Actor, Ballot, Job, World

REACHED = 996_147
"""A utility at the target of the test jobs."""

WRONG = Ballot(keccak(b"wrong"), keccak(b"wrong trace"))

Groups = Iterable[tuple[int, Ballot]]


def event(contract: Any, name: str) -> Any:
    """The only event of this name in the last call to a contract."""
    (found,) = [log for log in contract.get_logs() if type(log).__name__ == name]
    return found


def events(contract: Any) -> list[str]:
    """Names of the events of the last call to a contract, in order."""
    return [type(log).__name__ for log in contract.get_logs()]


def make_job(world: World, cones: int = 5, **changes: int) -> Job:
    """A job in its first round in which the first execution set is the whole pool."""
    return Job(world, cone_count=cones, changes={"first_set_size": cones, **changes}).train()


def honest(job: Job, **changes: Any) -> tuple[bytes, Ballot]:
    header = job.round_header(**changes)
    return header, Ballot(keccak(header), HONEST_TRACE)


def locked(job: Job, index: int) -> int:
    lock = job.world.stakes.lock_of(job.number, job.cones[index].address)
    return int(lock.remaining_wei)


def reward(job: Job, index: int) -> int:
    """What a node got of the slashes of others."""
    return int(job.world.stakes.holding_of(job.cones[index].address).reward_wei)


def advance(job: Job, digest: bytes) -> None:
    """Remember that an honest round was decided."""
    job.previous_digest = digest
    job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]


def decide_against(job: Job, hostile: int, silent: int) -> None:
    header, vote = honest(job)
    votes = {index: WRONG if index == hostile else vote for index in range(7)}
    job.vote(votes, silent=[silent])
    job.tally([(0, vote), (0, WRONG)], header)
    advance(job, vote.digest)


def reach(job: Job) -> Job:
    """Two rounds in a row at the target."""
    job.decide_round(REACHED)
    assert job.ballot.kind == 0
    job.decide_round(REACHED)
    return job


def split(job: Job) -> None:
    """A ballot of five with nodes 0 and 1 against 2 and 3: nobody leads."""
    _, vote = honest(job)
    job.vote({0: vote, 1: vote, 2: WRONG, 3: WRONG})
    job.tally([(0, vote), (0, WRONG)])


def expire(job: Job) -> None:
    """Wait until nobody may count the ballot any more, and void it."""
    job.world.blocks.mine_past(job.ballot.open_end + job.terms["header_blocks"])
    job.world.rounds.expire(
        job.number, job.terms_list, job.course, sender=job.world.stranger.address
    )


def execute_slashes(job: Job) -> None:
    job.world.rounds.execute_slashes(job.number, job.course, sender=job.world.stranger.address)


def hash_of(course: tuple[Any, ...]) -> bytes:
    return reference.course_hash(course)


def parent_of(job: Job) -> tuple[Any, ...]:
    """The course before the last decision."""
    wanted = job.course[1]
    return next(one for one in job.world.courses[job.number] if hash_of(one) == wanted)


def missing(job: Job) -> int:
    """Nodes of the pool that have not voted in the ballot that was counted last."""
    decided = job.course[8]
    opened = int(job.world.ballots.marks(job.number, decided).opened)
    return job.cone_count - opened.bit_count()


def bond(job: Job) -> int:
    return int(job.world.appeals.bond_of(job.number, job.terms_list, missing(job)))


def appeal(job: Job, index: int = 0, *, is_seller: bool = False, **changes: Any) -> int:
    """Appeal against the last decision; returns the bond."""
    appellant = (job.sellers if is_seller else job.cones)[index]
    bond_wei = bond(job)
    options = {"value": bond_wei, "sender": appellant.address, **changes}
    job.world.appeals.appeal(
        job.number, job.terms_list, job.course, is_seller, index, NO_PERMIT, **options
    )
    return bond_wei


def audit(job: Job) -> None:
    """Ask whether chance calls the pool to the last decision."""
    open_end = job.course[8] >> 200
    number = open_end + job.world.params["seed_delay_blocks"]
    job.world.blocks.mine_past(number)
    job.world.rounds.audit(
        job.number, job.terms_list, job.course, header_of(number),
        sender=job.world.stranger.address,
    )  # fmt: skip


def tally_pool(job: Job, groups: Groups, header: bytes = b"", /, **changes: Any) -> None:
    """Count the votes of the whole pool."""
    brought = {
        "job": job.number,
        "terms": job.terms_list,
        "course": job.course,
        "parent": changes["parent"] if "parent" in changes else parent_of(job),
        "groups": sorted({(m, vote.digest, vote.trace) for m, vote in groups}),
        "header": header,
        **changes,
    }
    job.world.rounds.tally_pool(*brought.values(), sender=job.world.stranger.address)


def withdraw(world: World, account: Actor, currency: str) -> int:
    """Take an account's bonds and rewards out; returns what it got."""
    amount_wei = int(world.appeals.withdrawable(currency, account.address))
    world.appeals.withdraw(currency, sender=account.address)
    return amount_wei


def hostile(job: Job) -> bytes:
    """A header of the current round that is well-formed and wrong."""
    return job.round_header(utility_after=1, model_digest=keccak(b"hostile model"))


def decide_by(job: Job, nodes: Iterable[int], header: bytes) -> Ballot:
    """Let only some nodes vote, and count: enough of them decide."""
    vote = Ballot(keccak(header), HONEST_TRACE)
    job.vote(dict.fromkeys(nodes, vote))
    job.tally([(0, vote)], header)
    return vote


def vote_wei(job: Job) -> int:
    """MECHANISM 9.4: a round's share of the CONE nodes' pool by the first execution set."""
    terms = job.terms
    pool_wei = job.price_wei * job.world.params["cone_bps"] // 10_000
    return pool_wei // (terms["rounds_max"] * min(terms["first_set_size"], terms["cones_max"]))


def held(job: Job) -> int:
    """What the appeals owe: the open bond and what accounts can withdraw."""
    world = job.world
    accounts = [actor.address for actor in (*job.cones, *job.sellers, world.stranger)]
    owed = sum(int(world.appeals.withdrawable(ETHER, account)) for account in accounts)
    return owed + int(world.appeals.appeal_of(job.number).bond_wei)


def contested(world: World, cones: int = 7, **changes: int) -> tuple[Job, Ballot, Ballot]:
    """A first round that nodes 0 to 2 decided wrongly; the others were silent.

    Returns the job, the vote that would have been right, and the one that was decided.
    """
    job = make_job(world, cones, **changes)
    _, vote = honest(job)
    lie = decide_by(job, range(3), hostile(job))
    return job, vote, lie


def upright(world: World, cones: int = 7, **changes: int) -> tuple[Job, bytes, Ballot]:
    """A first round that nodes 0 to 2 decided well; the others were silent."""
    job = make_job(world, cones, **changes)
    header, vote = honest(job)
    decide_by(job, range(3), header)
    return job, header, vote
