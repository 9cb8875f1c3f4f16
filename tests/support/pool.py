"""Ballots of a pool of CONE nodes by the rules alone: private tickets, hostile votes, decisions."""

from collections.abc import Callable
from dataclasses import dataclass

from protocol.commitment import NO_TRACE
from protocol.consensus import Decision, GrowSet, OpenedVote, decide, tally
from protocol.hashing import hash_domain, keccak, word
from protocol.round import BallotResult
from protocol.sortition import (
    BallotKind,
    compute_es_seed,
    compute_first_mini_round,
    compute_set_sizes,
    compute_ticket,
    compute_ticket_chain,
    encode_mini,
    is_element_of_chain,
)
from protocol.types import Address, Digest, RoundIndex
from tests.support.federation import DOMAIN, JOB

POOL_SIZE = 50
LEAD = 17
SET_SIZES = compute_set_sizes(POOL_SIZE, 25, 3, 2)
ATTEMPTS = 3
"""Attempts of a round: one, and two retries."""
NODES = tuple(Address(keccak(word(index))[:20]) for index in range(POOL_SIZE))
CHAINS = tuple(compute_ticket_chain(keccak(node), 64) for node in NODES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What the nodes of one attempt know: the honest result, a wrong one, and the last digest."""

    round_index: int
    attempt: int
    honest: BallotResult
    wrong: BallotResult
    stale: Digest

    @property
    def number(self) -> int:
        """Which element of its ticket chain a node uses."""
        return self.round_index * ATTEMPTS + self.attempt + 1

    def compute_seed(self, mini_round_index: int) -> Digest:
        mini = encode_mini(BallotKind.ROUND, self.attempt, mini_round_index)
        randomness = keccak(word(self.number) + word(mini_round_index))
        return compute_es_seed(DOMAIN, JOB, RoundIndex(self.round_index), mini, randomness)


Vote = tuple[Digest, Digest]
Strategy = Callable[[Ballot, int, Digest], Vote | None]
"""From the ballot, the node's index and the mini-round's seed to digest and trace, or silence."""


def vote_honestly(ballot: Ballot, node: int, seed: Digest) -> Vote:
    return ballot.honest.digest, ballot.honest.compute_trace(seed)


def vote_at_random(ballot: Ballot, node: int, seed: Digest) -> Vote:
    return keccak(seed + word(node)), keccak(word(node) + seed)


def vote_stale(ballot: Ballot, node: int, seed: Digest) -> Vote:
    return ballot.stale, keccak(seed + ballot.stale)


def collude(ballot: Ballot, node: int, seed: Digest) -> Vote:
    return ballot.wrong.digest, ballot.wrong.compute_trace(seed)


def copy_the_digest(ballot: Ballot, node: int, seed: Digest) -> Vote:
    """Vote as the honest do without having computed: the digest is known, the trace is not."""
    return ballot.honest.digest, keccak(seed + word(node))


def lack_data(ballot: Ballot, node: int, seed: Digest) -> Vote:
    return hash_domain("nodata", seed), NO_TRACE


def stay_silent(ballot: Ballot, node: int, seed: Digest) -> None:
    return None


def assign(strategy: Strategy, percent: int) -> list[Strategy]:
    hostile = POOL_SIZE * percent // 100
    return [strategy] * hostile + [vote_honestly] * (POOL_SIZE - hostile)


def draw_mini_rounds(ballot: Ballot) -> list[list[int]]:
    """List the nodes whose private ticket comes up in each mini-round."""
    drawn: list[list[int]] = [[] for _ in SET_SIZES]
    for index, (node, chain) in enumerate(zip(NODES, CHAINS, strict=True)):
        element = chain.element(ballot.number)
        assert is_element_of_chain(element, ballot.number, chain.root)
        ticket = compute_ticket(node, element, ballot.compute_seed(0))
        drawn[compute_first_mini_round(ticket, SET_SIZES, POOL_SIZE)].append(index)
    return drawn


def cast_votes(
    ballot: Ballot, pool: list[Strategy], mini_round_index: int, nodes: list[int]
) -> list[OpenedVote]:
    seed = ballot.compute_seed(mini_round_index)
    said = {node: pool[node](ballot, node, seed) for node in nodes}
    return [
        OpenedVote(
            node_index=node, mini_round_index=mini_round_index, digest=vote[0], trace=vote[1]
        )
        for node, vote in said.items()
        if vote is not None
    ]


def hold_ballot(ballot: Ballot, pool: list[Strategy]) -> tuple[Decision, list[OpenedVote]]:
    """Let mini-rounds vote until there is a decision or no one is left."""
    votes: list[OpenedVote] = []
    decision: Decision = GrowSet()
    for mini, (nodes, set_size) in enumerate(zip(draw_mini_rounds(ballot), SET_SIZES, strict=True)):
        votes += cast_votes(ballot, pool, mini, nodes)
        decision = decide(tally(votes), lead=LEAD, pool_size=POOL_SIZE, set_size=set_size)
        if not isinstance(decision, GrowSet):
            break
    return decision, votes
