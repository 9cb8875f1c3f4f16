"""Exact algebra on many long updates: norms, products, means. Source: MECHANISM 5.

An update is int32 in memory. Wherever coordinates are multiplied they are float64, because that is
what BLAS is fast at. Float64 is only a container: each number in it is an integer (or, while a
coordinate is scaled, a multiple of 2**-20) that it holds exactly, and no sum leaves the range in
which that is so. Hence the order in which BLAS adds, its threads and its kernels do not matter.

No function copies all updates. The work goes through slices of columns, small enough for the cache
and never more than half of the updates' bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from protocol.fixed_point import Float64, Int32
from protocol.update import MAX_UPDATE

ONE_Q20 = 1 << 20
_HALF_Q20 = 1 << 19

MAX_SCALE_Q20 = 1 << 22
"""The norm band lets an update be scaled by at most four."""

_EXACT_COLUMNS = 1 << 13
# 2**13 products of coordinates of at most 2**20 - 1 sum to less than 2**53: a product over so many
# columns is exact in float64, whatever the order. (No longer, and OpenBLAS would not start threads
# for the product of two vectors either, which wait for each other on a busy machine.)

_INT64_COLUMNS = 1 << 21
# And 2**21 of them sum to less than 2**61, which int64 holds; beyond, Python's integers add up.

_SLICE_COLUMNS = 2 * _EXACT_COLUMNS
# What is made at once: longer, and rows leave the cache; shorter, and numpy's calls weigh more.

_PADDING = 8
# Rows a power of two apart would share the same few lines of the cache.


@dataclass(frozen=True, slots=True)
class ScaledUpdate:
    """An update times a factor, whose coordinates are made when they are read.

    A coordinate is ``clip((u * scale_q20 + 2**19) >> 20, -MAX_UPDATE, MAX_UPDATE)``. The factor 1
    leaves the update as it is. Made by :func:`measure_update`, which checks the bound.
    """

    update: Int32
    """Shape (d,)."""
    largest: int
    """Largest absolute value of ``update``, at most MAX_UPDATE."""
    scale_q20: int = ONE_Q20
    """The factor, at most MAX_SCALE_Q20."""

    def __len__(self) -> int:
        """Return d."""
        return len(self.update)

    def fill(self, start: int, out: Float64) -> None:
        """Write the scaled coordinates from ``start`` on, as integers, into a whole row.

        Exact: with u below 2**20 and the factor at most 4, the product is a multiple of 2**-20
        below 2**22. That and the half take 43 bits of the 53.
        """
        out[...] = self.update[start : start + len(out)]
        if self.scale_q20 == ONE_Q20:
            return
        out *= self.scale_q20 / ONE_Q20
        out += 0.5
        np.floor(out, out=out)
        if (self.largest * self.scale_q20 + _HALF_Q20) >> 20 > MAX_UPDATE:
            np.clip(out, -MAX_UPDATE, MAX_UPDATE, out=out)

    def build(self) -> Int32:
        """Make all scaled coordinates at once; shape (d,)."""
        built = np.empty(len(self), dtype=np.int32)
        for columns, (row,) in _iter_slices(1, len(self)):
            self.fill(columns.start, row)
            built[columns] = row
        return built


def measure_update(update: Int32) -> ScaledUpdate:
    """Take an update as it is; shape (d,).

    Raises
    ------
    ValueError
        If a coordinate is outside +-MAX_UPDATE: products would not be exact.
    """
    largest = max(int(update.max()), -int(update.min())) if update.size else 0
    if largest > MAX_UPDATE:
        raise ValueError(f"a coordinate exceeds {MAX_UPDATE}: products would not be exact")
    return ScaledUpdate(update, largest)


def compute_squared_norm(update: ScaledUpdate) -> int:
    """Multiply an update with itself, exactly; an integer of unlimited size."""
    total = 0
    for columns, (row,) in _iter_slices(1, len(update)):
        update.fill(columns.start, row)
        total += sum(int(piece @ piece) for piece in _iter_exact(row))
    return total


def compute_gram(updates: Sequence[ScaledUpdate]) -> list[list[int]]:
    """Multiply every update with every other, exactly.

    Parameters
    ----------
    updates : n of d coordinates

    Returns
    -------
    gram :
        n x n integers of unlimited size.

    Raises
    ------
    ValueError
        If their lengths differ.
    """
    count, length = len(updates), _get_length(updates)
    total = np.zeros((count, count), dtype=object)
    partial = np.zeros((count, count), dtype=np.int64)
    for columns, block in _iter_slices(count, length):
        if columns.start % _INT64_COLUMNS == 0:
            total += partial
            partial[...] = 0
        for row, update in zip(block, updates, strict=True):
            update.fill(columns.start, row)
        for piece in _iter_exact(block):
            partial += (piece @ piece.T).astype(np.int64)
    total += partial
    return [[int(entry) for entry in row] for row in total]


def compute_squared_distances(gram: Sequence[Sequence[int]]) -> list[list[int]]:
    """Turn products into squared distances, |a|^2 + |b|^2 - 2ab; n x n exact integers."""
    norms = [row[i] for i, row in enumerate(gram)]
    return [
        [norms[i] + norm - 2 * product for norm, product in zip(norms, row, strict=True)]
        for i, row in enumerate(gram)
    ]


def compute_rounded_mean(updates: Sequence[ScaledUpdate]) -> Int32:
    """Average updates coordinate by coordinate, rounding half up; shape (d,).

    Raises
    ------
    ValueError
        If there is none, or their lengths differ.
    """
    if not updates:
        raise ValueError("the mean of no updates")
    count, length = len(updates), _get_length(updates)
    mean = np.empty(length, dtype=np.int32)
    for columns, block in _iter_slices(2, length):
        row, total = block
        total[...] = 0
        for update in updates:
            update.fill(columns.start, row)
            np.add(total, row, out=total)
        mean[columns] = (2 * total.astype(np.int64) + count) // (2 * count)
    return mean


def _get_length(updates: Sequence[ScaledUpdate]) -> int:
    lengths = {len(update) for update in updates}
    if len(lengths) > 1:
        raise ValueError(f"updates of different lengths: {sorted(lengths)}")
    return lengths.pop() if lengths else 0


def _iter_slices(row_count: int, length: int) -> Iterator[tuple[slice, Float64]]:
    """Yield slices of columns, each with the same block of rows to write them into.

    At most a quarter of the columns: float64 takes twice the bytes of int32, so a block of all
    updates takes at most half of theirs.
    """
    width = max(1, min(_SLICE_COLUMNS, length // 4))
    block = np.empty((row_count, width + _PADDING))
    for start in range(0, length, width):
        stop = min(start + width, length)
        yield slice(start, stop), block[:, : stop - start]


def _iter_exact(block: Float64) -> Iterator[Float64]:
    """Cut the last axis so that products over each piece are exact."""
    for start in range(0, block.shape[-1], _EXACT_COLUMNS):
        yield block[..., start : start + _EXACT_COLUMNS]
