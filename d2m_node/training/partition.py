"""Which samples of a dataset a seller holds: a held-out cut, and label-skewed parts.

All parts must be cut with the same numpy version: its generators may change between releases.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from d2m_node.errors import UserError
from d2m_node.training.dataset_file import Partition, Split

MIN_PART_SAMPLES: Final = 10
TARGET_GROUPS: Final = 10

Int64Array = npt.NDArray[np.int64]


def select_split(sample_count: int, split: Split) -> Int64Array:
    """Select the positions of one side of a random cut, ascending.

    Raises UserError if nothing would be left to train on.
    """
    if split.held_out_count >= sample_count:
        raise UserError(
            f"split.held_out_count: {split.held_out_count} of {sample_count} samples leaves none"
        )
    order = _generator(split.seed).permutation(sample_count)
    held_out, rest = np.split(order, [split.held_out_count])
    return np.sort(held_out if split.part == "held-out" else rest)


def select_partition(labels: Int64Array, partition: Partition) -> Int64Array:
    """Select the positions of part ``partition.index``, ascending."""
    return partition_labels(labels, partition)[partition.index]


def partition_labels(labels: Int64Array, partition: Partition) -> list[Int64Array]:
    """Cut labelled samples into disjoint parts that cover all of them.

    Parameters
    ----------
    labels : shape (n,)
    partition :
        Each class is shared out by its own draw from a symmetric Dirichlet distribution. Parts
        below MIN_PART_SAMPLES then take samples from the largest part.

    Returns
    -------
    positions :
        One ascending array per part.

    Raises
    ------
    UserError
        If there are too few samples for so many parts.

    Source: Hsu, Qi, Brown 2019 (arXiv:1909.06335), the label skew of MECHANISM 13.1.
    """
    if len(labels) < partition.parts * MIN_PART_SAMPLES:
        raise UserError(
            f"partition.parts: {len(labels)} samples make at most "
            f"{len(labels) // MIN_PART_SAMPLES} parts of {MIN_PART_SAMPLES}"
        )
    generator = _generator(partition.seed)
    concentration = np.full(partition.parts, partition.alpha_milli / 1000)
    shares: list[list[Int64Array]] = [[] for _ in range(partition.parts)]
    for label in np.unique(labels):
        positions = generator.permutation(np.flatnonzero(labels == label))
        proportions = generator.dirichlet(concentration)
        cuts = (np.cumsum(proportions)[:-1] * len(positions)).astype(np.int64)
        for share, piece in zip(shares, np.split(positions, cuts), strict=True):
            share.append(piece)
    # Mixed, so that a part that gives does not give one class only.
    parts = [generator.permutation(np.concatenate(share)).tolist() for share in shares]
    _fill_small_parts(parts)
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def group_targets(targets: Int64Array) -> Int64Array:
    """Put a regression's targets into ten groups of equal size, by rank, to skew parts by."""
    ranks = np.argsort(np.argsort(targets, kind="stable"), kind="stable")
    groups: Int64Array = ranks * TARGET_GROUPS // len(targets)
    return groups


def _fill_small_parts(parts: list[list[int]]) -> None:
    for part in parts:
        while len(part) < MIN_PART_SAMPLES:
            part.append(max(parts, key=len).pop())


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
