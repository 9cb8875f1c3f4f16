#pragma version 0.4.3
"""
@title Stage
@license Apache-2.0
@notice Plays all that a settlement asks: market, enrolment, rounds and seller deposits. A test
        says who takes part in a job and how its training ended. For tests only.
"""

from interfaces import IMarket
from interfaces import IRounds
from modules import limits
from modules import money
from modules import roster

records: HashMap[uint256, IMarket.JobRecord]
results: HashMap[uint256, IRounds.TrainingResult]
cones_of: public(HashMap[uint256, address])
sellers_of: public(HashMap[uint256, address])
is_seller_left_out: public(HashMap[uint256, HashMap[address, bool]])
is_closed: public(HashMap[uint256, bool])
forfeited: HashMap[uint256, DynArray[address, limits.MAX_SELLERS]]


@external
@payable
def __default__():
    """
    @notice Take the price of a job.
    """
    pass


@external
def enrol(job: uint256, cones: Bytes[roster.MAX_SIZE], sellers: Bytes[roster.MAX_SIZE]):
    """
    @notice Say who takes part in a job.
    @param job Number of the job.
    @param cones Records of its CONE nodes, one after the other.
    @param sellers Records of its sellers.
    """
    self.cones_of[job] = roster._freeze(cones)
    self.sellers_of[job] = roster._freeze(sellers)


@external
def leave_out(job: uint256, seller: address):
    """
    @notice Say that a draw left a seller out.
    @param job Number of the job.
    @param seller Account that enrolled.
    """
    self.is_seller_left_out[job][seller] = True


@external
def end(job: uint256, record: IMarket.JobRecord, result: IRounds.TrainingResult):
    """
    @notice Say how a job's training ended.
    @param job Number of the job.
    @param record The market's record of it.
    @param result How it ended.
    """
    self.records[job] = record
    self.results[job] = result


@external
@view
def job_of(job: uint256) -> IMarket.JobRecord:
    """
    @notice As the market.
    @param job Number of the job.
    @return What the test said.
    """
    return self.records[job]


@external
def close_job(job: uint256, course: IRounds.Course) -> IRounds.TrainingResult:
    """
    @notice As Rounds.
    @param job Number of the job.
    @param course Anything.
    @return What the test said.
    """
    assert self.results[job].outcome != 0, "stage: training not ended"
    return self.results[job]


@external
def forfeit(job: uint256, sellers: DynArray[address, limits.MAX_SELLERS]):
    """
    @notice As the seller deposits; only remembers.
    @param job Number of the job.
    @param sellers Sellers that forfeit.
    """
    self.forfeited[job] = sellers


@external
@view
def forfeited_by(job: uint256) -> DynArray[address, limits.MAX_SELLERS]:
    """
    @notice Who forfeited.
    @param job Number of the job.
    @return The sellers.
    """
    return self.forfeited[job]


@external
def release_escrow(job: uint256):
    """
    @notice As the market: hand the price over.
    @param job Number of the job.
    """
    assert not self.is_closed[job], "stage: job closed"
    self.is_closed[job] = True
    money._pay(self.records[job].currency, msg.sender, self.records[job].price_wei)


@external
def close(job: uint256):
    """
    @notice Close a job.
    @param job Number of the job.
    """
    self.is_closed[job] = True
