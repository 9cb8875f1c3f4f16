"""Sets of small indices as the bits of one integer: bit i stands for index i.

A job has at most 256 sellers and CONE nodes, so a set of them is one word (MECHANISM 9.3).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BitmapStatement:
    """What a CONE node says that it holds, with its signature as it stands on the chain."""

    cone_index: int
    bitmap: int
    """Of sellers whose updates it holds."""
    r: bytes
    vs: bytes


def encode_bitmap(indices: Iterable[int]) -> int:
    """Set one bit per index."""
    bitmap = 0
    for index in indices:
        bitmap |= 1 << index
    return bitmap


def decode_bitmap(bitmap: int) -> tuple[int, ...]:
    """List the set bits, ascending."""
    return tuple(index for index in range(bitmap.bit_length()) if bitmap >> index & 1)


def compute_input_set(availability: Sequence[int], sampled: int, pool_size: int) -> int:
    """Find the updates that a round uses, from the recorded availability bitmaps.

    Silence means holding: a node that holds everything need not say so on the chain, so a round
    in which all updates arrived costs no transaction. Nothing is lost by it: what at least half of
    the pool says it lacks is out, and a silent minority can bring in no more than it could by
    claiming to hold it. Whoever then lacks an input after all votes "no data".

    Parameters
    ----------
    availability :
        The first recorded bitmap of each CONE node that recorded one.
    sampled :
        Bitmap of the sampled sellers; bits of others are dropped.
    pool_size :
        Nodes in the job's pool.

    Returns
    -------
    bitmap :
        I_t: sampled sellers whose update strictly more than half of the pool do not say they lack.

    Source: MECHANISM 6, step 4, which counts the recorded bitmaps only.
    """
    return encode_bitmap(
        index
        for index in decode_bitmap(sampled)
        if 2 * count_lacking(availability, index) < pool_size
    )


def count_lacking(availability: Iterable[int], seller_index: int) -> int:
    """Count the nodes that say they lack a seller's update."""
    return sum(1 - (bitmap >> seller_index & 1) for bitmap in availability)


def group_statements(
    statements: Iterable[BitmapStatement],
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[bytes, bytes], ...]]:
    """Put statements into the form that the chain logs, equal ones together.

    Returns
    -------
    groups :
        (bitmap of nodes, bitmap of sellers), ascending by the latter.
    signatures :
        (r, vs), group by group, by index of the nodes.
    """
    ordered = sorted(statements, key=lambda one: (one.bitmap, one.cone_index))
    members: dict[int, int] = {}
    for one in ordered:
        members[one.bitmap] = members.get(one.bitmap, 0) | 1 << one.cone_index
    groups = tuple((nodes, bitmap) for bitmap, nodes in members.items())
    return groups, tuple((one.r, one.vs) for one in ordered)


def list_statements(
    groups: Iterable[tuple[int, int]], signatures: Iterable[tuple[bytes, bytes]]
) -> tuple[BitmapStatement, ...]:
    """List the statements that were logged together: the inverse of :func:`group_statements`.

    Anybody can log anything: what is left over of nodes or of signatures is dropped.
    """
    told = ((index, bitmap) for nodes, bitmap in groups for index in decode_bitmap(nodes))
    return tuple(
        BitmapStatement(cone_index=index, bitmap=bitmap, r=r, vs=vs)
        for (index, bitmap), (r, vs) in zip(told, signatures, strict=False)
    )
