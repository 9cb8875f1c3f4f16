"""CONE nodes and sellers when the whole pool is called to a decision, and after it has answered."""

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
import trio

from d2m_node.calls import AppealDecision, ExpireBallot, SubmitCommits, TallyPool
from d2m_node.roles.records import (
    DECISION_KIND,
    KIND,
    BallotRecord,
    latest_records,
    record_key,
)
from d2m_node.roles.statements import vote_step
from protocol.bitmap import decode_bitmap
from protocol.consensus import OpenedVote, find_majority, tally
from protocol.course import Course
from protocol.digest import RoundHeader
from protocol.events import (
    AttemptOpened,
    CourseChanged,
    DecisionOverturned,
    DecisionUpheld,
    RoundDecided,
)
from protocol.hashing import keccak
from protocol.round import BallotResult
from protocol.sortition import BallotKind
from protocol.types import NO_DIGEST, BlockNumber
from protocol.update import TensorKind, encode_tensor
from protocol.wire import messages as wire
from tests.support.check_events import events_of_call
from tests.support.decided import BEFORE, decide_first_round, find_randomness, open_second_round
from tests.support.job import CONES, JOB, OPENED
from tests.support.training import SET_SIZES, SMALL_SETS, Training

DECIDED = OPENED.open_end + 1
APPEAL_END = DECIDED + 4
EVERYBODY = frozenset(range(CONES))


async def decide(nursery: trio.Nursery, *, is_first_set_hostile: bool = False) -> Training:
    """Let the first execution set decide the first round by what it votes for."""
    training = Training(nursery)
    market = training.cast.market
    market.randomness[DECIDED] = find_randomness(False)
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    await training.start(is_first_set_hostile=is_first_set_hostile)
    await market.mine_to(DECIDED)
    assert training.ballot.opened == training.drawn
    accepted = decided_by(training)
    decide_first_round(
        training.cast, accepted.digest, appeal_end=APPEAL_END, header=accepted.opening
    )
    market.calls.clear()
    return training


def decided_by(training: Training) -> BallotResult:
    """Return what the first execution set found."""
    (found,) = {training.executors[index].results[0].digest for index in training.drawn}
    results = (training.executors[index].results[0] for index in training.drawn)
    return next(one for one in results if one.digest == found)


def honest_result(training: Training) -> BallotResult:
    return training.executors[min(EVERYBODY - training.drawn)].results[0]


def call_pool(training: Training) -> None:
    training.cast.market.apply(*events_of_call(training.job, is_audit=True))


async def answer(training: Training) -> None:
    """See the whole pool's votes opened."""
    await training.cast.market.mine_to(training.ballot.current.open_end)


def course_of(training: Training) -> Course:
    assert training.job.course is not None
    return training.job.course


def committed(training: Training) -> Counter[int]:
    """How often each node's commitment was sent."""
    calls = training.cast.market.sent(SubmitCommits)
    return Counter(index for call in calls for index in decode_bitmap(call.members))


def minis_voted_in(training: Training, index: int) -> list[int]:
    """The mini-rounds for which a node's journal holds a vote of the first attempt."""
    written = training.cast.cones[index].store.journal.values
    return sorted(int(key.split("/")[-1]) for kind, key in written if kind == "vote")


# --- votes


async def test_whoever_has_not_voted_votes_without_a_ticket_and_computes_nothing_again(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    call_pool(training)
    await answer(training)
    votes = {one.cone_index: one for one in training.ballot.openings if one.mini_round_index == 1}
    assert votes.keys() == EVERYBODY - training.drawn
    assert len(votes) > SET_SIZES[1] - SET_SIZES[0], "tickets would have drawn fewer"
    assert {vote.digest for vote in votes.values()} == {decided_by(training).digest}
    assert [len(executor.rounds) for executor in training.executors] == [1] * CONES


async def test_a_vote_for_the_called_pool_has_the_trace_of_its_own_seed(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    call_pool(training)
    await answer(training)
    traces = {(one.mini_round_index, one.trace) for one in training.ballot.openings}
    assert sorted(index for index, _ in traces) == [0, 1]
    assert len({trace for _, trace in traces}) == 2


async def test_whoever_has_voted_does_not_vote_again(nursery: trio.Nursery) -> None:
    training = await decide(nursery)
    voter = min(training.drawn)
    executor = await training.restart_cone(voter)
    call_pool(training)
    await answer(training)
    assert committed(training) == Counter(EVERYBODY - training.drawn)
    assert len(training.ballot.openings) == CONES
    assert minis_voted_in(training, voter) == [0]
    assert voter not in training.cast.cones[voter].rooms[JOB].heard(
        wire.VoteCommit, vote_step(0, 1)
    )
    # It knows its vote from the journal, and computes to know what opens the digest.
    assert len(executor.rounds) == 1


async def test_a_node_that_restarts_after_its_vote_for_the_called_pool_votes_once(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    node = min(EVERYBODY - training.drawn)
    call_pool(training)
    await training.cast.market.mine_to(training.ballot.current.commit_end)
    assert node in training.ballot.committed
    await training.restart_cone(node)
    await answer(training)
    assert committed(training) == Counter(EVERYBODY - training.drawn)
    assert minis_voted_in(training, node) == [1]
    assert training.ballot.opened == EVERYBODY


async def test_a_restarted_node_computes_from_the_state_before_the_decision(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    node = min(EVERYBODY - training.drawn)
    executor = await training.restart_cone(node)
    call_pool(training)
    await answer(training)
    (work,) = executor.rounds
    assert work.before.previous_digest == NO_DIGEST
    assert work.before.misses == (0,) * len(training.job.sellers)
    vote = next(one for one in training.ballot.openings if one.cone_index == node)
    assert vote.digest == decided_by(training).digest


# --- tallies


async def test_the_tally_of_a_decision_that_stands_brings_no_header(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    call_pool(training)
    await answer(training)
    await training.cast.market.mine()
    assert training.cast.market.sent(TallyPool) == [
        TallyPool(
            job=JOB,
            terms=SMALL_SETS,
            course=course_of(training),
            parent=BEFORE,
            groups=tuple(
                sorted({(v.mini_round_index, v.digest, v.trace) for v in training.ballot.openings})
            ),
            header=b"",
        )
    ]
    assert len({group[:2] for group in training.cast.market.sent(TallyPool)[0].groups}) == 2


async def test_honest_nodes_appeal_and_bring_the_header_that_overturns_a_hostile_decision(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery, is_first_set_hostile=True)
    await training.cast.market.mine_to(APPEAL_END)
    assert len(training.cast.market.sent(AppealDecision)) == 1
    await answer(training)
    await training.cast.market.mine()
    (call,) = training.cast.market.sent(TallyPool)
    honest, hostile = honest_result(training), decided_by(training)
    assert honest.digest != hostile.digest
    assert call.header == honest.opening
    assert keccak(call.header) == honest.digest
    assert (call.course.decision, call.parent) == (hostile.digest, BEFORE)
    votes = [
        OpenedVote(
            node_index=one.cone_index,
            mini_round_index=one.mini_round_index,
            digest=one.digest,
            trace=one.trace,
        )
        for one in training.ballot.openings
    ]
    assert find_majority(tally(votes), CONES) == honest.digest


async def test_without_a_majority_for_another_digest_the_tally_brings_no_header(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery, is_first_set_hostile=True)
    await training.cast.market.mine_to(APPEAL_END)
    await training.stop_cone(max(EVERYBODY - training.drawn))
    await answer(training)
    await training.cast.market.mine()
    (call,) = training.cast.market.sent(TallyPool)
    assert call.header == b""


async def test_a_call_that_nobody_could_count_expires_after_the_deadline_for_headers(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    market = training.cast.market
    call_pool(training)
    market.refuses = lambda call: isinstance(call, TallyPool)
    deadline = training.ballot.current.open_end + SMALL_SETS.header_blocks
    await market.mine_to(deadline)
    assert market.sent(ExpireBallot) == []
    await market.mine(2 * CONES)
    expired = market.sent(ExpireBallot)
    assert expired
    assert set(expired) == {ExpireBallot(job=JOB, terms=SMALL_SETS, course=course_of(training))}


# --- what comes after


def resume(training: Training, opened: AttemptOpened) -> None:
    """Let the decision stand, and open again what it had opened."""
    course = course_of(training)
    digest = course.decision
    after = replace(course, parent=NO_DIGEST)
    training.cast.market.apply(
        DecisionUpheld(
            job=JOB, ballot_number=1, digest=digest, votes=CONES, voters=31, wrong=0, unopened=0
        ),
        CourseChanged(job=JOB, course=after),
        opened,
    )


async def test_a_round_that_is_opened_again_is_voted_on_by_the_same_updates(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    market, room = training.cast.market, training.cast.cones[0].rooms[JOB]
    # Sellers commit before the call is known here, as when a reorganisation moves it.
    await market.mine_to(APPEAL_END + 2)
    first = room.heard(wire.UpdateCommit, 1)
    assert len(first) == SMALL_SETS.sellers_per_round
    runs = [trainer.runs for trainer in training.trainers]
    call_pool(training)
    await answer(training)
    await market.mine(2)  # so that the seed of the votes draws somebody
    again = open_second_round(market.state.block_number)
    resume(training, again)
    await market.mine_to(again.open_end)

    assert training.ballot.ballot_number == 2
    assert training.ballot.opened, "the execution set votes"
    (voted,) = {one.digest for one in training.ballot.openings}
    works = {index: training.executors[index].rounds[-1] for index in training.ballot.opened}
    assert {work.round_index for work in works.values()} == {1}
    assert voted in {training.executors[index].results[-1].digest for index in works}
    committed_now = room.heard(wire.UpdateCommit, 1)
    assert first.items() <= committed_now.items()
    for node in training.cast.cones:
        assert node.rooms[JOB].equivocations == {}
    # Only whoever the new seed alone samples trains once more.
    fresh = committed_now.keys() - first.keys()
    assert [trainer.runs for trainer in training.trainers] == [
        count + (index in fresh) for index, count in enumerate(runs)
    ]


async def test_sellers_train_for_a_round_only_when_its_decision_can_be_checked_no_more(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery)
    room = training.cast.cones[0].rooms[JOB]
    await training.cast.market.mine_to(APPEAL_END - 1)
    call_pool(training)
    await answer(training)
    assert room.heard(wire.UpdateCommit, 1) == {}
    assert sorted(trainer.runs for trainer in training.trainers) == [0, 1, 1, 1]


def open_final(base: int) -> AttemptOpened:
    return replace(
        open_second_round(base),
        round_index=0,
        kind=BallotKind.FINAL,
        seller_seed_block=BlockNumber(0),
        update_commit_end=BlockNumber(0),
        update_open_end=BlockNumber(0),
    )


async def test_a_final_that_is_opened_again_evaluates_the_model_that_was_decided_instead(
    nursery: trio.Nursery,
) -> None:
    training = await decide(nursery, is_first_set_hostile=True)
    market, honest = training.cast.market, honest_result(training)
    hostile, executor = decided_by(training), training.executors[min(EVERYBODY - training.drawn)]
    market.apply(open_final(APPEAL_END))
    await market.mine_to(APPEAL_END)
    assert len(market.sent(AppealDecision)) == 1
    assert models(executor.finals) == [RoundHeader.decode(hostile.opening).model_digest]
    await answer(training)
    await market.mine()
    assert len(executor.rounds) == 1, "the finding of the round is still there"
    overturn(training, honest)
    await market.mine_to(training.ballot.availability_end)
    expected = [RoundHeader.decode(one.opening).model_digest for one in (hostile, honest)]
    assert models(executor.finals) == expected
    journal = training.cast.cones[min(EVERYBODY - training.drawn)].store.journal
    decisions = latest_records(await journal.recall_all(DECISION_KIND))
    assert decisions == {record_key(JOB, 1): honest.digest}
    records = latest_records(await journal.recall_all(KIND))
    final = msgspec.msgpack.decode(records[record_key(JOB, 2)], type=BallotRecord)
    assert final.model_digest == expected[1]


def models(finals: list) -> list[bytes]:
    return [keccak(encode_tensor(TensorKind.PARAMETERS, one.parameters)) for one in finals]


def overturn(training: Training, accepted: BallotResult) -> None:
    """Let the whole pool have decided otherwise, and open the final evaluation again."""
    head = training.cast.market.state.block_number
    course = replace(BEFORE, decision=accepted.digest)
    training.cast.market.apply(
        DecisionOverturned(job=JOB, ballot_number=1, digest=course_of(training).decision),
        RoundDecided(
            job=JOB, round_index=0, ballot_number=1, digest=accepted.digest, votes=3, voters=0b1,
            wrong=0, unopened=0, appeal_end=head, header=accepted.opening,
        ),
        CourseChanged(job=JOB, course=course),
        open_final(head),
    )  # fmt: skip


@pytest.mark.parametrize("is_called", [True, False])
async def test_a_called_ballot_ends_with_the_call(nursery: trio.Nursery, is_called: bool) -> None:
    training = await decide(nursery)
    market = training.cast.market
    if is_called:
        call_pool(training)
        await market.mine_to(training.ballot.current.seed_block)
        resume(training, open_second_round(market.state.block_number))
    await market.mine_to(APPEAL_END + 20)
    assert training.ballot.ballot_number == 2
    assert market.sent(TallyPool) == []
