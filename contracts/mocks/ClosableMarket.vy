#pragma version 0.4.3
"""
@title Closable market
@license Apache-2.0
@notice Says which jobs are closed, as a test wants it. For tests only.
"""

is_closed: public(HashMap[uint256, bool])


@external
def close(job: uint256):
    """
    @notice Close a job.
    @param job Number of the job.
    """
    self.is_closed[job] = True
