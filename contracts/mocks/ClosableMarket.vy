#pragma version 0.4.3
"""
@title Closable market
@license Apache-2.0
@notice Says which jobs are closed, and whom they run without, as a test wants it: a market and an
        enrolment. For tests only.
"""

is_closed: public(HashMap[uint256, bool])
is_cone_left_out: public(HashMap[uint256, HashMap[address, bool]])


@external
def close(job: uint256):
    """
    @notice Close a job.
    @param job Number of the job.
    """
    self.is_closed[job] = True


@external
def leave_out(job: uint256, account: address):
    """
    @notice Let a job run without an account.
    @param job Number of the job.
    @param account CONE node that applied.
    """
    self.is_cone_left_out[job][account] = True
