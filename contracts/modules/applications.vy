#pragma version 0.4.3
"""
@title Applications for the places of a job
@license Apache-2.0
@notice A list of applications is kept as one word, so that applying costs one write: a hash over
        all that applied, in order, and how many they are. Whoever needs the list brings it along.
@dev 240 bits of the hash are kept. To find two lists of one word takes 2**120 tries.
"""

from interfaces import IEnrolment
from modules import limits

COUNT_MASK: constant(uint256) = 2**16 - 1


@internal
@pure
def _count(applications: uint256) -> uint256:
    """
    @notice Length of a list.
    @param applications Word of the list; zero if it is empty.
    @return How many applied.
    """
    return applications & COUNT_MASK


@internal
@pure
def _add_seller(applications: uint256, account: address) -> uint256:
    """
    @notice Append a seller to a list.
    @param applications Word of the list.
    @param account Seller that applies.
    @return Word of the longer list.
    """
    return self._add(applications, keccak256(abi_encode(applications, account)))


@internal
@pure
def _add_cone(applications: uint256, account: address, ticket_root: bytes32) -> uint256:
    """
    @notice Append a CONE node to a list.
    @param applications Word of the list.
    @param account Node that applies.
    @param ticket_root End of the node's ticket chain.
    @return Word of the longer list.
    """
    return self._add(applications, keccak256(abi_encode(applications, account, ticket_root)))


@internal
@pure
def _of_sellers(accounts: DynArray[address, limits.MAX_APPLICANTS]) -> uint256:
    """
    @notice Word of a whole list of sellers.
    @param accounts Sellers, in the order of their applications.
    @return The word.
    """
    applications: uint256 = 0
    for account: address in accounts:
        applications = self._add_seller(applications, account)
    return applications


@internal
@pure
def _of_cones(
    cones: DynArray[IEnrolment.ConeApplication, limits.MAX_APPLICANTS]
) -> uint256:
    """
    @notice Word of a whole list of CONE nodes.
    @param cones Nodes with their ticket roots, in the order of their applications.
    @return The word.
    """
    applications: uint256 = 0
    for cone: IEnrolment.ConeApplication in cones:
        applications = self._add_cone(applications, cone.account, cone.ticket_root)
    return applications


@internal
@pure
def _add(applications: uint256, chained: bytes32) -> uint256:
    """
    @notice Put a hash and a count into one word.
    @param applications Word of the list before.
    @param chained Hash over that word and the new application.
    @return Word of the longer list.
    """
    kept: uint256 = convert(chained, uint256) & ~COUNT_MASK
    return kept | (self._count(applications) + 1)
