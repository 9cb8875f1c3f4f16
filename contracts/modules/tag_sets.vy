#pragma version 0.4.3
"""
@title Sets of tags
@license Apache-2.0
@notice A set is a strictly ascending list, so that equal sets have one encoding.
"""

from modules import limits


@internal
@pure
def _is_valid(tags: DynArray[bytes32, limits.MAX_TAGS]) -> bool:
    """
    @notice Whether a list is a non-empty set.
    @param tags List to look at.
    @return True if the list has at least one tag and ascends strictly.
    """
    if len(tags) == 0:
        return False
    previous: uint256 = convert(tags[0], uint256)
    for position: uint256 in range(1, len(tags), bound=limits.MAX_TAGS):
        current: uint256 = convert(tags[position], uint256)
        if current <= previous:
            return False
        previous = current
    return True


@internal
@pure
def _is_superset(
    larger: DynArray[bytes32, limits.MAX_TAGS], smaller: DynArray[bytes32, limits.MAX_TAGS]
) -> bool:
    """
    @notice Whether one set contains another.
    @dev One pass over both, because both ascend.
    @param larger Set that should contain the other.
    @param smaller Set that should be contained.
    @return True if every tag of `smaller` is in `larger`.
    """
    found: uint256 = 0
    for tag: bytes32 in larger:
        if found < len(smaller) and smaller[found] == tag:
            found += 1
    return found == len(smaller)
