#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Enrolment
@license Apache-2.0
@notice Sellers and CONE nodes apply for the places of a job. When its enrolment closes, the
        members are frozen in rosters; if more applied than there are places, the chain draws.
@dev Holds no money: deposits are with `SellerDeposits`, stake is with `StakePool`.
"""

from interfaces import IDataRegistry
from interfaces import IEnrolment
from interfaces import IMarket
from interfaces import IRounds
from interfaces import ISellerDeposits
from interfaces import IStakePool
from modules import applications
from modules import commitments
from modules import draw
from modules import header as block_header
from modules import limits
from modules import money
from modules import params as deployment
from modules import payments
from modules import roster
from modules import terms as job_terms

implements: IEnrolment

# Of a job in its enrolment window; see `Market.job_of`.
STATUS_ENROLMENT: constant(uint256) = 3
# Two seeds have come within reach and gone by then: on this chain no header can be proved, and
# without this way out the price and the deposits would be kept for ever.
GIVE_UP_BLOCKS: constant(uint256) = 2 * block_header.HISTORY_REACH

PARAMS: immutable(deployment.Params)
MARKET: immutable(IMarket)
DATA_REGISTRY: immutable(IDataRegistry)
STAKE_POOL: immutable(IStakePool)
SELLER_DEPOSITS: immutable(ISellerDeposits)
ROUNDS: immutable(IRounds)

# Packed lists; see `applications.vy`.
sellers_applied: HashMap[uint256, uint256]
cones_applied: HashMap[uint256, uint256]
seller_rosters: HashMap[uint256, address]
cone_rosters: HashMap[uint256, address]


@deploy
def __init__(
    params: deployment.Params,
    market: address,
    data_registry: address,
    stake_pool: address,
    seller_deposits: address,
    rounds: address,
):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, which has the records of jobs.
    @param data_registry Where sellers' data sets are registered.
    @param stake_pool Where CONE nodes have their stake.
    @param seller_deposits Where sellers have their deposits.
    @param rounds Where jobs are trained.
    """
    PARAMS = params
    MARKET = IMarket(market)
    DATA_REGISTRY = IDataRegistry(data_registry)
    STAKE_POOL = IStakePool(stake_pool)
    SELLER_DEPOSITS = ISellerDeposits(seller_deposits)
    ROUNDS = IRounds(rounds)


@external
@payable
def enrol_seller(
    job: uint256,
    terms: job_terms.JobTerms,
    dataset_id: uint256,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Offer the caller's data set to a job, with the deposit that the job asks for.
    @dev A seller applies once: `SellerDeposits` takes no second deposit for a job.
    @param job Job in enrolment.
    @param terms Terms of the job.
    @param dataset_id A data set of the caller that carries all tags of the auction.
    @param permits At most one permit of the deployment's token for `SellerDeposits`.
    """
    record: IMarket.JobRecord = self._open_record(job, terms)
    assert staticcall DATA_REGISTRY.seller_of(dataset_id) == msg.sender, "enrolment: not your data"
    assert staticcall DATA_REGISTRY.has_tags(
        dataset_id, staticcall MARKET.tags_of(job)
    ), "enrolment: tags missing"
    is_token: bool = record.currency != empty(address)
    min_price_wei: uint256 = staticcall DATA_REGISTRY.min_price_of(dataset_id, is_token)
    assert record.price_wei >= min_price_wei, "enrolment: below your minimum price"
    index: uint256 = applications._count(self.sellers_applied[job])
    assert index < limits.MAX_APPLICANTS, "enrolment: too many sellers"

    self.sellers_applied[job] = applications._add_seller(self.sellers_applied[job], msg.sender)
    log IEnrolment.SellerEnrolled(
        job=job, index=index, seller=msg.sender, dataset_id=dataset_id
    )
    extcall SELLER_DEPOSITS.deposit(
        job,
        msg.sender,
        record.currency,
        payments._seller_deposit(record.price_wei, terms, PARAMS),
        permits,
        value=msg.value,
    )


@external
def enrol_cone(job: uint256, terms: job_terms.JobTerms, ticket_root: bytes32):
    """
    @notice Apply for a job's pool and lock the stake that its terms ask for.
    @dev A node applies once: `StakePool` takes no second lock for a job.
    @param job Job in enrolment.
    @param terms Terms of the job.
    @param ticket_root End h_0 of a ticket chain that the caller made for this job.
    """
    record: IMarket.JobRecord = self._open_record(job, terms)
    assert ticket_root != empty(bytes32), "enrolment: no ticket root"
    since_block: uint256 = staticcall STAKE_POOL.staked_since(msg.sender)
    # Who stakes after seeing an auction could choose its jobs by name.
    assert (
        since_block > 0 and since_block < record.opened_block
    ), "enrolment: staked too late"
    index: uint256 = applications._count(self.cones_applied[job])
    assert index < limits.MAX_APPLICANTS, "enrolment: too many nodes"

    self.cones_applied[job] = applications._add_cone(
        self.cones_applied[job], msg.sender, ticket_root
    )
    log IEnrolment.ConeEnrolled(job=job, index=index, node=msg.sender, ticket_root=ticket_root)
    extcall STAKE_POOL.lock(job, msg.sender, terms.stake_wei)


@external
def close_enrolment(
    job: uint256,
    terms: job_terms.JobTerms,
    sellers: DynArray[address, limits.MAX_APPLICANTS],
    cones: DynArray[IEnrolment.ConeApplication, limits.MAX_APPLICANTS],
    header: Bytes[1024],
):
    """
    @notice Freeze the members and start the job, or cancel it if too few applied. Anyone may call.
    @dev A job is cancelled too if a draw was needed and nobody could prove one for very long.
    @param job Job whose enrolment window is over.
    @param terms Terms of the job.
    @param sellers All that applied, in order.
    @param cones All that applied, in order, with their ticket roots.
    @param header RLP header of the block that draws the members; not looked at if everyone has a
           place. Empty to give the draw up, after `GIVE_UP_BLOCKS`.
    """
    record: IMarket.JobRecord = self._record(job, terms)
    assert block.number > record.enrolment_end, "enrolment: still open"
    assert (
        applications._of_sellers(sellers) == self.sellers_applied[job]
    ), "enrolment: not the sellers"
    assert applications._of_cones(cones) == self.cones_applied[job], "enrolment: not the nodes"
    is_short: bool = len(sellers) < terms.sellers_min or len(cones) < terms.cones_min
    is_drawn: bool = len(sellers) > terms.sellers_max or len(cones) > terms.cones_max
    if is_short or (is_drawn and self._is_given_up(record.enrolment_end, header)):
        extcall MARKET.cancel_job(job)
        return

    seed: bytes32 = empty(bytes32)
    if is_drawn:
        seed = self._seed(job, record.enrolment_end, header)
    chosen_sellers: uint256 = draw._everyone(len(sellers))
    if len(sellers) > terms.sellers_max:
        chosen_sellers = draw._draw(seed, draw.SELLERS, terms.sellers_max, len(sellers))
        log IEnrolment.SellersDrawn(job=job, indices=draw._positions(chosen_sellers))
    chosen_cones: uint256 = draw._everyone(len(cones))
    if len(cones) > terms.cones_max:
        chosen_cones = draw._draw(seed, draw.CONES, terms.cones_max, len(cones))
        log IEnrolment.ConesDrawn(job=job, indices=draw._positions(chosen_cones))

    self.seller_rosters[job] = roster._freeze(roster._pack_sellers(sellers, chosen_sellers))
    pool: address = roster._freeze(roster._pack_cones(cones, chosen_cones))
    self.cone_rosters[job] = pool
    cone_count: uint256 = min(len(cones), terms.cones_max)
    validation_end: uint256 = (
        max(block.number, record.enrolment_end + terms.decision_blocks)
        + terms.validation_blocks
    )
    log IEnrolment.EnrolmentClosed(
        job=job,
        sellers=min(len(sellers), terms.sellers_max),
        cones=cone_count,
        enrolment_end=record.enrolment_end,
        validation_end=validation_end,
    )
    extcall MARKET.start_job(job)
    extcall ROUNDS.open_job(job, record.terms_hash, validation_end, pool, cone_count)


@external
@view
def sellers_of(job: uint256) -> address:
    """
    @notice Where the sellers of a job are listed, by index.
    @param job Number of the job.
    @return Roster of sellers; zero until the enrolment closed with members.
    """
    return self.seller_rosters[job]


@external
@view
def cones_of(job: uint256) -> address:
    """
    @notice Where the pool of a job is listed, by index.
    @param job Number of the job.
    @return Roster of CONE nodes; zero until the enrolment closed with members.
    """
    return self.cone_rosters[job]


@external
@view
def applications_of(job: uint256) -> (uint256, uint256):
    """
    @notice How many applied for the places of a job.
    @param job Number of the job.
    @return Sellers, and CONE nodes.
    """
    return (
        applications._count(self.sellers_applied[job]),
        applications._count(self.cones_applied[job]),
    )


@external
@view
def is_seller_left_out(job: uint256, account: address) -> bool:
    """
    @notice Whether a job runs without a seller.
    @param job Number of the job.
    @param account Account that may have applied.
    @return True if the members are fixed and the account is none of the sellers.
    """
    members: address = self.seller_rosters[job]
    return members != empty(address) and not roster._holds(members, roster.SELLER_SIZE, account)


@external
@view
def is_cone_left_out(job: uint256, account: address) -> bool:
    """
    @notice Whether a job runs without a CONE node.
    @param job Number of the job.
    @param account Account that may have applied.
    @return True if the members are fixed and the account is not in the pool.
    """
    members: address = self.cone_rosters[job]
    return members != empty(address) and not roster._holds(members, roster.CONE_SIZE, account)


@internal
@view
def _record(job: uint256, terms: job_terms.JobTerms) -> IMarket.JobRecord:
    """
    @notice Record of a job whose members are not fixed yet, after checking the terms.
    @param job Number of the job.
    @param terms Terms that the caller brought.
    @return The record.
    """
    record: IMarket.JobRecord = staticcall MARKET.job_of(job)
    assert record.status == STATUS_ENROLMENT, "enrolment: not in enrolment"
    assert job_terms._hash(terms) == record.terms_hash, "enrolment: wrong terms"
    return record


@internal
@view
def _open_record(job: uint256, terms: job_terms.JobTerms) -> IMarket.JobRecord:
    """
    @notice Record of a job that takes applications now.
    @param job Number of the job.
    @param terms Terms that the caller brought.
    @return The record.
    """
    record: IMarket.JobRecord = self._record(job, terms)
    assert block.number <= record.enrolment_end, "enrolment: closed"
    return record


@internal
@view
def _seed(job: uint256, enrolment_end: uint256, header: Bytes[1024]) -> bytes32:
    """
    @notice Seed of a job's draws.
    @dev The applications are complete before the seed's block exists. Nothing depends on the seed
         before this call, so it moves on when its block is out of reach.
    @param job Number of the job.
    @param enrolment_end Last block of the enrolment window.
    @param header RLP header of the seed's block.
    @return The seed.
    """
    seed_block: uint256 = block_header._anchor_block(enrolment_end + PARAMS.seed_delay_blocks)
    randomness: bytes32 = block_header._randomness(seed_block, header)
    return commitments._enrol_seed(MARKET.address, job, randomness)


@internal
@view
def _is_given_up(enrolment_end: uint256, header: Bytes[1024]) -> bool:
    """
    @notice Whether a caller gives a draw up, and may.
    @param enrolment_end Last block of the enrolment window.
    @param header What the caller brought as the header of the seed's block.
    @return True if it brought none, long after the first seed.
    """
    seed_block: uint256 = enrolment_end + PARAMS.seed_delay_blocks
    return len(header) == 0 and block.number > seed_block + GIVE_UP_BLOCKS
