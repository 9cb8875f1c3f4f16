"""The datasets of this machine, described by `dataset.toml` files."""

from pathlib import Path

import numpy as np
import trio

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.training.dataset_file import (
    AnyDatasetFile,
    NpzFile,
    TableFile,
    read_dataset_file,
)
from d2m_node.training.formats import DataFolders, read_samples
from d2m_node.training.partition import group_targets, select_partition, select_split


class LocalDatasets:
    """The dataset port over files. Files are read in worker threads.

    Parameters
    ----------
    data_folder :
        Where data files are that are not beside their `dataset.toml`: the folder that the
        environment variable D2M_DATA names.
    """

    def __init__(self, data_folder: Path | None = None) -> None:
        self._data_folder = data_folder

    async def load_samples(self, path: str) -> Samples:
        """Load what a dataset file describes. Raises UserError that names the file and field."""
        return await trio.to_thread.run_sync(
            load_samples, Path(path), self._data_folder, abandon_on_cancel=True
        )

    async def load_tags(self, path: str) -> tuple[str, ...]:
        """Return the tags that a dataset file declares, ascending. Raises UserError."""
        described = await trio.to_thread.run_sync(
            read_dataset_file, Path(path), abandon_on_cancel=True
        )
        return tuple(sorted(set(described.tags)))


def load_samples(path: Path, data_folder: Path | None = None) -> Samples:
    """Load what a dataset file describes: read, then split, then partition.

    Raises UserError that names the file and field.
    """
    described = read_dataset_file(path)
    samples = read_samples(described, DataFolders(beside=path.parent, data=data_folder))
    try:
        return _select(samples, described)
    except UserError as exc:
        raise UserError(f"{path}: {exc}") from exc


def _select(samples: Samples, described: AnyDatasetFile) -> Samples:
    positions = np.arange(len(samples.labels))
    if described.split is not None:
        positions = select_split(len(positions), described.split)
    if described.partition is not None:
        labels = samples.labels[positions]
        if isinstance(described, NpzFile | TableFile) and described.task == "regression":
            labels = group_targets(labels)
        positions = positions[select_partition(labels, described.partition)]
    return Samples(inputs=samples.inputs[positions], labels=samples.labels[positions])
