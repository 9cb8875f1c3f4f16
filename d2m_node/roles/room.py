"""A job's room: the gossip of one job, checked, kept and found again.

Every role of a node that takes part in a job shares its room. The first valid message of a kind
for a (step, sender) wins; later ones are not even forwarded. One exception: a second, different
commitment of a seller for one round is forwarded and kept beside the first, because the two are
evidence. What is kept is bounded: steps far from the ballot on chain are refused, a step holds one
message per participant, and there is one piece of evidence per seller.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec
import structlog
import trio

from d2m_node.errors import TransientError
from d2m_node.logs import log_scope
from d2m_node.ports import Ports, Verdict
from d2m_node.roles.access import find_speaker
from d2m_node.roles.jobs import job_in
from d2m_node.roles.sources import peers_of
from d2m_node.roles.statements import (
    Equivocation,
    SignedMessage,
    compute_opened_commitment,
    round_of_step,
    sender_of,
    signed_part,
    step_of,
    tag_of,
)
from protocol.errors import InvalidSignature, ProtocolError
from protocol.evidence import verify_equivocation
from protocol.job import JobState
from protocol.market import MarketState
from protocol.signatures import recover_signer
from protocol.sortition import BallotKind, decode_mini, encode_mini, is_element_of_chain
from protocol.types import Address, BlockNumber, Digest, JobId, RoundIndex
from protocol.update import UpdateSecret, compute_update_commitment
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage, MessagesRequest
from protocol.wire.topics import Topic, find_topic, name_topic

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=GossipMessage)

GATHER_SECONDS = 0.5
ASKED_FIRST = 3

ROUNDS_KEPT = 3
"""Messages of this many latest rounds stay, for peers that pull."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A kept message, and the last block this node had followed when it came."""

    message: GossipMessage
    block_number: BlockNumber


class Room:
    """The messages of one job. See the module's text."""

    def __init__(self, ports: Ports, job_id: JobId) -> None:
        self._ports = ports
        self._job_id = job_id
        self._heard: dict[type, dict[int, dict[int, Heard]]] = {}
        self._equivocations: dict[int, Equivocation] = {}
        self._waiting: dict[trio.Event, Callable[[], bool]] = {}
        self.since = ports.chain.state.block_number
        """What was open by then may have been worked on before, by this node or a copy of it."""

    @property
    def job(self) -> JobState:
        """The job as the chain tells it now. Raises JobFailed if it is gone."""
        return job_in(self._ports.chain.state, self._job_id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen to the job's topics for as long as this node is of their audience.

        Sellers and buyers only speak. Who applied as a CONE node listens before the job starts.
        """
        chain, is_started = self._ports.chain, False
        while True:
            if self._is_listening(chain.state):
                async with self._listen():
                    if not is_started:
                        task_status.started()
                        is_started = True
                    await chain.wait_for(lambda state: not self._is_listening(state) or None)
            elif not is_started:
                task_status.started()
                is_started = True
            await chain.wait_for(lambda state: self._is_listening(state) or None)

    def _is_listening(self, state: MarketState) -> bool:
        job, me = state.jobs.get(self._job_id), self._ports.signer.address
        return job is not None and job.has_cone_applied(me) and not job.is_cone_left_out(me)

    @asynccontextmanager
    async def _listen(self) -> AsyncIterator[None]:
        """Be subscribed to all topics of the job while the context is open."""
        async with AsyncExitStack() as joined, trio.open_nursery() as nursery:
            for topic in Topic:
                name = name_topic(self._ports.chain.domain, self._job_id, topic)
                heard = await joined.enter_async_context(
                    self._ports.network.join_topic(name, partial(self._validate_on, topic))
                )
                # Messages are kept when they are validated; nobody needs the channels.
                nursery.start_soon(_drain, heard)
            yield
            nursery.cancel_scope.cancel()

    def _validate_on(self, topic: Topic, message: GossipMessage) -> Verdict:
        """Check a message that was heard on a topic. Never raises."""
        return self.validate(message) if find_topic(message) is topic else Verdict.REJECT

    async def publish(self, message: GossipMessage) -> None:
        """Keep an own message and gossip it."""
        self._keep(message)
        name = name_topic(self._ports.chain.domain, self._job_id, find_topic(message))
        await self._ports.network.publish(name, message)

    async def sign_and_publish(self, unsigned: SignedMessage) -> None:
        """Sign an own message, made with `UNSIGNED` in the signature's place, and publish it."""
        digest = signed_part(unsigned).digest(self._ports.chain.domain)
        signature = self._ports.signer.sign_digest(digest)
        await self.publish(msgspec.structs.replace(unsigned, signature=signature))

    def heard(self, kind: type[M], step: int) -> dict[int, M]:
        """Return the kept messages of one kind and step, by sender."""
        kept = self._heard.get(kind, {}).get(step, {})
        return {
            sender: heard.message
            for sender, heard in sorted(kept.items())
            if isinstance(heard.message, kind)
        }

    def said(self, kind: type[M], step: int, sender: int) -> M | None:
        """Return the kept message of one sender, if there is one."""
        kept = self._heard.get(kind, {}).get(step, {}).get(sender)
        return kept.message if kept is not None and isinstance(kept.message, kind) else None

    def heard_before(self, kind: type[M], step: int, block: BlockNumber) -> dict[int, M]:
        """Return those that came before this node had followed ``block``."""
        kept = self._heard.get(kind, {}).get(step, {})
        return {
            sender: message
            for sender, message in self.heard(kind, step).items()
            if kept[sender].block_number < block
        }

    @property
    def equivocations(self) -> Mapping[int, Equivocation]:
        """The sellers known to have signed two commitments for one round, with the evidence."""
        return self._equivocations

    def keep_equivocation(self, found: Equivocation) -> None:
        """Keep evidence against a seller; the first is enough."""
        if self._equivocations.setdefault(found.first.seller_index, found) is found:
            log.warning("equivocation_heard", job=self._job_id, seller=found.first.seller_index)
            self._wake()

    def opens_commitment(self, opening: wire.UpdateOpening) -> bool:
        """Tell whether an opening fits a commitment that was heard from its seller."""
        seller = self._account_of(opening)
        if seller is None:  # a reorganisation took the enrolment back
            return False
        secret = UpdateSecret(
            job=self._job_id,
            round_index=RoundIndex(opening.round_index),
            seller=seller,
            update_digest=Digest(opening.digest),
            salt=opening.salt,
        )
        expected = compute_update_commitment(self._ports.chain.domain, secret)
        return any(one.commitment == expected for one in self._commitments(opening))

    def _commitments(self, opening: wire.UpdateOpening) -> list[wire.UpdateCommit]:
        """Return what was heard from the opening's seller for its round: one, or two."""
        first = self.said(wire.UpdateCommit, opening.round_index, opening.seller_index)
        found = [] if first is None else [first]
        conflict = self._equivocations.get(opening.seller_index)
        if conflict is not None and conflict.first.round_index == opening.round_index:
            found += [conflict.first, conflict.second]
        return found

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Return when ``is_true``; it is asked after each kept message, and must not raise.

        Whoever waits for one of many messages is not woken for each of the others.
        """
        while not is_true():
            event = trio.Event()
            self._waiting[event] = is_true
            try:
                await event.wait()
            finally:
                del self._waiting[event]

    async def pull(self, accounts: Iterable[Address], request: MessagesRequest) -> None:
        """Ask these accounts' peers for messages and keep the valid ones.

        Peers that cannot be reached are passed over: gossip and the next pull remain.
        """
        async with trio.open_nursery() as nursery:
            for peer_id in peers_of(self._ports, accounts):
                nursery.start_soon(self._pull_from, peer_id, request)

    async def gather(self, kind: type[GossipMessage], step: int, silent: Iterable[Address]) -> None:
        """End a phase with a pull from those who should have spoken: gossip may be lost.

        Who does not answer in half a second is not waited for.
        """
        request = MessagesRequest(job_id=self._job_id, kind=tag_of(kind), step=step)
        with trio.move_on_after(GATHER_SECONDS):
            await self.pull(silent, request)

    async def gather_unknown(
        self, kind: type[GossipMessage], step: int, others: Sequence[Address]
    ) -> None:
        """Do so where nobody can tell who has spoken.

        A few are asked what they heard. If that is news, or nobody was heard yet, all are.
        """
        heard = len(self._heard.get(kind, {}).get(step, ()))
        await self.gather(kind, step, others[:ASKED_FIRST])
        known = len(self._heard.get(kind, {}).get(step, ()))
        if known > heard or known <= 1:
            await self.gather(kind, step, others[ASKED_FIRST:])

    async def _pull_from(self, peer_id: bytes, request: MessagesRequest) -> None:
        with log_scope(peer=peer_id):
            try:
                received = await self._ports.network.fetch_messages(peer_id, request)
            except TransientError as error:
                log.info("pull_failed", error=str(error))
                return
        for message in received:
            if isinstance(message, GossipMessage):
                self.validate(message)

    def serve(self, request: MessagesRequest) -> list[GossipMessage]:
        """Return the kept messages that a peer asks for, both sides of an equivocation too."""
        kept = [
            heard.message
            for kind, steps in self._heard.items()
            if tag_of(kind) == request.kind
            for heard in steps.get(request.step, {}).values()
        ]
        if request.kind == tag_of(wire.UpdateCommit):
            sides = (
                side for one in self._equivocations.values() for side in (one.first, one.second)
            )
            kept += [one for one in sides if one.round_index == request.step and one not in kept]
        return kept

    def validate(self, message: GossipMessage) -> Verdict:
        """Check a message and keep it if it is valid and new. Never raises."""
        if message.job_id != self._job_id or self._job_id not in self._ports.chain.state.jobs:
            return Verdict.IGNORE
        if not self._is_near(message):
            return Verdict.IGNORE
        former = (
            self._heard.get(type(message), {}).get(step_of(message), {}).get(sender_of(message))
        )
        if former is not None:
            return self._validate_further(former.message, message)
        verdict = self._check(message)
        if verdict is Verdict.ACCEPT:
            self._keep(message)
        return verdict

    def _validate_further(self, former: GossipMessage, message: GossipMessage) -> Verdict:
        """Pass nothing on but the second side of an equivocation, which everybody should see."""
        if not isinstance(former, wire.UpdateCommit) or not isinstance(message, wire.UpdateCommit):
            return Verdict.IGNORE
        if message.commitment == former.commitment or former.seller_index in self._equivocations:
            return Verdict.IGNORE
        found = Equivocation(former, message)
        seller = self._account_of(message)
        if seller is None:  # a reorganisation took the enrolment back
            return Verdict.IGNORE
        try:
            verify_equivocation(self._ports.chain.domain, found.as_evidence(seller))
        except ProtocolError:
            return Verdict.REJECT
        self.keep_equivocation(found)
        return Verdict.ACCEPT

    def _is_near(self, message: GossipMessage) -> bool:
        """Bound what is kept: one round ahead of the chain, and a few behind."""
        ballot = self.job.ballot
        current = 0 if ballot is None else ballot.round_index
        if isinstance(message, wire.ValidationOffer | wire.ValidationReceipt):
            return message.part <= 1
        if isinstance(message, wire.AvailabilityBitmap):
            near_attempt = ballot is not None and message.attempt <= ballot.attempt + 1
        elif isinstance(message, wire.VoteCommit | wire.VoteOpening):
            near_attempt = ballot is not None and self._is_near_mini(message.mini)
        else:
            near_attempt = True
        return near_attempt and current - ROUNDS_KEPT < message.round_index <= current + 1

    def _is_near_mini(self, mini: int) -> bool:
        ballot = self.job.ballot
        if ballot is None or mini >> 32 > BallotKind.FINAL:
            return False
        _, attempt, mini_round = decode_mini(mini)
        return attempt <= ballot.attempt + 1 and mini_round <= len(ballot.mini_rounds)

    def _check(self, message: GossipMessage) -> Verdict:
        account = self._account_of(message)
        if account is None:
            # Before the members are fixed here, others may know them: no blame.
            return Verdict.REJECT if self.job.cones else Verdict.IGNORE
        if isinstance(message, wire.VoteOpening):
            return self._check_opening(message, account)
        try:
            signer = recover_signer(
                signed_part(message).digest(self._ports.chain.domain), message.signature
            )
        except InvalidSignature:
            return Verdict.REJECT
        if signer != account:
            return Verdict.REJECT
        if isinstance(message, wire.UpdateOpening):
            return self._check_update_opening(message)
        return Verdict.ACCEPT

    def _check_update_opening(self, message: wire.UpdateOpening) -> Verdict:
        """Do not let an opening of nothing take the place of the one that will fit.

        The peer that forwards it may have heard another commitment of the seller: no blame.
        """
        is_idle = self._commitments(message) and not self.opens_commitment(message)
        return Verdict.IGNORE if is_idle else Verdict.ACCEPT

    def _check_opening(self, message: wire.VoteOpening, node: Address) -> Verdict:
        """A vote's opening carries no signature: the commitment it opens does.

        The peer that forwards it may have heard another commitment of its node: no blame.
        """
        expected = compute_opened_commitment(self._ports.chain.domain, message, node)
        if expected not in self._vote_commitments(message):
            return Verdict.IGNORE
        return Verdict.ACCEPT if self._fits_chain(message) else Verdict.REJECT

    def _vote_commitments(self, opening: wire.VoteOpening) -> list[bytes]:
        """Return what an opening's node has committed to, as was heard and as is recorded."""
        commit = self.said(wire.VoteCommit, step_of(opening), opening.cone_index)
        found = [] if commit is None else [commit.commitment]
        ballot = self.job.ballot
        if ballot is None or ballot.round_index != opening.round_index:
            return found
        for batch in ballot.batches:
            if encode_mini(ballot.kind, ballot.attempt, batch.mini_round_index) == opening.mini:
                found += [one for index, one in batch.entries if index == opening.cone_index]
        return found

    def _fits_chain(self, message: wire.VoteOpening) -> bool:
        """Check the ticket of a vote in the open ballot, which no signature covers."""
        ballot = self.job.ballot
        kind, attempt, _ = decode_mini(message.mini)
        if ballot is None or (message.round_index, kind, attempt) != (
            ballot.round_index,
            ballot.kind,
            ballot.attempt,
        ):
            return True
        root = self.job.cones[message.cone_index].ticket_root
        return is_element_of_chain(message.chain_element, ballot.ballot_number, root)

    def _account_of(self, message: GossipMessage) -> Address | None:
        """Return the account that a message claims to be from; None if there is no such one."""
        return find_speaker(message, self.job)

    def _keep(self, message: GossipMessage) -> None:
        steps = self._heard.setdefault(type(message), {})
        heard = Heard(message, self._ports.chain.state.block_number)
        steps.setdefault(step_of(message), {})[sender_of(message)] = heard
        self._forget_old()
        self._wake()

    def _wake(self) -> None:
        for event, is_true in self._waiting.items():
            if is_true():
                event.set()

    def _forget_old(self) -> None:
        """Drop the messages of rounds that are not among the latest."""
        ballot = self.job.ballot
        newest_old = (0 if ballot is None else ballot.round_index) - ROUNDS_KEPT
        for kind, steps in self._heard.items():
            if kind in (wire.ValidationOffer, wire.ValidationReceipt):
                continue
            for step in [step for step in steps if round_of_step(kind, step) <= newest_old]:
                del steps[step]


async def _drain(channel: trio.MemoryReceiveChannel[GossipMessage]) -> None:
    async for _ in channel:
        pass
