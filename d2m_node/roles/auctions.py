"""A buyer in an auction: it bids, answers who outbids it, reveals, and sees the auction closed.

What is bid is journaled before it is sent. In an open auction a buyer bids what is needed and no
more, up to the amount of its request.
"""

import structlog

from d2m_node.calls import (
    CloseAuction,
    CommitBid,
    OpenAuction,
    OpenClearAuction,
    PlaceBid,
    ReclaimBid,
    RevealBid,
)
from d2m_node.errors import TransactionReverted
from d2m_node.ports import Ports
from d2m_node.request_file import RequestFile
from d2m_node.roles.allowances import allow_taking
from d2m_node.roles.bids import (
    PlannedBid,
    Wish,
    bid_key,
    commit_to,
    find_least_bid,
    find_missing_wei,
    fit_terms,
    is_wished,
    recall_bid,
    remember_bid,
)
from d2m_node.roles.jobs import bid_in, job_in
from d2m_node.roles.turns import Turn, take_turn
from protocol.auction import AuctionMode, compute_least_bid
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.request import compute_tag_hashes
from protocol.types import Address, BlockNumber, Digest, JobId, Wei

log = structlog.get_logger(__name__)

MARKET = "Market"
NOTHING = Wei(0)
"""Stands for the next bid where there is none: bids are larger."""


async def place_bid(
    ports: Ports, request: RequestFile, wish: Wish, body_hash: Digest, job_id: JobId
) -> None:
    """Journal a request's bid and send it; open the auction if there is none of this number.

    If the number is that of an auction for something else, the bid does not follow it there: the
    market refuses to open a second one.

    Raises TransactionReverted and ChainUnavailable, as `ChainPort.submit` does.
    """
    planned = PlannedBid(
        amount_wei=request.bid_wei,
        salt=ports.entropy.token_bytes(32),
        body_hash=body_hash,
        terms=request.terms,
        dataset_path=request.validation_dataset,
    )
    bid = await remember_bid(ports, job_id, planned)
    found = ports.chain.state.jobs.get(job_id)
    joined = found if found is not None and is_wished(found, wish) else None
    if request.mode is not AuctionMode.OPEN:
        await _commit(ports, request, bid, (job_id, joined), wish.currency)
    elif joined is None:
        await _open_in_the_clear(ports, request, bid, job_id, wish.currency)
    else:
        # Never above the plan: if the auction has gone on meanwhile, the market refuses this.
        await _bid_in_the_clear(ports, bid, joined, min(find_least_bid(joined), request.bid_wei))


async def _commit(
    ports: Ports,
    request: RequestFile,
    bid: PlannedBid,
    auction: tuple[JobId, JobState | None],
    currency: Address,
) -> None:
    """Commit a sealed bid, with what the auction asks every bidder to put up.

    ``auction`` is its number, and what there is to join.
    """
    chain = ports.chain
    job_id, joined = auction
    least_wei = request.deposit_wei if joined is None else joined.deposit_wei
    bond_wei = Wei(max(least_wei, bid.amount_wei))
    key = bid_key(job_id, bid.body_hash)
    value_wei = await allow_taking(chain, currency, MARKET, bond_wei, key=key)
    commitment = commit_to(ports, job_id, bid)
    call: OpenAuction | CommitBid
    if joined is None:
        call = OpenAuction(
            auction=job_id,
            tags=compute_tag_hashes(list(request.tags)),
            mode=request.mode,
            currency=currency,
            deposit_wei=request.deposit_wei,
            reserve_wei=request.reserve_wei,
            commit_blocks=request.commit_blocks,
            reveal_blocks=request.reveal_blocks,
            commitment=commitment,
            bond_wei=bond_wei,
            permits=(),
            value_wei=value_wei,
        )
    else:
        call = CommitBid(
            auction=job_id,
            commitment=commitment,
            bond_wei=bond_wei,
            permits=(),
            value_wei=value_wei,
        )
    await chain.submit(call, key=f"bid/{key}")


async def _open_in_the_clear(
    ports: Ports, request: RequestFile, bid: PlannedBid, job_id: JobId, currency: Address
) -> None:
    """Open an auction with the smallest bid that it takes."""
    chain = ports.chain
    amount_wei = compute_least_bid(request.reserve_wei, Wei(0))
    key = bid_key(job_id, bid.body_hash)
    value_wei = await allow_taking(chain, currency, MARKET, amount_wei, key=key)
    call = OpenClearAuction(
        auction=job_id,
        tags=compute_tag_hashes(list(request.tags)),
        currency=currency,
        reserve_wei=request.reserve_wei,
        bid_blocks=request.commit_blocks,
        amount_wei=amount_wei,
        terms=fit_terms(bid.terms, amount_wei, chain.params),
        body_hash=Digest(bid.body_hash),
        permits=(),
        value_wei=value_wei,
    )
    await chain.submit(call, key=f"bid/{key}")


async def _bid_in_the_clear(ports: Ports, bid: PlannedBid, job: JobState, amount_wei: Wei) -> None:
    """Bid an amount in an open auction, adding what is missing to what is there already."""
    chain = ports.chain
    missing_wei = find_missing_wei(job, ports.signer.address, amount_wei)
    key = f"{bid_key(job.job_id, bid.body_hash)}/{amount_wei}"
    value_wei = await allow_taking(chain, job.currency, MARKET, missing_wei, key=key)
    call = PlaceBid(
        auction=job.job_id,
        amount_wei=amount_wei,
        terms=fit_terms(bid.terms, amount_wei, chain.params),
        body_hash=Digest(bid.body_hash),
        permits=(),
        value_wei=value_wei,
    )
    await chain.submit(call, key=f"bid/{key}")


async def see_auction(ports: Ports, job_id: JobId) -> None:
    """Do what a bidder has to do until its auction is over, and see it closed."""
    chain, me = ports.chain, ports.signer.address
    job = job_in(chain.state, job_id)
    bid = await recall_bid(ports, job)
    if job.mode is AuctionMode.OPEN:
        await _answer_bids(ports, job_id, bid)
    else:
        await _reveal(ports, job_id, bid)

    def now() -> JobState:
        return job_in(chain.state, job_id)

    bid_in(now(), me)
    bidders = sorted(now().bids)
    await take_turn(
        chain,
        Turn(now().reveal_end, bidders.index(me), len(bidders)),
        is_done=lambda: now().phase is not JobPhase.AUCTION,
        act=lambda: chain.submit(
            CloseAuction(auction=job_id),
            key=f"close-auction/{job_id}/{chain.state.block_number}",
        ),
    )


async def _reveal(ports: Ports, job_id: JobId, bid: PlannedBid) -> None:
    """Reveal a sealed bid in its window, if it is not revealed yet."""
    chain, me = ports.chain, ports.signer.address
    await chain.wait_block(job_in(chain.state, job_id).commit_end)
    job = job_in(chain.state, job_id)
    is_revealed = bid_in(job, me).amount_wei is not None
    if is_revealed or chain.state.block_number >= job.reveal_end:
        return
    call = RevealBid(
        auction=job_id,
        amount_wei=Wei(bid.amount_wei),
        terms=bid.terms,
        body_hash=Digest(bid.body_hash),
        salt=bid.salt,
    )
    try:
        await chain.submit(call, key=f"reveal/{job_id}")
        log.info("bid_revealed", amount_wei=bid.amount_wei)
    except TransactionReverted as refusal:
        # The auction must be closed all the same: it holds the deposit.
        log.warning("reveal_refused", reason=refusal.reason)


async def _answer_bids(ports: Ports, job_id: JobId, bid: PlannedBid) -> None:
    """Outbid others until the window is over; take the money back where the plan does not go."""
    chain, me = ports.chain, ports.signer.address

    def is_over(state: MarketState) -> bool:
        job = job_in(state, job_id)
        return job.phase is not JobPhase.AUCTION or state.block_number >= job.commit_end

    def find_next(state: MarketState) -> Wei | None:
        """Return what to bid now, `NOTHING` for ever, or None as long as this bid is the best."""
        job = job_in(state, job_id)
        bid_in(job, me)
        if is_over(state):
            return NOTHING
        if job.best_bid is not None and job.best_bid.bidder == me:
            return None
        amount_wei = find_least_bid(job)
        return amount_wei if amount_wei <= bid.amount_wei else NOTHING

    while amount_wei := await chain.wait_for(find_next):
        try:
            await _bid_in_the_clear(ports, bid, job_in(chain.state, job_id), amount_wei)
            log.info("bid_raised", amount_wei=amount_wei)
        except TransactionReverted as refusal:
            # Somebody was faster, or the window is over.
            log.info("raise_refused", reason=refusal.reason)
            await chain.wait_block(BlockNumber(chain.state.block_number + 1))
    if not is_over(chain.state):
        await _take_back(ports, job_id)
    await chain.wait_for(lambda state: True if is_over(state) else None)


async def _take_back(ports: Ports, job_id: JobId) -> None:
    """Pull a bid that cannot win any more; if that fails, there is payday after the close."""
    try:
        await ports.chain.submit(ReclaimBid(auction=job_id), key=f"take-back/{job_id}")
    except TransactionReverted as refusal:
        log.info("take_back_refused", reason=refusal.reason)
