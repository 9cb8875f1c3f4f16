"""The one sender of an account's transactions.

Every transaction is signed once, stored, and only then sent. What is stored and not yet settled
is watched at each followed block: by the receipts of all hashes of its nonce, with fees raised
when it is stuck. After a restart the same watch goes on, so nothing is signed twice for one key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import structlog
import trio

from d2m_node.calls import ContractCall
from d2m_node.chain.bindings import Bindings, EncodedCall
from d2m_node.chain.client import (
    Json,
    Request,
    RequestRefused,
    RpcClient,
    parse_quantity,
    to_hex,
)
from d2m_node.chain.fees import Quote, find_revert_reason, quote_call, raise_fees
from d2m_node.chain.follower import Follower
from d2m_node.chain.signing import Transaction, parse_transaction, sign_transaction
from d2m_node.errors import ChainUnavailable, NodeError, TransactionReverted
from d2m_node.ports import SignerPort
from d2m_node.retry import retry_transient
from d2m_node.transaction_store import (
    StoredTransaction,
    TransactionState,
    TransactionStore,
)
from protocol.hashing import keccak

PATIENCE_SECONDS = 60.0
"""How long `submit` waits for an endpoint that answers."""
STUCK_BLOCKS = 4
"""Blocks without a receipt after which fees are raised."""
MISSING_REVIEWS = 3
"""Times in a row that a used nonce may show no receipt of ours before it counts as lost."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Who sends, and what it has sent so far."""

    signer: SignerPort
    store: TransactionStore
    chain_id: int


@dataclass(slots=True, eq=False)
class _Submission:
    """One key and those who wait for it."""

    key: str
    label: str
    call: EncodedCall | None
    """None for what an earlier run of the node signed."""
    done: trio.Event = field(default_factory=trio.Event)
    error: NodeError | None = None
    waiters: int = 0


@dataclass(slots=True, eq=False)
class _Slot:
    """One nonce in use, and every transaction that was signed for it."""

    nonce: int
    submission: _Submission
    attempts: list[StoredTransaction]
    sent_block: int | None
    """Block at which this run last sent it; None if it has yet to."""
    missing_reviews: int = 0


class TransactionSender:
    """Owns an account's nonces."""

    def __init__(
        self, client: RpcClient, follower: Follower, bindings: Bindings, account: Account
    ) -> None:
        self._client = client
        self._follower = follower
        self._bindings = bindings
        self._signer = account.signer
        self._store = account.store
        self._chain_id = account.chain_id
        self._nursery: trio.Nursery | None = None
        self._nonces = trio.Lock()
        self._next_nonce = 0
        self._submissions: dict[str, _Submission] = {}
        self._slots: dict[int, _Slot] = {}

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Take up what an earlier run left open, then watch and send until cancelled."""
        await self._restore()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            reviewed = 0
            while True:
                await self._follower.wait_block(reviewed + 1)
                reviewed = self._follower.state.block_number
                try:
                    await self._review(reviewed)
                except ChainUnavailable as exc:
                    log.warning("transactions_not_reviewed", reason=str(exc))

    async def submit(self, call: ContractCall, key: str) -> None:
        """Send a call once, and return when it is confirmed; see `ChainPort.submit`."""
        assert self._nursery is not None, "submitting needs a running sender"
        submission = self._submissions.get(key)
        if submission is None:
            encoded = self._bindings.encode_call(call)
            submission = _Submission(key, encoded.label, encoded)
            self._submissions[key] = submission
            self._nursery.start_soon(self._drive, submission, name=f"submit {key}")
        elif submission.call is None:
            submission.call = self._bindings.encode_call(call)
            submission.label = submission.call.label
        submission.waiters += 1
        try:
            await self._wait(submission)
        finally:
            submission.waiters -= 1

    async def _wait(self, submission: _Submission) -> None:
        while not submission.done.is_set():
            with trio.move_on_after(PATIENCE_SECONDS):
                await submission.done.wait()
            if not submission.done.is_set() and self._client.silent_seconds > PATIENCE_SECONDS:
                raise ChainUnavailable(f"no endpoint answers; {submission.label} is still open")
        if submission.error is not None:
            raise submission.error

    async def _restore(self) -> None:
        for stored in await self._store.load_open():
            slot = self._slots.get(stored.nonce)
            if slot is None:
                submission = _Submission(stored.key, stored.key, None)
                self._submissions[stored.key] = submission
                self._slots[stored.nonce] = _Slot(stored.nonce, submission, [stored], None)
            else:
                slot.attempts.append(stored)
        self._next_nonce = max(self._slots, default=-1) + 1

    async def _drive(self, submission: _Submission) -> None:
        """Bring one submission from its call to a sent transaction."""
        assert submission.call is not None
        try:
            if await self._store.is_confirmed(submission.key):
                self._finish(submission)
                return
            quote = await retry_transient(
                partial(quote_call, self._client, self._signer.address, submission.call),
                patience_seconds=PATIENCE_SECONDS,
            )
        except (TransactionReverted, ChainUnavailable) as exc:
            self._finish(submission, exc)
            return
        async with self._nonces:
            if submission.waiters == 0:
                # Nobody wants it any more, and nothing has been signed.
                self._finish(submission, ChainUnavailable("given up before it was signed"))
                return
            slot = await self._sign(submission, submission.call, quote)
            await self._send(slot)

    async def _sign(self, submission: _Submission, call: EncodedCall, quote: Quote) -> _Slot:
        """Take a nonce; sign and store a transaction for it. Needs the lock on nonces."""
        nonce = max(self._next_nonce, quote.next_nonce)
        transaction = Transaction(
            chain_id=self._chain_id,
            nonce=nonce,
            tip_wei=quote.tip_wei,
            max_fee_wei=quote.max_fee_wei,
            gas=quote.gas,
            to=call.to,
            value_wei=call.value_wei,
            data=call.data,
        )
        stored = self._sign_attempt(submission.key, transaction)
        # Shielded: between the store and the table of slots nothing may be lost.
        with trio.CancelScope(shield=True):
            await self._store.add(stored)
            slot = _Slot(nonce, submission, [stored], None)
            self._slots[nonce] = slot
            self._next_nonce = nonce + 1
        return slot

    def _sign_attempt(self, key: str, transaction: Transaction) -> StoredTransaction:
        raw = sign_transaction(transaction, self._signer)
        return StoredTransaction(
            key=key, nonce=transaction.nonce, raw=raw, transaction_hash=keccak(raw)
        )

    async def _send(self, slot: _Slot) -> None:
        """Hand the latest attempt to an endpoint. A failure is left to the next review."""
        attempt = slot.attempts[-1]
        slot.sent_block = self._follower.state.block_number
        fields = {"key": slot.submission.key, "nonce": slot.nonce}
        try:
            await self._client.call("eth_sendRawTransaction", to_hex(attempt.raw))
        except RequestRefused as exc:
            # "Already known" and the like are no failures; the receipts tell.
            log.info("transaction_not_accepted", reason=exc.message, **fields)
        except ChainUnavailable as exc:
            slot.sent_block = None
            log.warning("transaction_not_sent", reason=str(exc), **fields)
        else:
            log.info("transaction_sent", hash=to_hex(attempt.transaction_hash), **fields)

    async def _review(self, block_number: int) -> None:
        """Look at every open nonce as of a followed block."""
        if not self._slots:
            return
        slots = [self._slots[nonce] for nonce in sorted(self._slots)]
        hashes = [one.transaction_hash for slot in slots for one in slot.attempts]
        count_params = (to_hex(self._signer.address), hex(block_number))
        used, *answers = await self._client.batch(
            [
                Request("eth_getTransactionCount", count_params),
                *(Request("eth_getTransactionReceipt", (to_hex(one),)) for one in hashes),
            ]
        )
        used_nonces = parse_quantity(used)
        for answer in answers:
            if isinstance(answer, RequestRefused):
                raise answer  # a receipt that cannot be asked for is not one that is missing
        receipts = dict(zip(hashes, answers, strict=True))
        for slot in slots:
            found = [receipts[one.transaction_hash] for one in slot.attempts]
            receipt = next((one for one in found if isinstance(one, dict)), None)
            if receipt is not None:
                slot.missing_reviews = 0
                if parse_quantity(receipt.get("blockNumber")) <= block_number:
                    await self._settle(slot, receipt)
            elif slot.nonce < used_nonces:
                await self._review_missing(slot)
            elif slot.sent_block is None:
                await self._send(slot)
            elif block_number - slot.sent_block >= STUCK_BLOCKS:
                await self._outbid(slot)

    async def _settle(self, slot: _Slot, receipt: Json) -> None:
        """Close a nonce whose transaction is on the chain, deep enough."""
        if parse_quantity(receipt.get("status")) == 1:
            await self._close(slot, TransactionState.CONFIRMED)
            self._finish(slot.submission)
            return
        transaction = parse_transaction(slot.attempts[0].raw)
        reason = await find_revert_reason(
            self._client,
            self._signer.address,
            transaction,
            parse_quantity(receipt.get("blockNumber")),
        )
        await self._close(slot, TransactionState.REVERTED)
        self._finish(slot.submission, TransactionReverted(slot.submission.label, reason))

    async def _review_missing(self, slot: _Slot) -> None:
        """Something used the nonce. If it was not ours, start over with another nonce."""
        slot.missing_reviews += 1
        if slot.missing_reviews < MISSING_REVIEWS:
            return  # an endpoint may know the count before the receipts
        log.warning("nonce_used_elsewhere", nonce=slot.nonce, key=slot.submission.key)
        await self._close(slot, TransactionState.REPLACED)
        if slot.submission.call is None:
            # Signed by an earlier run, and nobody has asked for it in this one.
            self._finish(slot.submission)
            return
        assert self._nursery is not None
        self._nursery.start_soon(self._drive, slot.submission)

    async def _outbid(self, slot: _Slot) -> None:
        """Replace a stuck transaction by one with higher fees, while that is sensible."""
        outbid = raise_fees(parse_transaction(slot.attempts[-1].raw))
        if outbid is not None:
            stored = self._sign_attempt(slot.submission.key, outbid)
            await self._store.add(stored)
            slot.attempts.append(stored)
        await self._send(slot)

    async def _close(self, slot: _Slot, state: TransactionState) -> None:
        await self._store.close_nonce(slot.nonce, state)
        del self._slots[slot.nonce]

    def _finish(self, submission: _Submission, error: NodeError | None = None) -> None:
        del self._submissions[submission.key]
        submission.error = error
        submission.done.set()
