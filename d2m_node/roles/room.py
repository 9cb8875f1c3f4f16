"""A job's room: the gossip of one job, checked, kept and found again.

Every role of a node that takes part in a job shares its room. The first valid message of a kind
for a (step, sender) wins; later ones are not even forwarded. What is kept is bounded: steps far
from the ballot on chain are refused, and a step holds one message per participant.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import structlog
import trio

from d2m_node.errors import TransientError
from d2m_node.ports import Ports, Verdict
from protocol.commitment import VoteOpening, VotePosition, compute_vote_commitment
from protocol.errors import InvalidSignature
from protocol.job import JobState
from protocol.signatures import (
    Availability,
    TypedMessage,
    UpdateCommitment,
    ValidationOffer,
    ValidationReceipt,
    Vote,
    recover_signer,
)
from protocol.signatures import UpdateOpening as SignedUpdateOpening
from protocol.sortition import BallotKind, decode_mini, encode_mini, is_element_of_chain
from protocol.types import Address, BlockNumber, Digest, JobId, RoundIndex
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage, MessagesRequest
from protocol.wire.topics import updates_topic, votes_topic

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=GossipMessage)

SignedMessage = (
    wire.UpdateCommit
    | wire.UpdateOpening
    | wire.AvailabilityBitmap
    | wire.VoteCommit
    | wire.ValidationOffer
    | wire.ValidationReceipt
)

UNSIGNED = bytes(65)
"""Stands where the signature comes."""

ROUNDS_KEPT = 3
"""Messages of this many latest rounds stay, for peers that pull."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A kept message, and the last block this node had followed when it came."""

    message: GossipMessage
    block_number: BlockNumber


def step_of(message: GossipMessage) -> int:
    """Return what a message is about: a round, a mini-round of a round, or a part."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            return message.round_index
        case wire.AvailabilityBitmap():
            return availability_step(RoundIndex(message.round_index), message.attempt)
        case wire.VoteCommit() | wire.VoteOpening():
            return vote_step(RoundIndex(message.round_index), message.mini)
        case wire.ValidationOffer() | wire.ValidationReceipt():
            return message.part


def availability_step(round_index: RoundIndex, attempt: int) -> int:
    """Number one attempt of one round."""
    return vote_step(round_index, encode_mini(BallotKind.ROUND, attempt, 0))


def vote_step(round_index: RoundIndex, mini: int) -> int:
    """Number one mini-round of a job; grows with the round."""
    return round_index << 40 | mini


def sender_of(message: GossipMessage) -> int:
    """Return the sender's index among the job's sellers or CONE nodes; 0 for the buyer."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            return message.seller_index
        case wire.ValidationOffer():
            return 0
        case _:
            return message.cone_index


class Room:
    """The messages of one job. See the module's text."""

    def __init__(self, ports: Ports, job_id: JobId) -> None:
        self._ports = ports
        self._job_id = job_id
        self._heard: dict[type, dict[int, dict[int, Heard]]] = {}
        self._changed = trio.Event()

    @property
    def job(self) -> JobState:
        """The job as the chain tells it now."""
        return self._ports.chain.state.jobs[self._job_id]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen to the job's topics until cancelled."""
        domain = self._ports.chain.domain
        topics = [
            name(domain.chain_id, domain.market, self._job_id)
            for name in (updates_topic, votes_topic)
        ]
        async with (
            self._ports.network.join_topic(topics[0], self.validate) as updates,
            self._ports.network.join_topic(topics[1], self.validate) as votes,
            trio.open_nursery() as nursery,
        ):
            # Messages are kept when they are validated; the channels only wake those who wait.
            nursery.start_soon(self._drain, updates)
            nursery.start_soon(self._drain, votes)
            task_status.started()

    async def publish(self, message: GossipMessage) -> None:
        """Keep an own message and gossip it."""
        self._keep(message)
        domain = self._ports.chain.domain
        is_update = isinstance(message, wire.UpdateCommit | wire.UpdateOpening)
        topic = (updates_topic if is_update else votes_topic)(
            domain.chain_id, domain.market, self._job_id
        )
        await self._ports.network.publish(topic, message)

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

    def heard_before(self, kind: type[M], step: int, block: BlockNumber) -> dict[int, M]:
        """Return those that came before this node had followed ``block``."""
        kept = self._heard.get(kind, {}).get(step, {})
        return {
            sender: message
            for sender, message in self.heard(kind, step).items()
            if kept[sender].block_number < block
        }

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Return when ``is_true``; it is asked after each kept message."""
        while not is_true():
            await self._changed.wait()

    async def pull(self, accounts: Iterable[Address], request: MessagesRequest) -> None:
        """Ask these accounts' peers for messages and keep the valid ones.

        Peers that cannot be reached are passed over: gossip and the next pull remain.
        """
        async with trio.open_nursery() as nursery:
            for account in accounts:
                peer = self._ports.chain.state.peers.get(account)
                if peer is not None and peer.peer_id != self._ports.network.peer_id:
                    nursery.start_soon(self._pull_from, peer.peer_id, request)

    async def _pull_from(self, peer_id: bytes, request: MessagesRequest) -> None:
        try:
            received = await self._ports.network.fetch_messages(peer_id, request)
        except TransientError as error:
            log.info("pull_failed", job=self._job_id, peer=peer_id.hex(), error=str(error))
            return
        for message in received:
            self.validate(message)

    def serve(self, request: MessagesRequest) -> list[GossipMessage]:
        """Return the kept messages that a peer asks for."""
        for kind, steps in self._heard.items():
            if kind.__struct_config__.tag == request.kind:  # type: ignore[attr-defined]
                return [heard.message for heard in steps.get(request.step, {}).values()]
        return []

    def validate(self, message: GossipMessage) -> Verdict:
        """Check a message and keep it if it is valid and new. Never raises."""
        if message.job_id != self._job_id or not self._is_near(message):
            return Verdict.IGNORE
        if sender_of(message) in self._heard.get(type(message), {}).get(step_of(message), {}):
            return Verdict.IGNORE
        verdict = self._check(message)
        if verdict is Verdict.ACCEPT:
            self._keep(message)
        return verdict

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
            return Verdict.REJECT
        if isinstance(message, wire.VoteOpening):
            return self._check_opening(message, account)
        try:
            signer = recover_signer(
                signed_part(message).digest(self._ports.chain.domain), message.signature
            )
        except InvalidSignature:
            return Verdict.REJECT
        return Verdict.ACCEPT if signer == account else Verdict.REJECT

    def _check_opening(self, message: wire.VoteOpening, node: Address) -> Verdict:
        """A vote's opening carries no signature: the commitment it opens does."""
        commits = self.heard(wire.VoteCommit, step_of(message))
        if message.cone_index not in commits:
            return Verdict.IGNORE
        position = VotePosition(
            job=self._job_id,
            round_index=RoundIndex(message.round_index),
            mini=message.mini,
            node=node,
        )
        opening = VoteOpening(Digest(message.digest), Digest(message.trace), message.salt)
        expected = compute_vote_commitment(self._ports.chain.domain, position, opening)
        if not self._fits_chain(message):
            return Verdict.REJECT
        opens = commits[message.cone_index].commitment == expected
        return Verdict.ACCEPT if opens else Verdict.REJECT

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
        match message:
            case wire.UpdateCommit() | wire.UpdateOpening():
                sellers = self.job.sellers
                index = message.seller_index
                return sellers[index].account if index < len(sellers) else None
            case wire.ValidationOffer():
                return self.job.buyer
            case _:
                cones = self.job.cones
                index = message.cone_index
                return cones[index].account if index < len(cones) else None

    def _keep(self, message: GossipMessage) -> None:
        steps = self._heard.setdefault(type(message), {})
        heard = Heard(message, self._ports.chain.state.block_number)
        steps.setdefault(step_of(message), {})[sender_of(message)] = heard
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _drain(self, channel: trio.MemoryReceiveChannel[GossipMessage]) -> None:
        async for _ in channel:
            self._wake()

    def forget_before(self, round_index: RoundIndex) -> None:
        """Drop the messages of rounds before this one."""
        for kind, steps in self._heard.items():
            if kind in (wire.ValidationOffer, wire.ValidationReceipt):
                continue
            for step in [step for step in steps if _round_of_step(kind, step) < round_index]:
                del steps[step]


def _round_of_step(kind: type, step: int) -> int:
    return step if kind in (wire.UpdateCommit, wire.UpdateOpening) else step >> 40


def signed_part(message: GossipMessage) -> TypedMessage:
    """Return the EIP-712 value that a message's sender signs."""
    job = JobId(message.job_id)
    match message:
        case wire.UpdateCommit():
            return UpdateCommitment(
                job, RoundIndex(message.round_index), Digest(message.commitment)
            )
        case wire.UpdateOpening():
            return SignedUpdateOpening(
                job=job,
                round_index=RoundIndex(message.round_index),
                update_digest=Digest(message.digest),
                salt=message.salt,
            )
        case wire.AvailabilityBitmap():
            return Availability(
                job=job,
                round_index=RoundIndex(message.round_index),
                attempt=message.attempt,
                bitmap=int.from_bytes(message.bitmap, "big"),
            )
        case wire.VoteCommit():
            return Vote(
                job=job,
                round_index=RoundIndex(message.round_index),
                mini=message.mini,
                commitment=Digest(message.commitment),
            )
        case wire.ValidationOffer():
            return ValidationOffer(
                job=job,
                part=message.part,
                part_digest=Digest(message.digest),
                size_bytes=message.size_bytes,
            )
        case wire.ValidationReceipt():
            return ValidationReceipt(job, message.part)
        case wire.VoteOpening():
            raise TypeError("an opening of a vote is not signed")
