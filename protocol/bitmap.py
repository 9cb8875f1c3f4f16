"""Sets of small indices as the bits of one integer: bit i stands for index i.

A job has at most 256 sellers and CONE nodes, so a set of them is one word (MECHANISM 9.3).
"""

from collections.abc import Iterable, Sequence


def encode_bitmap(indices: Iterable[int]) -> int:
    """Set one bit per index."""
    bitmap = 0
    for index in indices:
        bitmap |= 1 << index
    return bitmap


def decode_bitmap(bitmap: int) -> tuple[int, ...]:
    """List the set bits, ascending."""
    return tuple(index for index in range(bitmap.bit_length()) if bitmap >> index & 1)


def compute_input_set(availability: Sequence[int], sampled: int) -> int:
    """Find the updates that a round uses, from the recorded availability bitmaps.

    Parameters
    ----------
    availability :
        The first recorded bitmap of each CONE node that recorded one.
    sampled :
        Bitmap of the sampled sellers; bits of others are dropped.

    Returns
    -------
    bitmap :
        I_t: sampled sellers with a bit in strictly more than half of the recorded bitmaps.

    Source: MECHANISM 6, step 4.
    """
    return encode_bitmap(
        index
        for index in decode_bitmap(sampled)
        if 2 * sum(bitmap >> index & 1 for bitmap in availability) > len(availability)
    )
