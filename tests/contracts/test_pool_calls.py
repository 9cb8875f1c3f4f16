"""Rounds: what becomes of a decision that the whole pool checks."""

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.scenarios import (
    REACHED,
    WRONG,
    advance,
    appeal,
    contested,
    decide_by,
    event,
    execute_slashes,
    expire,
    hash_of,
    held,
    honest,
    hostile,
    locked,
    make_job,
    parent_of,
    reach,
    reward,
    tally_pool,
    upright,
    withdraw,
)
from tests.contracts.world import (
    ETHER,
    HONEST_TRACE,
    NO_DATA,
    ONE_ETHER,
    Ballot,
    Job,
    World,
)

STAKE = 4 * ONE_ETHER
SLASH = STAKE // 2


def test_an_upheld_decision_shares_the_bond_among_those_it_called(world: World) -> None:
    job, _, vote = upright(world)
    participation = list(job.result.participation)
    assert participation == [1, 1, 1, 0, 0, 0, 0]
    bond_wei = appeal(job, 6)
    job.vote({3: vote, 4: vote, 5: WRONG})
    burned_wei = world.burned_wei
    tally_pool(job, [(0, vote), (1, vote), (1, WRONG)])

    upheld = event(world.rounds, "DecisionUpheld")
    assert (upheld.ballot_number, upheld.digest) == (1, vote.digest)
    assert (upheld.votes, upheld.voters) == (5, 0b111)
    assert (upheld.wrong, upheld.unopened) == (0b100000, 0)
    resolved = event(world.rounds, "AppealResolved")
    assert (resolved.is_overturned, resolved.bond_wei) == (False, bond_wei)
    each = bond_wei // 3
    assert (resolved.reward_each_wei, resolved.burned_wei) == (each, bond_wei - 3 * each)
    called = [job.cones[i].address for i in (3, 4, 5)]
    assert resolved.beneficiaries == called
    assert [world.appeals.withdrawable(ETHER, one) for one in called] == [each] * 3
    assert world.burned_wei - burned_wei == bond_wei - 3 * each
    assert world.balance(world.appeals.address) == held(job)
    # The bond pays those who were called: who copies the digest then has no pay of the round.
    assert job.result.participation == participation


def test_an_upheld_decision_slashes_whoever_was_called_and_wrong(world: World) -> None:
    job, _, vote = upright(world)
    appeal(job, 6)
    votes = {3: vote, 4: WRONG, 5: vote}
    job.vote(votes, silent=[5])
    tally_pool(job, [(0, vote), (1, vote), (1, WRONG)])
    assert event(world.rounds, "DecisionUpheld").unopened == 0b100000
    assert [locked(job, i) for i in range(7)] == [STAKE] * 7
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)
    world.blocks.mine()
    execute_slashes(job)
    assert [locked(job, i) for i in range(7)] == [*[STAKE] * 4, SLASH, SLASH, STAKE]
    assert [reward(job, i) for i in range(7)] == [SLASH // 2 * 2 // 3] * 3 + [0] * 4


def test_after_an_upheld_decision_the_next_ballot_is_opened_again(world: World) -> None:
    job, _, vote = upright(world)
    before = job.ballot
    appeal(job, 6)
    open_end = job.ballot.open_end
    job.vote({3: vote})
    tally_pool(job, [(0, vote), (1, vote)])
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.ballot_number, opened.kind, opened.round_index, opened.attempt) == (2, 0, 1, 0)
    assert (before.ballot_number, before.kind, before.round_index) == (2, 0, 1)
    # Nothing can be appealed any more, so there is no window to wait for.
    assert opened.seller_seed_block == open_end + job.terms["decision_blocks"] + 1
    assert (job.ballot.committed, job.ballot.opened, job.ballot.group_count) == (0, 0, 0)
    with boa.reverts("rounds: no decision to check"):
        appeal(job, 0, value=0)
    advance(job, vote.digest)
    job.decide_round()
    assert job.result.rounds_done == 2


def test_a_final_evaluation_that_waited_is_opened_again(world: World) -> None:
    job = make_job(world, 7)
    job.decide_round(REACHED)
    header, vote = honest(job, utility_after=REACHED)
    decide_by(job, range(3), header)
    assert (job.ballot.kind, job.ballot.ballot_number) == (1, 3)
    job.submit_receipts(1, [0, 1])
    appeal(job, 6)
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(1, [2, 3, 4])
    job.vote({3: vote})
    tally_pool(job, [(0, vote), (1, vote)])
    ballot = job.ballot
    assert (ballot.kind, ballot.ballot_number, ballot.round_index) == (1, 3, 1)
    assert ballot.availability_end >= world.blocks.number + job.terms["validation_blocks"]
    job.submit_receipts(1, [2, 3])
    job.decide(job.final_vote(REACHED))
    assert job.outcome == 1


def test_an_overturned_decision_gives_the_bond_back(world: World) -> None:
    job, vote, lie = contested(world)
    bond_wei = appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    burned_wei = world.burned_wei
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())

    overturned = event(world.rounds, "DecisionOverturned")
    assert (overturned.ballot_number, overturned.digest) == (1, lie.digest)
    decided = event(world.rounds, "RoundDecided")
    assert (decided.digest, decided.ballot_number, decided.votes) == (vote.digest, 1, 4)
    assert (decided.voters, decided.wrong) == (0b1111000, 0b111)
    assert decided.appeal_end == world.blocks.number
    resolved = event(world.rounds, "AppealResolved")
    assert (resolved.is_overturned, resolved.bond_wei) == (True, bond_wei)
    assert (resolved.reward_each_wei, resolved.burned_wei) == (0, 0)
    assert resolved.beneficiaries == []
    assert world.burned_wei == burned_wei
    assert world.balance(world.appeals.address) == held(job) == bond_wei

    before = world.balance(job.cones[6].address)
    assert withdraw(world, job.cones[6], ETHER) == bond_wei
    assert world.balance(job.cones[6].address) - before == bond_wei
    with boa.reverts("appeals: nothing to withdraw"):
        withdraw(world, job.cones[6], ETHER)
    withdrawn = event(world.appeals, "BondWithdrawn")
    assert (withdrawn.account, withdrawn.amount_wei) == (job.cones[6].address, bond_wei)


def test_an_overturned_decision_leaves_nothing_of_itself(world: World) -> None:
    job = make_job(world, 7)
    job.decide_round(400_000)
    header, vote = honest(job, utility_after=450_000)
    lie = decide_by(job, range(3), hostile(job))
    assert job.result.last_utility == 1
    assert job.result.participation == [2, 2, 2, 1, 1, 1, 1]
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], header)
    result = job.result
    assert (result.rounds_done, result.last_utility) == (2, 450_000)
    assert result.model_digest == job.model_digest(1)
    assert result.participation == [1, 1, 1, 2, 2, 2, 2]
    advance(job, vote.digest)
    # The headers are one chain: the next round goes on from the digest that stands.
    assert (job.ballot.round_index, job.ballot.ballot_number) == (2, 3)
    job.decide_round(500_000)
    assert job.result.rounds_done == 3
    assert job.result.credit_sum == sum(job.credits)


def test_an_overturned_decision_slashes_those_who_made_it(world: World) -> None:
    job, vote, lie = contested(world)
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())
    world.blocks.mine()
    execute_slashes(job)
    assert [locked(job, i) for i in range(7)] == [SLASH] * 3 + [STAKE] * 4
    assert [reward(job, i) for i in range(7)] == [0] * 3 + [3 * SLASH // 2 // 4] * 4
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)


def test_nobody_is_slashed_while_the_pool_is_called(world: World) -> None:
    job = make_job(world, 7)
    header, vote = honest(job)
    job.vote({**dict.fromkeys(range(4), vote), 4: WRONG})
    job.tally([(0, vote), (0, WRONG)], header)
    appeal(job, 6)
    while world.blocks.number <= job.ballot.open_end + job.terms["header_blocks"]:
        with boa.reverts("rounds: nobody to slash"):
            execute_slashes(job)
        world.blocks.mine()
    assert locked(job, 4) == STAKE
    expire(job)
    world.blocks.mine()
    execute_slashes(job)
    assert locked(job, 4) == SLASH


def test_a_decision_falls_by_an_absolute_majority_only(world: World) -> None:
    job, vote, lie = contested(world, 8)
    bond_wei = appeal(job, 7)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())
    # Four of eight lead by one, and that is not enough.
    upheld = event(world.rounds, "DecisionUpheld")
    assert (upheld.digest, upheld.votes, upheld.wrong) == (lie.digest, 3, 0)
    assert not event(world.rounds, "AppealResolved").is_overturned
    assert world.appeals.withdrawable(ETHER, job.cones[7].address) == 0
    assert world.appeals.withdrawable(ETHER, job.cones[3].address) == bond_wei // 4
    # The decision stands, but more voted otherwise: nobody can call them wrong.
    world.blocks.mine()
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)
    assert [locked(job, i) for i in range(8)] == [STAKE] * 8


def test_votes_without_data_do_not_overturn(world: World) -> None:
    job, _, vote = upright(world)
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), NO_DATA))
    tally_pool(job, [(0, vote), (1, NO_DATA)])
    upheld = event(world.rounds, "DecisionUpheld")
    assert (upheld.votes, upheld.wrong) == (3, 0)
    assert len(event(world.rounds, "AppealResolved").beneficiaries) == 4


def test_another_digest_needs_its_header(world: World) -> None:
    job, vote, lie = contested(world)
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    with boa.reverts("rounds: header does not open the digest"):
        tally_pool(job, [(0, lie), (1, vote)], b"")
    expire(job)
    assert event(world.rounds, "DecisionUpheld").digest == lie.digest


def test_an_appeal_that_nobody_counts_ends_by_itself(world: World) -> None:
    job, _, lie = contested(world)
    participation = list(job.result.participation)
    bond_wei = appeal(job, 6)
    deadline = job.ballot.open_end + job.terms["header_blocks"]
    world.blocks.mine_to(deadline)
    with boa.reverts("rounds: header deadline not passed"):
        world.rounds.expire(1, job.terms_list, job.course)
    burned_wei = world.burned_wei
    expire(job)
    upheld = event(world.rounds, "DecisionUpheld")
    assert (upheld.digest, upheld.votes, upheld.voters) == (lie.digest, 0, 0)
    resolved = event(world.rounds, "AppealResolved")
    assert (resolved.is_overturned, resolved.burned_wei) == (False, bond_wei)
    assert world.burned_wei - burned_wei == bond_wei
    assert world.balance(world.appeals.address) == 0
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.ballot_number, opened.round_index) == (2, 1)
    assert opened.seller_seed_block == deadline + 1
    assert job.result.participation == participation


def test_a_pool_is_counted_with_the_course_before_the_decision(world: World) -> None:
    job, vote, lie = contested(world)
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    groups, header = [(0, lie), (1, vote)], job.round_header()
    for parent in (job.course, world.courses[1][0], (bytes(32), *parent_of(job)[1:])):
        with boa.reverts("rounds: wrong parent"):
            tally_pool(job, groups, header, parent=parent)
    with boa.reverts("rounds: wrong course"):
        tally_pool(job, groups, header, course=parent_of(job))
    with boa.reverts("rounds: wrong terms"):
        tally_pool(job, groups, header, terms=(7, *job.terms_list[1:]))
    with boa.reverts("rounds: wrong course"):
        tally_pool(job, groups, header, job=2)
    called = job.course
    tally_pool(job, groups, header)
    with boa.reverts("rounds: wrong course"):
        tally_pool(job, groups, header, course=called, parent=parent_of_called(job, called))


def parent_of_called(job: Job, course: tuple[object, ...]) -> tuple[object, ...]:
    """The parent that went with an earlier course."""
    return next(one for one in job.world.courses[job.number] if hash_of(one) == course[1])


def test_a_called_pool_and_another_ballot_are_counted_by_their_own_calls(world: World) -> None:
    job, vote, lie = contested(world)
    with boa.reverts("rounds: openings still open"):
        tally_pool(job, [], parent=job.course)
    appeal(job, 6)
    with boa.reverts("rounds: openings still open"):
        tally_pool(job, [(0, lie)])
    job.vote(dict.fromkeys(range(3, 7), vote))
    with boa.reverts("rounds: the pool is called"):
        job.tally([(0, lie), (1, vote)], job.round_header())
    with boa.reverts("ballots: votes missing"):
        tally_pool(job, [(1, vote)], job.round_header())
    with boa.reverts("ballots: votes missing"):
        tally_pool(job, [(0, lie)])
    world.blocks.mine_past(job.ballot.open_end + job.terms["header_blocks"])
    with boa.reverts("rounds: header deadline passed"):
        tally_pool(job, [(0, lie), (1, vote)], job.round_header())


def test_a_pool_that_was_not_called_is_not_counted_as_one(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.vote(dict.fromkeys(range(5), vote))
    with boa.reverts("rounds: the pool is not called"):
        tally_pool(job, [(0, vote)], parent=job.course)


def test_nobody_votes_twice_across_a_pool_call(world: World) -> None:
    job, vote, _ = contested(world)
    appeal(job, 6)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        job.commit(dict.fromkeys(range(3), vote))
    batch = job.commit(dict.fromkeys(range(7), vote))
    assert batch == [3, 4, 5, 6]
    job.open(dict.fromkeys(range(7), vote), batch)
    assert job.ballot.opened == 0b1111111


def test_who_committed_and_did_not_open_does_not_vote_in_a_pool_call(world: World) -> None:
    job = make_job(world, 7)
    header, vote = honest(job)
    job.vote(dict.fromkeys(range(5), vote), silent=[4])
    job.tally([(0, vote)], header)
    appeal(job, 6)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        job.commit({4: vote})
    world.blocks.mine_past(job.ballot.commit_end)
    # Nor does it open what it had committed to: that batch is of an earlier mini-round.
    with boa.reverts("ballots: no such batch"):
        job.open(dict.fromkeys(range(5), vote), [0, 1, 2, 3, 4])


def test_commitments_of_the_decision_are_not_those_of_the_call(world: World) -> None:
    job = make_job(world, 7)
    header, vote = honest(job)
    early = [job.signed_commit(i, vote) for i in range(3, 7)]
    decide_by(job, range(3), header)
    appeal(job, 6)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, 0, 0b1111000, early)


def test_an_audit_or_appeal_against_a_final_that_ended_the_job_reopens_it(world: World) -> None:
    job = reach(make_job(world, 7))
    job.submit_receipts(1)
    lie = decide_by(job, range(3), job.final_vote(REACHED))
    assert job.outcome == 1
    assert event(world.rounds, "TrainingEnded").final_block == world.blocks.number + 2
    assert job.ballot.ballot_number == 0
    bond_wei = appeal(job, 6)
    ballot = job.ballot
    assert (ballot.kind, ballot.ballot_number, ballot.m) == (1, 3, 1)
    header = job.final_vote(REACHED - 1)
    vote = Ballot(keccak(header), HONEST_TRACE)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], header)
    assert event(world.rounds, "AppealResolved").is_overturned
    assert job.outcome == 0
    assert (job.ballot.kind, job.ballot.round_index, job.ballot.ballot_number) == (0, 2, 4)
    assert job.result.last_utility == REACHED - 1
    assert withdraw(world, job.cones[6], ETHER) == bond_wei
    job.decide_round(500_000)
    assert job.result.rounds_done == 3


def test_a_final_that_is_overturned_may_end_the_job(world: World) -> None:
    job = reach(make_job(world, 7))
    job.submit_receipts(1)
    lie = decide_by(job, range(3), job.final_vote(0))
    assert job.ballot.kind == 0
    appeal(job, 6)
    header = job.final_vote(REACHED)
    vote = Ballot(keccak(header), HONEST_TRACE)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], header)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.last_utility) == (1, REACHED)
    # The whole pool has spoken: the settlement need not wait.
    assert ended.final_block == world.blocks.number
    job.settle()
    assert [locked(job, i) for i in range(7)] == [SLASH] * 3 + [STAKE] * 4


def test_the_settlement_waits_for_an_open_appeal(world: World) -> None:
    job = reach(make_job(world, 7))
    job.submit_receipts(1)
    vote = decide_by(job, range(3), job.final_vote(REACHED))
    with boa.reverts("rounds: appeal window open"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)
    world.blocks.mine_to(job.result.final_block)
    appeal(job, 6)
    for end in (job.ballot.seed_block, job.ballot.commit_end, job.ballot.open_end):
        with boa.reverts("rounds: the pool is called"):
            world.settlement.settle(1, job.terms_list, job.course, job.leaves)
        if end == job.ballot.commit_end:
            job.open({3: vote}, job.commit({3: vote}))
        world.blocks.mine_past(end)
    with boa.reverts("rounds: the pool is called"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)
    tally_pool(job, [(0, vote), (1, vote)])
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.final_block) == (1, world.blocks.number)
    assert job.result.participation == [3, 3, 3, 2, 2, 2, 2]
    with boa.reverts("rounds: appeal window open"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)
    job.settle()
    assert world.market.is_closed(1)
    assert world.balance(world.appeals.address) == held(job)
    with boa.reverts("rounds: wrong course"):
        world.settlement.settle(2, job.terms_list, job.course, job.leaves)


def test_a_job_that_ended_ends_again_when_nobody_counts_the_pool(world: World) -> None:
    job = reach(make_job(world, 7))
    job.submit_receipts(1)
    decide_by(job, range(3), job.final_vote(REACHED))
    appeal(job, 6)
    expire(job)
    assert (job.outcome, job.ballot.ballot_number) == (1, 0)
    job.settle()
    assert world.market.is_closed(1)


def test_a_job_that_ended_without_a_decision_has_nothing_to_appeal(world: World) -> None:
    job = make_job(world, rounds_max=1)
    expire(job)
    assert job.outcome == 2
    with boa.reverts("rounds: no decision to check"):
        appeal(job, 0, value=0)


def test_a_settled_job_has_no_course(world: World) -> None:
    job = reach(make_job(world, 7))
    job.submit_receipts(1)
    decide_by(job, range(3), job.final_vote(REACHED))
    last = job.course
    job.settle()
    assert world.rounds.course_hash(1) == bytes(32)
    for course in (last, job.course, world.courses[1][0]):
        with boa.reverts("rounds: wrong course"):
            world.rounds.execute_slashes(1, course)
        with boa.reverts("rounds: wrong course"):
            world.rounds.expire(1, job.terms_list, course)


def test_a_wrong_decision_costs_its_voters_once(world: World) -> None:
    # Slashes of the round before are carried out by the count that decides, and must not be
    # carried out again when that decision falls and the course goes on from before it.
    job = make_job(world, 7)
    header, vote = honest(job)
    job.vote({**dict.fromkeys(range(4), vote), 5: WRONG})
    job.tally([(0, vote), (0, WRONG)], header)
    advance(job, vote.digest)
    honest_header, right = honest(job)
    lie = decide_by(job, range(3), hostile(job))
    assert locked(job, 5) == SLASH
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), right))
    tally_pool(job, [(0, lie), (1, right)], honest_header)
    world.blocks.mine()
    execute_slashes(job)
    assert [locked(job, i) for i in range(7)] == [*[SLASH] * 3, STAKE, STAKE, SLASH, STAKE]
    advance(job, right.digest)
    job.decide_round()
    assert locked(job, 5) == SLASH


@pytest.mark.parametrize("is_lie_at_target", [False, True])
def test_what_a_fallen_decision_had_opened_is_replaced(
    world: World, is_lie_at_target: bool
) -> None:
    job = make_job(world, 7)
    job.decide_round(REACHED)
    utilities = (1, REACHED) if is_lie_at_target else (REACHED, 1)
    header, vote = honest(job, utility_after=utilities[0])
    lie = decide_by(job, range(3), job.round_header(utilities[1], model_digest=bytes(32)))
    # A second round at the target opens a final evaluation.
    assert job.ballot.kind == int(is_lie_at_target)
    appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], header)
    ballot = job.ballot
    assert (ballot.kind, ballot.ballot_number) == (int(not is_lie_at_target), 3)
    assert ballot.round_index == (2 if is_lie_at_target else 1)
    assert (ballot.attempt, ballot.m, ballot.committed, ballot.is_pool_called) == (0, 0, 0, False)


def test_a_retry_that_is_decided_can_be_checked(world: World) -> None:
    job = make_job(world, 7)
    job.vote({})
    job.tally([])
    header, vote = honest(job)
    lie = decide_by(job, range(3), hostile(job))
    appeal(job, 6)
    assert event(world.appeals, "PoolCalled").mini == (1 << 16) | 1
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], header)
    assert event(world.rounds, "RoundDecided").ballot_number == 2
    assert job.ballot.ballot_number == 3


def test_a_bystander_cannot_change_who_is_slashed_by_executing_early(world: World) -> None:
    # A decision, its slashes, and the next count: whoever calls when, each is slashed once.
    job = make_job(world, 7)
    header, vote = honest(job)
    job.vote({**dict.fromkeys(range(4), vote), 5: WRONG})
    job.tally([(0, vote), (0, WRONG)], header)
    advance(job, vote.digest)
    world.blocks.mine(3)
    stale = job.course
    execute_slashes(job)
    with boa.reverts("rounds: wrong course"):
        world.rounds.execute_slashes(1, stale)
    with boa.reverts("rounds: no decision to check"):
        appeal(job, 6, value=0)
    job.decide_round()
    assert locked(job, 5) == SLASH


def test_who_was_drawn_early_and_silent_votes_in_a_pool_call(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 4, "lead": 1}).train()
    header = job.round_header()
    vote = Ballot(keccak(header), HONEST_TRACE)
    silent = job.drawn()
    assert len(silent) > 0, "another seed is needed for this test"
    job.vote({})
    job.tally([])
    late = job.drawn()[:1]
    assert len(late) == 1, "another seed is needed for this test"
    job.vote(dict.fromkeys(late, vote))
    job.tally([(1, vote)], header)
    assert event(world.rounds, "RoundDecided").votes == 1
    appeal(job, silent[0])
    votes = dict.fromkeys(silent, vote)
    job.open(votes, job.commit(votes))
    assert job.ballot.opened == sum(1 << index for index in (*silent, *late))
