"""All nodes of a job at work on its rounds, for tests of what happens around a decision."""

from dataclasses import replace

import msgspec
import numpy as np
import trio

from d2m_node.ports import Int32Array, Purpose, Reference
from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.room import Room
from d2m_node.roles.seller import run_seller
from d2m_node.roles.shift import Shift
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.validation import load_split
from protocol.ballot import Ballot
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.model import count_parameters
from protocol.request import RequestBody, decode_body, encode_body
from protocol.round import BallotResult, FinalWork, RoundWork, compute_round
from protocol.samples import encode_samples
from protocol.sortition import (
    compute_es_seed,
    compute_first_mini_round,
    compute_set_sizes,
    compute_ticket,
    compute_ticket_chain,
)
from protocol.types import BlockNumber, JobId, RoundIndex, Wei
from protocol.validation_set import compute_validation_root, encode_part, select_part
from protocol.wire import messages as wire
from tests.support.job import BODY, CONES, JOB, OPENED, TERMS, TICKETS, Cast, ticket_secret
from tests.support.market import DOMAIN, Datasets, Node, wait_idle

SMALL_SETS = replace(TERMS, first_set_size=2, lead=2)
"""So that a decision leaves somebody who has not voted."""
SET_SIZES = compute_set_sizes(CONES, 2, TERMS.growth_numerator, TERMS.growth_denominator)


class Trainer:
    """Gives another update each time it is asked."""

    def __init__(self, value: int) -> None:
        self.value, self.runs = value, 0

    async def train(self, *_arguments: object, **_options: object) -> Int32Array:
        self.runs += 1
        return np.full(count_parameters(BODY.model), self.value + self.runs, dtype=np.int32)


class CountingExecutor(HonestExecutor):
    """Computes by the rules, and keeps what it was asked and what it found."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds: list[RoundWork] = []
        self.finals: list[FinalWork] = []
        self.results: list[BallotResult] = []

    def compute_round(self, work: RoundWork) -> BallotResult:
        self.rounds.append(work)
        self.results.append(super().compute_round(work))
        return self.results[-1]

    def compute_final(self, work: FinalWork) -> BallotResult:
        self.finals.append(work)
        return super().compute_final(work)


class HostileExecutor(CountingExecutor):
    """Computes rounds from turned updates: a valid result, of other inputs than the agreed ones."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        turned = {index: -update for index, update in work.updates.items()}
        self.results.append(compute_round(replace(work, updates=turned)))
        return self.results[-1]


class Training:
    """A job in its first round: sellers train, CONE nodes compute, the buyer serves its data."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.cast = Cast()
        self.cast.start()
        self.trainers = [Trainer(100 * index) for index in range(len(self.cast.sellers))]
        self.executors: list[CountingExecutor] = []
        self.cone_shifts = [Shift("cone") for _ in self.cast.cones]
        self.seller_shifts = [Shift("seller") for _ in self.cast.sellers]
        self.left: list[Shift] = []
        """Of the roles that have drained, in order."""
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}
        self._selling: dict[int, trio.CancelScope] = {}

    @property
    def job(self) -> JobState:
        return self.cast.market.state.jobs[JOB]

    @property
    def ballot(self) -> Ballot:
        assert self.job.ballot is not None
        return self.job.ballot

    async def start(self, *, is_first_set_hostile: bool = False, job_count: int = 1) -> None:
        """Let everybody begin, with data and terms of which `Cast` knows nothing.

        Further jobs are copies of the first one, with the same members, at the same time.
        """
        await self._serve()
        for number in range(2, job_count + 1):
            await self._copy_job(JobId(number))
        self.drawn = await self._draw()
        for index in range(len(self.cast.sellers)):
            self.sell(index)
        for index, node in enumerate(self.cast.cones):
            is_hostile = is_first_set_hostile and index in self.drawn
            self.executors.append(HostileExecutor() if is_hostile else CountingExecutor())
            for number in range(1, job_count + 1):
                node.store.journal.values["ticket-secret", str(number)] = ticket_secret(node)
            self.run_cone(index)

    def sell(self, index: int) -> None:
        self._selling[index] = trio.CancelScope()
        self._nursery.start_soon(self._sell, index)

    def stop_selling(self, index: int) -> None:
        self._selling[index].cancel()

    def run_cone(self, index: int) -> None:
        self._scopes[index] = trio.CancelScope()
        self._nursery.start_soon(self._run_cone, self.cast.cones[index], index)

    async def stop_cone(self, index: int) -> None:
        self._scopes[index].cancel()
        await wait_idle()

    async def restart_cone(self, index: int) -> CountingExecutor:
        """Let a node forget all but what is on disk; return what it computes with from now on."""
        await self.stop_cone(index)
        self.cast.cones[index].restart()
        self.executors[index] = CountingExecutor()
        self.run_cone(index)
        return self.executors[index]

    async def _run_cone(self, node: Node, index: int) -> None:
        with self._scopes[index]:
            async with trio.open_nursery() as nursery:
                post = node.post("cone", nursery, self.cone_shifts[index])
                policy = ConePolicy(stake_wei=Wei(1))
                await run_cone(post, policy, self.executors[index])
                self.left.append(post.shift)

    async def _sell(self, index: int) -> None:
        with self._selling[index]:
            await self._run_seller(index)

    async def _run_seller(self, index: int) -> None:
        async with trio.open_nursery() as nursery:
            post = self.cast.sellers[index].post("seller", nursery, self.seller_shifts[index])
            policy = SellerPolicy(dataset_path="dataset.toml")
            await run_seller(post, policy, self.trainers[index])  # type: ignore[arg-type]
            self.left.append(post.shift)

    async def _serve(self) -> None:
        """Let the buyer offer both parts of its validation set."""
        cast, buyer = self.cast, self.cast.buyer
        samples = await Datasets().load_samples("")
        rows = encode_samples(samples.inputs)
        root = compute_validation_root(rows, samples.labels)
        validation = msgspec.structs.replace(BODY.validation, root=root)
        body = msgspec.structs.replace(BODY, validation=validation)
        data = encode_body(body)
        for node in (buyer, *cast.sellers, *cast.cones):
            await node.store.blobs.put(data, Reference(Purpose.REQUEST, JOB))
        await cast.market.mine_to(1)
        job = replace(
            self.job,
            body_hash=keccak(data),
            terms=SMALL_SETS,
            enrolment_end=BlockNumber(0),
            ballot=replace(self.ballot, opened_at=(BlockNumber(1), 0)),
        )
        cast.market.state = replace(cast.market.state, jobs={JOB: job})
        await self._offer_parts(JOB, body)

    async def _copy_job(self, job_id: JobId) -> None:
        market = self.cast.market
        copied = replace(self.job, job_id=job_id)
        market.state = replace(market.state, jobs={**market.state.jobs, job_id: copied})
        body = decode_body(self.cast.buyer.store.blobs.data[copied.body_hash])
        await self._offer_parts(job_id, body)

    async def _offer_parts(self, job_id: JobId, body: RequestBody) -> None:
        buyer = self.cast.buyer
        room = Room(buyer.ports, job_id)
        await self._nursery.start(room.run)
        buyer.rooms[job_id] = room
        samples = await Datasets().load_samples("")
        rows = encode_samples(samples.inputs)
        split = await load_split(buyer.chain, room.job, body)
        for part, indices in enumerate((split.selection, split.final)):
            held = encode_part(select_part(rows, samples.labels, indices))
            digest = await buyer.store.blobs.put(held, Reference(Purpose.VALIDATION, job_id))
            await room.sign_and_publish(
                wire.ValidationOffer(
                    job_id=job_id,
                    part=part,
                    digest=digest,
                    size_bytes=len(held),
                    signature=UNSIGNED,
                )
            )

    async def _draw(self) -> frozenset[int]:
        return await self.draw(JOB)

    async def draw(self, job_id: JobId) -> frozenset[int]:
        """Return the nodes whose tickets are for the first mini-round of a job."""
        randomness = await self.cast.buyer.chain.read_randomness(OPENED.seed_block)
        seed = compute_es_seed(DOMAIN, job_id, RoundIndex(0), 0, randomness)
        drawn = set()
        for index, node in enumerate(self.cast.cones):
            element = compute_ticket_chain(ticket_secret(node), TICKETS).element(1)
            ticket = compute_ticket(node.signer.address, element, seed)
            if compute_first_mini_round(ticket, SET_SIZES, CONES) == 0:
                drawn.add(index)
        return frozenset(drawn)
