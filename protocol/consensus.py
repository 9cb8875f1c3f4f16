"""Opened votes to a decided digest, or to a larger execution set. Source: MECHANISM 8, 9.2."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.commitment import NO_TRACE
from protocol.types import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedVote:
    """One vote of an attempt, as the contract recorded it."""

    node_index: int
    mini_round_index: int
    digest: Digest
    trace: Digest


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes that count for each digest, and those of nodes that lacked an input."""

    votes: dict[Digest, int]
    no_data: int


@dataclass(frozen=True, slots=True)
class Decided:
    """The digest is accepted."""

    digest: Digest
    votes: int


@dataclass(frozen=True, slots=True)
class GrowSet:
    """Nothing is decided yet: open the next mini-round."""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The attempt ends without a decision."""


Decision = Decided | GrowSet | Undecided


def tally(votes: Iterable[OpenedVote]) -> Tally:
    """Count the votes of an attempt.

    In each mini-round only the largest group with equal traces counts for a digest, so that a
    copied digest with an invented trace adds nothing. A zero trace means "no data", whatever the
    digest. Of several votes of one node the first counts.

    Source: MECHANISM 9.2.
    """
    groups, no_data = _group(votes)
    counted: Counter[Digest] = Counter()
    for (_, digest), by_trace in groups.items():
        counted[digest] += max(len(nodes) for nodes in by_trace.values())
    return Tally(dict(counted), no_data)


def decide(counted: Tally, *, lead: int, pool_size: int, set_size: int) -> Decision:
    """Decide on the votes so far.

    Parameters
    ----------
    counted :
        All mini-rounds of the attempt up to now.
    lead :
        L, the votes that the leader must be ahead of the runner-up and "no data" together.
    pool_size :
        N at enrolment; more than half of it decides at once.
    set_size :
        n_m, the cumulative size of the mini-round just closed.

    Source: MECHANISM 8.4.
    """
    ranked = sorted(counted.votes.items(), key=lambda item: (-item[1], item[0]))
    leader = ranked[0][1] if ranked else 0
    runner_up = ranked[1][1] if len(ranked) > 1 else 0
    if leader and (leader - runner_up - counted.no_data >= lead or 2 * leader > pool_size):
        return Decided(ranked[0][0], leader)
    if counted.no_data - leader >= lead or 2 * counted.no_data > pool_size:
        return Undecided()
    return GrowSet() if set_size < pool_size else Undecided()


def find_majority(counted: Tally, pool_size: int) -> Digest | None:
    """Find the digest that more than half of the whole pool voted for; None if there is none.

    Nothing less overturns a decision that the whole pool checks. Source: MECHANISM 9.4.
    """
    for digest, count in counted.votes.items():
        if 2 * count > pool_size:
            return digest
    return None


def select_voters(votes: Iterable[OpenedVote], digest: Digest) -> frozenset[int]:
    """Choose the nodes that are paid for the accepted digest.

    In each mini-round those of the largest group with equal traces; on a tie all tied groups,
    because nobody loses pay for a trace that cannot be told right from wrong. The contract that
    keeps the votes counts alike.

    MECHANISM contradicts itself here. 9.2 lets nobody lose pay for a trace without endorsements,
    and in sets smaller than the lead; 14 and property 18.18 pay the majority trace only. This
    follows 14, in sets of every size: there are no endorsements, so 9.2 would pay whoever copied a
    digest that was opened before, with any trace, and copying would cost nothing. The price is a
    known weakness: in a small set, copiers who share one invented trace can outnumber those who
    computed, and take their pay for this ballot. They cannot change the digest: to the decision
    only the number of votes in the largest group counts.

    Source: MECHANISM 9.2, 14.
    """
    groups, _ = _group(votes)
    paid: set[int] = set()
    for (_, candidate), by_trace in groups.items():
        if candidate == digest:
            largest = max(len(nodes) for nodes in by_trace.values())
            paid.update(*(nodes for nodes in by_trace.values() if len(nodes) == largest))
    return frozenset(paid)


def select_wrong_voters(votes: Iterable[OpenedVote], digest: Digest) -> frozenset[int]:
    """Choose the nodes that voted for another digest than the accepted one; never "no data"."""
    return frozenset(
        vote.node_index
        for vote in _select_first_votes(votes)
        if vote.trace != NO_TRACE and vote.digest != digest
    )


def _select_first_votes(votes: Iterable[OpenedVote]) -> list[OpenedVote]:
    first: dict[int, OpenedVote] = {}
    for vote in votes:
        first.setdefault(vote.node_index, vote)
    return list(first.values())


def _group(
    votes: Iterable[OpenedVote],
) -> tuple[dict[tuple[int, Digest], dict[Digest, set[int]]], int]:
    """Group nodes by (mini-round, digest) and trace; count the "no data" votes apart."""
    groups: dict[tuple[int, Digest], dict[Digest, set[int]]] = {}
    no_data = 0
    for vote in _select_first_votes(votes):
        if vote.trace == NO_TRACE:
            no_data += 1
            continue
        by_trace = groups.setdefault((vote.mini_round_index, vote.digest), {})
        by_trace.setdefault(vote.trace, set()).add(vote.node_index)
    return groups, no_data
