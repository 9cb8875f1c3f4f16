"""Where the operator's requests become bids."""

from collections.abc import Collection

import structlog
import trio

from d2m_node.errors import TransactionReverted, UserError
from d2m_node.ports import Ports, Purpose, Reference, Samples
from d2m_node.request_file import RequestFile
from d2m_node.roles.auctions import place_bid
from d2m_node.roles.bids import (
    Wish,
    find_earlier_bid,
    find_open_auction,
    refuse_unknown_bids,
)
from protocol.auction import AuctionMode
from protocol.deposits import validate_seller_deposit
from protocol.errors import InvalidParams, RuleViolation
from protocol.request import (
    RequestBody,
    ValidationSpec,
    compute_tag_hashes,
    encode_body,
    validate_body,
    validate_work,
)
from protocol.samples import encode_samples, validate_labels, validate_samples
from protocol.terms import validate_terms
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId
from protocol.validation_set import compute_validation_root
from protocol.windows import compute_least_reveal_blocks, validate_windows

log = structlog.get_logger(__name__)

NO_JOB = JobId(0)
NUMBER_TAKEN = "number taken"
"""The market's word for an auction that another one came before."""
OUTBID = "raise too small"
"""The market's word for a bid in the clear that another one came before."""


class BuyerDesk:
    """Takes the operator's requests."""

    def __init__(
        self, ports: Ports, known_bids: Collection[int] = (), *, lag_blocks: int = 0
    ) -> None:
        """Open the desk of a node.

        Parameters
        ----------
        known_bids :
            Auctions with bids that the journal need not know.
        lag_blocks :
            How far behind the chain's tip the node acts: its confirmations.
        """
        self._ports = ports
        self._known_bids = known_bids
        self._lag_blocks = lag_blocks
        self._lock = trio.Lock()
        self._pending = 0
        self._idle = trio.Event()
        self._idle.set()

    def is_idle(self) -> bool:
        """Tell whether no request is being taken: else a bid may yet be placed."""
        return self._pending == 0

    async def wait_idle(self) -> None:
        """Return when no request is being taken."""
        await self._idle.wait()

    async def submit(self, request: RequestFile, *, idempotency_key: str) -> JobId:
        """Open an auction for a request, or join the one that is open for its tags.

        The same request under the same ``idempotency_key`` never bids twice, across restarts too:
        a bid that is on its way or on the chain is found again.

        Raises
        ------
        UserError
            If the market would not take the terms, or the validation set does not fit; or the
            chain has bids of this account that the journal does not know.
        TransactionReverted
            If the market refuses the bid.
        """
        self._pending += 1
        if self._pending == 1:
            self._idle = trio.Event()
        try:
            return await self._submit(request, idempotency_key)
        finally:
            self._pending -= 1
            if self._pending == 0:
                self._idle.set()

    async def _submit(self, request: RequestFile, idempotency_key: str) -> JobId:
        async with self._lock:
            journal = self._ports.store.journal
            await refuse_unknown_bids(self._ports, self._known_bids)
            currency = self._find_currency(request)
            self._check_terms(request)
            samples = await self._ports.datasets.load_samples(request.validation_dataset)
            # The same request has the same body after a crash, so that its bid is found again.
            seed = await journal.recall("request-seed", idempotency_key)
            body = self._make_body(request, samples, seed or self._ports.entropy.token_bytes(32))
            await journal.remember("request-seed", idempotency_key, body.initial_seed)
            reference = Reference(Purpose.OWN_REQUEST, NO_JOB)
            body_hash = await self._ports.store.blobs.put(encode_body(body), reference)
            # A bid is found again by its body: with another one, a second would be placed.
            if await journal.remember("request-body", idempotency_key, body_hash) != body_hash:
                raise UserError(
                    "validation.dataset: it is not what it was when this idempotency key was used "
                    "first; put it back, or take a new key once that bid is over"
                )
            return await self._place_after_races(request, body_hash, currency)

    def _find_currency(self, request: RequestFile) -> Address:
        token = self._ports.chain.params.token
        if not request.is_in_token:
            return NO_ACCOUNT
        if token == NO_ACCOUNT:
            raise UserError('auction.currency: this market has no token; use "ether"')
        return token

    def _check_terms(self, request: RequestFile) -> None:
        """Refuse terms that could not be revealed, or that no node would serve.

        A sealed bid that cannot be revealed would lose its forfeit.
        """
        params, state, terms = self._ports.chain.params, self._ports.chain.state, request.terms
        least = compute_least_reveal_blocks(self._lag_blocks)
        if request.mode is not AuctionMode.OPEN and request.reveal_blocks < least:
            raise UserError(
                f"auction.reveal_blocks: is {request.reveal_blocks}; raise it to at least {least}: "
                f"this node acts {self._lag_blocks} blocks late (chain.confirmations)"
            )
        try:
            validate_terms(terms, params.term_limits)
            validate_windows(terms, params.seed_delay_blocks)
            validate_seller_deposit(terms, request.bid_wei, params)
        except InvalidParams as exc:
            raise UserError(f"terms.{exc}") from exc
        datasets = state.count_datasets(compute_tag_hashes(list(request.tags)))
        if terms.sellers_min > datasets:
            reason = f"is {terms.sellers_min}; datasets with these tags: {datasets}"
            raise UserError(f"terms.sellers_min: {reason}")
        if terms.cones_min > len(state.stakes):
            reason = f"is {terms.cones_min}; accounts with a stake: {len(state.stakes)}"
            raise UserError(f"terms.cones_min: {reason}")

    def _make_body(
        self, request: RequestFile, samples: Samples, initial_seed: bytes
    ) -> RequestBody:
        """Return the request's body, if nodes would take it."""
        try:
            validate_samples(request.model, samples.inputs)
            validate_labels(request.model, samples.labels)
        except RuleViolation as exc:
            raise UserError(f"validation.dataset does not fit the model: {exc}") from exc
        body = RequestBody(
            tags=sorted(request.tags),
            model=request.model,
            initial_seed=initial_seed,
            training=request.training,
            sampling=request.sampling,
            step=request.step,
            model_access=request.model_access,
            validation=ValidationSpec(
                root=compute_validation_root(encode_samples(samples.inputs), samples.labels),
                sample_count=len(samples.inputs),
                final_count=request.validation_final_count,
                subset_count=request.validation_subset_count,
            ),
        )
        try:
            validate_body(body)
            validate_work(body, request.terms.sellers_per_round)
        except InvalidParams as exc:
            raise UserError(str(exc)) from exc
        return body

    async def _place_after_races(
        self, request: RequestFile, body_hash: Digest, currency: Address
    ) -> JobId:
        """Bid; if another bid or auction came first, look again and join or open the next."""
        chain = self._ports.chain
        wish = Wish(
            tags=compute_tag_hashes(list(request.tags)),
            mode=request.mode,
            currency=currency,
            amount_wei=request.bid_wei,
            terms=request.terms,
            bidder=self._ports.signer.address,
            lag_blocks=self._lag_blocks,
        )
        refused: set[JobId] = set()
        while True:
            job_id, is_placed = await self._choose_auction(wish, body_hash, refused)
            if is_placed:
                return job_id
            try:
                await place_bid(self._ports, request, wish, body_hash, job_id)
            except TransactionReverted as refusal:
                if NUMBER_TAKEN in refusal.reason:
                    refused.add(job_id)
                elif OUTBID not in refusal.reason:
                    raise
                log.info("bid_came_late", job=job_id, reason=refusal.reason)
                await chain.wait_block(BlockNumber(chain.state.block_number + 1))
            else:
                log.info("bid_placed", job=job_id)
                return job_id

    async def _choose_auction(
        self, wish: Wish, body_hash: Digest, refused: set[JobId]
    ) -> tuple[JobId, bool]:
        """Return the auction to bid in, and whether this request's bid is there already.

        A bid that was on its way when the node stopped goes on under its key, never beside it.
        """
        earlier = await find_earlier_bid(self._ports, wish, body_hash, refused)
        if earlier is not None:
            return earlier
        state = self._ports.chain.state
        joined = find_open_auction(state, wish)
        return JobId(state.job_count + 1) if joined is None else joined.job_id, False
