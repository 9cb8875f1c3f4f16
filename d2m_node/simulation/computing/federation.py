"""Who holds which data in a simulation: sellers, the buyer, and the test data that nobody holds.

All of it follows from a seed. The buyer's validation set is cut from the training data before the
sellers' parts are; the test data are the data set's own, of the digits a cut that comes first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.training.dataset_file import (
    AnyDatasetFile,
    Cifar10File,
    DigitsFile,
    IdxFile,
    Partition,
)
from d2m_node.training.formats import DataFolders, read_samples
from d2m_node.training.partition import partition_labels

DatasetName = Literal["digits", "mnist", "fashion-mnist", "cifar-10"]

CLASSES: Final = 10
"""Of each of the four data sets."""
DIGITS_TEST_COUNT: Final = 297
TAG: Final = "benchmark"

_CIFAR_BATCHES: Final = [f"cifar-10/data_batch_{number}.bin.xz" for number in range(1, 6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """Which data are shared out, and how."""

    dataset: DatasetName = "digits"
    alpha_milli: int = 500
    """Dirichlet's alpha in thousandths: lower is more skewed."""
    validation_count: int
    """Samples that the buyer holds."""
    test_count: int | None = None
    """The most samples to test on; None: all there are, of the digits `DIGITS_TEST_COUNT`."""
    per_seller: int | None = None
    """The most samples of one seller; None: all of its part."""
    held_out_count: int = 0
    """So many samples of the training data are tested on, instead of the test data, and are
    nobody's: settings are chosen by them. None of it if zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """The data of all nodes."""

    sellers: tuple[Samples, ...]
    validation: Samples
    test: Samples


def share_out(plan: DataPlan, sellers: int, seed: int, folder: Path | None) -> Federation:
    """Read a data set and share it out. ``folder`` holds the benchmark data.

    Raises UserError that names the field, or the file that is missing.
    """
    train, test = _load(plan, seed, folder)
    if plan.held_out_count:
        test, train = _cut(train, plan.held_out_count, "held_out_samples", seed)
    validation, pool = _cut(train, plan.validation_count, "validation_samples", seed)
    partition = Partition(alpha_milli=plan.alpha_milli, parts=sellers, index=0, seed=seed)
    try:
        parts = partition_labels(pool.labels, partition)
    except UserError as exc:
        raise UserError(f"sizes.sellers: too many for the data: {exc}") from exc
    chooser = _generator(seed, "parts")
    chosen = [np.sort(chooser.permutation(part)[: plan.per_seller]) for part in parts]
    return Federation(
        sellers=tuple(_take(pool, part) for part in chosen),
        validation=validation,
        test=_limit(test, plan.test_count),
    )


def _cut(train: Samples, count: int, key: str, seed: int) -> tuple[Samples, Samples]:
    """Draw some samples; return them, and the others."""
    if count >= len(train.labels):
        raise UserError(
            f"data.{key}: {count} of {len(train.labels)} samples leaves none for the sellers"
        )
    order = _generator(seed, key.removesuffix("_samples")).permutation(len(train.labels))
    cut, rest = np.split(order, [count])
    return _take(train, np.sort(cut)), _take(train, np.sort(rest))


def load_benchmark(dataset: DatasetName, folder: Path | None) -> tuple[Samples, Samples]:
    """Read the training and the test samples of a benchmark. Raises UserError."""
    if folder is None:
        raise UserError(f"data.dataset: {dataset} needs the folder with the data; give --data DIR")
    folders = DataFolders(beside=folder, data=None)
    train, test = _describe(dataset)
    return read_samples(train, folders), read_samples(test, folders)


def _load(plan: DataPlan, seed: int, folder: Path | None) -> tuple[Samples, Samples]:
    if plan.dataset != "digits":
        return load_benchmark(plan.dataset, folder)
    digits = read_samples(DigitsFile(tags=[TAG]), DataFolders(beside=Path(), data=None))
    order = _generator(seed, "test").permutation(len(digits.labels))
    test, train = np.split(order, [DIGITS_TEST_COUNT])
    return _take(digits, np.sort(train)), _take(digits, np.sort(test))


def _describe(dataset: DatasetName) -> tuple[AnyDatasetFile, AnyDatasetFile]:
    """Describe the files of training and test data, as their homes name them."""
    if dataset == "cifar-10":
        test = Cifar10File(tags=[TAG], paths=["cifar-10/test_batch.bin.xz"])
        return Cifar10File(tags=[TAG], paths=_CIFAR_BATCHES), test
    train, test_part = (
        IdxFile(
            tags=[TAG],
            inputs_path=f"{dataset}/{part}-images-idx3-ubyte.gz",
            labels_path=f"{dataset}/{part}-labels-idx1-ubyte.gz",
        )
        for part in ("train", "t10k")
    )
    return train, test_part


def _limit(samples: Samples, count: int | None) -> Samples:
    return Samples(inputs=samples.inputs[:count], labels=samples.labels[:count])


def _take(samples: Samples, positions: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Samples:
    return Samples(inputs=samples.inputs[positions], labels=samples.labels[positions])


def _generator(seed: int, purpose: str) -> np.random.Generator:
    """Give each cut randomness of its own, so that one does not move the others."""
    return np.random.Generator(np.random.PCG64([seed, *purpose.encode()]))
