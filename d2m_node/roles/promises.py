"""What this account has signed and must open yet, or lose money: votes, and sealed bids.

Journal and chain tell, so it is known after a crash too.
"""

from collections.abc import AsyncIterator

from d2m_node.ports import Ports
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.vote import vote_key
from protocol.ballot import MiniRound
from protocol.job import JobPhase, JobState
from protocol.types import BlockNumber


class OpenPromises:
    """`Promises`, from journal and chain."""

    def __init__(self, ports: Ports, desk: BuyerDesk) -> None:
        self._ports = ports
        self._desk = desk

    async def find_end(self, role: str) -> BlockNumber | None:
        """Return the last block in which a role has something to open; None without anything."""
        ends = [end async for end in self._list_ends(role)]
        return max(ends, default=None)

    async def wait_next(self) -> None:
        """Return after another block."""
        chain = self._ports.chain
        await chain.wait_block(BlockNumber(chain.state.block_number + 1))

    async def _list_ends(self, role: str) -> AsyncIterator[BlockNumber]:
        state, me = self._ports.chain.state, self._ports.signer.address
        if role == "buyer" and not self._desk.is_idle():
            yield BlockNumber(state.block_number + 1)  # a bid is on its way
        for job in state.jobs.values():
            if role == "cone":
                async for mini_round in self._list_votes(job):
                    yield mini_round.open_end
            bid = job.bids.get(me)
            is_sealed = bid is not None and bid.amount_wei is None and not bid.reclaimed
            is_in_time = job.phase is JobPhase.AUCTION and state.block_number < job.reveal_end
            if role == "buyer" and is_sealed and is_in_time:
                yield job.reveal_end

    async def _list_votes(self, job: JobState) -> AsyncIterator[MiniRound]:
        """List the mini-rounds of the open ballot in which a vote was sealed and is not opened."""
        index, ballot = job.cone_index(self._ports.signer.address), job.ballot
        if index is None or ballot is None or job.phase is not JobPhase.TRAINING:
            return
        if index in ballot.opened:
            return
        for mini_round in ballot.mini_rounds:
            last_block = mini_round.open_end if index in ballot.committed else mini_round.commit_end
            # As long as anybody may send the commitment, it may come to be recorded.
            if self._ports.chain.state.block_number < last_block:
                key = vote_key(job.job_id, ballot, mini_round)
                if await self._ports.store.journal.recall("vote", key) is not None:
                    yield mini_round
