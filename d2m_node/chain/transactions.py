"""The one sender of an account's transactions: each call happens once, by its key."""

from functools import partial
from typing import NoReturn

import structlog
import trio
from structlog.contextvars import bound_contextvars

from d2m_node.calls import ContractCall
from d2m_node.chain.bindings import Bindings
from d2m_node.chain.client import RpcClient
from d2m_node.chain.counts import TransactionCounts
from d2m_node.chain.fees import quote_call
from d2m_node.chain.follower import Follower
from d2m_node.chain.nonces import Account, Nonces
from d2m_node.chain.submissions import Submission, Submissions
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.retry import retry_transient
from d2m_node.settings import ChainSettings
from protocol.market import MarketState

log = structlog.get_logger(__name__)


class TransactionSender:
    """Takes calls, and tells when they are confirmed."""

    def __init__(
        self,
        client: RpcClient,
        follower: Follower,
        bindings: Bindings,
        account: Account,
        settings: ChainSettings,
    ) -> None:
        self._client = client
        self._follower = follower
        self._bindings = bindings
        self._account = account
        self._limits = settings.sending
        self._submissions = Submissions()
        self._nonces = Nonces(client, follower, account, self._submissions, settings)
        self._nursery: trio.Nursery | None = None

    @property
    def counts(self) -> TransactionCounts:
        """What was mined in this run."""
        return self._nonces.counts

    def measure_open(self) -> tuple[int, int]:
        """Count the transactions that are not mined yet, and the blocks that one has waited."""
        head = self._follower.state.block_number
        slots = self._nonces.list_open()
        waits = [head - one.first_sent_block for one in slots if one.first_sent_block is not None]
        return len(slots), max(waits, default=0)

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Take up what an earlier run left open, then watch and send until cancelled."""
        await self._nonces.restore()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            reviewed: MarketState | None = None
            while True:
                reviewed = await self._wait_step(reviewed)
                try:
                    await self._nonces.review()
                except ChainUnavailable as exc:
                    log.warning("transactions_not_reviewed", reason=str(exc))
                for submission in self._submissions.take_unsigned():
                    with bound_contextvars(**submission.scope):
                        nursery.start_soon(self._drive, submission)

    async def _wait_step(self, last: MarketState | None) -> MarketState:
        """Return the followed state once it is another one: a block came, or the chain turned."""
        return await self._follower.wait_for(lambda state: None if state is last else state)

    async def submit(self, call: ContractCall, key: str) -> None:
        """Send a call once, and return when it is confirmed; see `ChainPort.submit`."""
        assert self._nursery is not None, "submitting needs a running sender"
        submission = self._submissions.find(key)
        if submission is None:
            submission = self._submissions.add(key, self._bindings.encode_call(call))
            self._nursery.start_soon(self._drive, submission, name=f"submit {key}")
        submission.waiters += 1
        try:
            await self._wait(submission)
        finally:
            submission.waiters -= 1

    async def _wait(self, submission: Submission) -> None:
        patience = self._limits.patience_seconds
        while not submission.done.is_set():
            with trio.move_on_after(patience):
                await submission.done.wait()
            if not submission.done.is_set() and self._client.silent_seconds > patience:
                label = submission.call.label
                raise ChainUnavailable(f"no endpoint answers; {label} is still open")
        if submission.error is not None:
            raise submission.error

    async def _drive(self, submission: Submission) -> None:
        """Bring one submission from its call to a sent transaction."""
        quote = partial(
            quote_call,
            self._client,
            self._account.signer.address,
            submission.call,
            max_fee_wei=self._limits.max_fee_wei,
        )
        try:
            if await self._account.store.is_confirmed(submission.key):
                self._submissions.finish(submission)
                return
            found = await retry_transient(quote, patience_seconds=self._limits.patience_seconds)
        except (TransactionReverted, ChainUnavailable) as exc:
            self._submissions.finish(submission, exc)
            return
        await self._nonces.use(submission, found)
