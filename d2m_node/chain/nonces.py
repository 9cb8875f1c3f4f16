"""The watch over an account's nonces, from the first signature until nothing can change.

Every transaction is signed once, stored, and only then sent. What is stored is looked at with
each step of the follower, by the receipts of all hashes of its nonce:

- It is stuck: its fees are raised. Any of the nonce's transactions may be mined in the end.
- It is mined, deep enough: whoever waits is told. It is watched on until no reorganisation that
  the follower can undo reaches its block.
- A reorganisation dropped it: the same bytes are sent again. What was told stays true: a call
  that was refused is not sent again, an empty transaction takes its nonce.
- A stranger's transaction used its nonce: the stranger's hash proves it, and only then another
  nonce is taken. No call is signed for two nonces that could both be mined.
- A transaction that the store does not know made the same call: the store is an old copy. It
  counts, and the call is not made again.
- Something used its nonce so long ago that no endpoint says what: it may have been the call. It
  is given up with an error, and not signed for another nonce, once somebody asks for it.
- The pool has lost a stranger's transaction below ours: an empty one fills the gap.
"""

from dataclasses import dataclass, replace

import structlog
import trio
from structlog.contextvars import bound_contextvars

from d2m_node.chain.bindings import CALL_HEAD_BYTES
from d2m_node.chain.client import RpcClient
from d2m_node.chain.counts import TransactionCounts
from d2m_node.chain.fees import Quote, cap_call_fee, quote_fees, raise_fees
from d2m_node.chain.follower import Follower
from d2m_node.chain.json_rpc import RequestRefused, to_hex
from d2m_node.chain.receipts import (
    AccountFacts,
    Receipt,
    find_nonce_user,
    find_revert_reason,
    read_account,
)
from d2m_node.chain.signing import Transaction, parse_transaction
from d2m_node.chain.slots import Slot, build_transaction, is_filler, make_filler, sign_attempt
from d2m_node.chain.submissions import Submission, Submissions
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.ports import SignerPort
from d2m_node.settings import ChainSettings
from d2m_node.transaction_store import PaidFee, TransactionState, TransactionStore

_UNDERPRICED = ("underpriced", "less than block base fee")
"""How clients ask for higher fees."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Who sends, and what it has sent so far."""

    signer: SignerPort
    store: TransactionStore


class Nonces:
    """Owns an account's nonces."""

    def __init__(
        self,
        client: RpcClient,
        follower: Follower,
        account: Account,
        submissions: Submissions,
        settings: ChainSettings,
    ) -> None:
        self._client = client
        self._follower = follower
        self._signer = account.signer
        self._store = account.store
        self._submissions = submissions
        self._settings = settings
        self._lock = trio.Lock()
        self._next_nonce = 0
        self._slots: dict[int, Slot] = {}
        self._counts = TransactionCounts()

    @property
    def counts(self) -> TransactionCounts:
        """What was mined in this run."""
        return self._counts

    def list_open(self) -> list[Slot]:
        """Return the nonces whose transaction is not mined yet."""
        return [slot for slot in self._slots.values() if slot.mined is None]

    async def restore(self) -> None:
        """Take up what an earlier run of the node left open."""
        highest = await self._store.find_highest_nonce()
        self._next_nonce = 0 if highest is None else highest + 1
        for stored in await self._store.load_watched():
            slot = self._slots.setdefault(stored.nonce, Slot(stored.nonce, stored.key, [], None))
            slot.attempts.append(stored)
            if stored.mined is not None:
                slot.state, slot.mined = stored.state, stored.mined
        for slot in self._slots.values():
            if slot.mined is None:
                slot.submission = self._submissions.add(slot.key, slot.call)

    async def use(self, submission: Submission, quote: Quote) -> None:
        """Sign a submission for the next nonce, and send it; unless nobody wants it any more."""
        async with self._lock:
            if not submission.is_wanted:
                given_up = ChainUnavailable("given up before it was signed")
                self._submissions.finish(submission, given_up)
                return
            nonce = max(self._next_nonce, quote.next_nonce)
            slot = Slot(nonce, submission.key, [], submission)
            chain_id = self._settings.chain_id
            await self._sign(slot, build_transaction(chain_id, nonce, submission.call, quote))
            await self._send(slot)

    async def review(self) -> None:
        """Look at every nonce as of the followed block. Raises ChainUnavailable."""
        await self._review_mined()
        slots = [slot for _, slot in sorted(self._slots.items()) if slot.mined is None]
        if not slots:
            return
        block_number = self._follower.state.block_number
        hashes = [one.transaction_hash for slot in slots for one in slot.attempts]
        facts = await read_account(self._client, self._signer.address, hashes, block_number)
        unused = [slot for slot in slots if slot.nonce >= facts.used_nonces]
        if unused:
            await self._fill_gap(unused[0], facts)
        for slot in slots:
            scope = {} if slot.submission is None else slot.submission.scope
            with bound_contextvars(**scope):
                try:
                    await self._review_slot(slot, facts, block_number)
                except ChainUnavailable as exc:  # the others do not wait for this one
                    log.warning("transaction_not_reviewed", key=slot.key, reason=str(exc))

    async def _review_slot(self, slot: Slot, facts: AccountFacts, block_number: int) -> None:
        receipts = [facts.receipts.get(one.transaction_hash) for one in slot.attempts]
        receipt = next((one for one in receipts if one is not None), None)
        if receipt is not None:
            if self._follower.is_followed(receipt.block) is not False:
                await self._settle(slot, receipt)
        elif slot.nonce < facts.used_nonces:
            await self._review_missing(slot, block_number)
        else:
            await self._review_waiting(slot)

    async def _review_mined(self) -> None:
        """Reopen what a reorganisation dropped; let go of what none can drop any more."""
        block_number = self._follower.state.block_number
        final_block = block_number - self._settings.reorg_blocks
        for slot in list(self._slots.values()):
            if slot.mined is None or slot.mined.number > block_number:
                continue  # open; or the branch has yet to grow as high
            is_followed = self._follower.is_followed(slot.mined)
            if is_followed and slot.mined.number <= final_block:
                await self._store.settle(slot.nonce, slot.state, None)
                del self._slots[slot.nonce]
            elif not is_followed:
                if is_followed is False:
                    log.warning("transaction_dropped", key=slot.key, nonce=slot.nonce)
                # Else the block is not remembered, after a restart: the receipt will tell.
                self._reopen(slot)

    def _reopen(self, slot: Slot) -> None:
        slot.mined = slot.sent_block = slot.first_sent_block = None
        if slot.state is TransactionState.CONFIRMED:
            slot.submission = self._submissions.add(slot.key, slot.call, is_owed=True)

    async def _settle(self, slot: Slot, receipt: Receipt) -> None:
        """Record what became of a nonce whose transaction is on the chain, deep enough."""
        transaction = parse_transaction(
            next(one.raw for one in slot.attempts if one.transaction_hash == receipt.hash)
        )
        error: TransactionReverted | None = None
        if not receipt.has_succeeded:
            account = self._signer.address
            reason = await find_revert_reason(self._client, account, transaction, receipt)
            error = TransactionReverted(slot.label, reason)
        has_effect = receipt.has_succeeded and not is_filler(transaction, self._signer.address)
        slot.state = TransactionState.CONFIRMED if has_effect else TransactionState.REVERTED
        slot.mined = receipt.block
        await self._store.note_fee(_describe_fee(slot, transaction, receipt))
        if not slot.is_counted:
            self._counts.add(transaction, receipt)
            slot.is_counted = True
        if self._follower.is_followed(receipt.block) is None:
            await self._store.settle(slot.nonce, slot.state, None)  # too deep to be dropped
            del self._slots[slot.nonce]
        else:
            await self._store.settle(slot.nonce, slot.state, slot.mined)
        _log_outcome(slot, receipt, error)
        if slot.submission is not None:
            self._submissions.finish(slot.submission, error)
            slot.submission = None

    async def _review_missing(self, slot: Slot, block_number: int) -> None:
        """Something used the nonce. Only if a stranger's did, start over with another nonce."""
        if slot.submission is not None and not slot.submission.is_wanted:
            return  # whoever asks for its key next is to hear of it, after a crash too
        user = await find_nonce_user(
            self._client,
            self._signer.address,
            slot.nonce,
            first_block=block_number - self._settings.reorg_blocks,
            last_block=block_number,
        )
        if user is None:
            await self._give_up(slot)
            return
        if user.hash in {one.transaction_hash for one in slot.attempts}:
            return  # the endpoint has the block, and not the receipt yet
        if user.makes(slot.call):
            await self._take_over(slot, user.hash, block_number)
            return
        log.warning("nonce_used_elsewhere", nonce=slot.nonce, key=slot.key)
        await self._store.settle(slot.nonce, TransactionState.REPLACED, None)
        del self._slots[slot.nonce]
        if slot.submission is not None:
            self._submissions.start_over(slot.submission)

    async def _take_over(self, slot: Slot, transaction_hash: bytes, block_number: int) -> None:
        """Let a transaction count that the store does not know, and that makes the same call.

        On an old copy of the store, this node has sent it with other fees. To send the call again
        would do it twice.
        """
        facts = await read_account(
            self._client, self._signer.address, [transaction_hash], block_number
        )
        receipt = facts.receipts.get(transaction_hash)
        if receipt is None:
            return  # not yet
        log.warning("call_sent_elsewhere", nonce=slot.nonce, key=slot.key)
        error = None
        if not receipt.has_succeeded:
            error = TransactionReverted(slot.label, "failed when this node sent it before")
        state = TransactionState.CONFIRMED if error is None else TransactionState.REVERTED
        await self._store.settle(slot.nonce, state, None)
        del self._slots[slot.nonce]
        if slot.submission is not None:
            self._submissions.finish(slot.submission, error)

    async def _give_up(self, slot: Slot) -> None:
        """Let go of a nonce that was used long ago: by ours or not, nobody can tell.

        What was told of it stays true. To whoever still waits, it has failed.
        """
        log.error("nonce_user_unknown", nonce=slot.nonce, key=slot.key)
        was_told = slot.state is not TransactionState.OPEN
        state = slot.state if was_told else TransactionState.REPLACED
        await self._store.settle(slot.nonce, state, None)
        del self._slots[slot.nonce]
        if slot.submission is not None:
            reason = "its nonce was used long ago, and no endpoint says by what"
            error = None if was_told else TransactionReverted(slot.label, reason)
            self._submissions.finish(slot.submission, error)

    async def _review_waiting(self, slot: Slot) -> None:
        """See to a transaction that is not mined: send it, or raise its fees, or wait."""
        if slot.sent_block is None:
            if slot.state is TransactionState.REVERTED:
                await self._empty(slot)
                if not is_filler(slot.latest, self._signer.address):
                    return  # it could not be outbid: the call itself must not happen any more
            await self._send(slot)
        elif slot.is_underpriced or self._is_stuck(slot):
            await self._raise(slot, slot.latest)
            await self._send(slot)

    def _is_stuck(self, slot: Slot) -> bool:
        if slot.sent_block is None:
            return False
        waited = self._follower.state.block_number - slot.sent_block
        return waited >= self._settings.sending.stuck_blocks

    async def _empty(self, slot: Slot) -> None:
        """Outbid a call that was refused, and dropped, by an empty transaction."""
        if not is_filler(slot.latest, self._signer.address):
            await self._raise(slot, make_filler(slot.latest, self._signer.address))

    async def _fill_gap(self, lowest: Slot, facts: AccountFacts) -> None:
        """Use up a nonce below ours that a stranger took, and of which the pool knows nothing."""
        gap = facts.pool_nonce
        # Ours below the gap's end may be mined in the followed branch, and not in the endpoint's.
        is_gap = facts.used_nonces <= gap < lowest.nonce and gap not in self._slots
        if not is_gap or not self._is_stuck(lowest):
            return
        log.warning("nonce_gap_filled", nonce=gap)
        slot = Slot(gap, f"filler/{gap}", [], None)
        fees = await quote_fees(self._client, max_fee_wei=self._settings.sending.max_fee_wei)
        filler = make_filler(replace(lowest.latest, nonce=gap), self._signer.address)
        await self._sign(slot, replace(filler, tip_wei=fees.tip_wei, max_fee_wei=fees.max_fee_wei))
        await self._send(slot)

    async def _raise(self, slot: Slot, transaction: Transaction) -> None:
        """Sign a transaction with higher fees for its nonce, while the cap allows it."""
        cap = self._settings.sending.max_fee_wei
        if not is_filler(transaction, self._signer.address):
            cap = cap_call_fee(cap)
        market = await quote_fees(self._client, max_fee_wei=cap)
        raised = raise_fees(transaction, market, max_fee_wei=cap)
        if raised is None:
            log.warning("fee_cap_reached", key=slot.key, nonce=slot.nonce, max_fee_wei=cap)
            return
        await self._sign(slot, raised)
        log.info("fees_raised", key=slot.key, nonce=slot.nonce, max_fee_wei=raised.max_fee_wei)

    async def _sign(self, slot: Slot, transaction: Transaction) -> None:
        """Sign one more transaction for a nonce, and store it."""
        stored = sign_attempt(slot.key, transaction, self._signer)
        # Shielded: between the store and the table of slots nothing may be lost.
        with trio.CancelScope(shield=True):
            await self._store.add(stored)
            slot.attempts.append(stored)
            self._slots[slot.nonce] = slot
            self._next_nonce = max(self._next_nonce, slot.nonce + 1)

    async def _send(self, slot: Slot) -> None:
        """Hand the latest attempt to an endpoint. A failure is left to the next review."""
        attempt = slot.attempts[-1]
        slot.sent_block = self._follower.state.block_number
        if slot.first_sent_block is None:
            slot.first_sent_block = slot.sent_block
        slot.is_underpriced = False
        fields = {"key": slot.key, "nonce": slot.nonce, "hash": to_hex(attempt.transaction_hash)}
        try:
            await self._client.call("eth_sendRawTransaction", to_hex(attempt.raw))
        except RequestRefused as exc:
            # "Already known" and the like are no failures; the receipts tell.
            slot.is_underpriced = any(words in exc.message for words in _UNDERPRICED)
            log.info("transaction_not_accepted", reason=str(exc), **fields)
        except ChainUnavailable as exc:
            slot.sent_block = None
            log.warning("transaction_not_sent", reason=str(exc), **fields)
        else:
            log.info("transaction_sent", **fields)


def _describe_fee(slot: Slot, transaction: Transaction, receipt: Receipt) -> PaidFee:
    return PaidFee(
        nonce=slot.nonce,
        callee=transaction.to,
        call_head=transaction.data[:CALL_HEAD_BYTES],
        fee_wei=receipt.fee_wei,
    )


def _log_outcome(slot: Slot, receipt: Receipt, error: TransactionReverted | None) -> None:
    fields = {
        "key": slot.key,
        "nonce": slot.nonce,
        "hash": to_hex(receipt.hash),
        "block": receipt.block.number,
        "gas_used": receipt.gas_used,
    }
    if error is None:
        log.info("transaction_mined", state=slot.state.value, **fields)
    else:
        log.warning("transaction_reverted", call=error.call, reason=error.reason, **fields)
