"""Data files to samples: bounded, and every flaw is one UserError that names the file.

The files may be hostile: sizes are checked before memory is taken, archives cannot unpack to
more than MAX_DATA_BYTES, and nothing is ever unpickled.
"""

import gzip
import importlib.util
import io
import lzma
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.training import archives
from d2m_node.training.archives import check_size, read_file, read_tar
from d2m_node.training.dataset_file import (
    MAX_SAMPLES,
    AnyDatasetFile,
    Cifar10File,
    Cifar100File,
    CsvFile,
    DigitsFile,
    IdxFile,
    NpzFile,
    ParquetFile,
    Task,
)
from d2m_node.training.parquet import read_parquet
from d2m_node.training.tables import MAX_LABEL, parse_table
from d2m_node.user_input import expand_home
from protocol.samples import DTYPES, MAX_TARGET_Q16, SampleArray

_IDX_UBYTE: Final = 8
_CIFAR_SHAPE: Final = (3, 32, 32)
_CIFAR_PIXELS: Final = prod(_CIFAR_SHAPE)
_TAR_MAGIC: Final = (257, b"ustar")
_DIGITS_LARGEST: Final = 16

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DataFolders:
    """Where relative paths are looked for, in this order.

    ``beside`` is the folder of the `dataset.toml`; ``data``, if set, the folder that the
    environment variable D2M_DATA names.
    """

    beside: Path
    data: Path | None

    def find(self, name: str) -> Path:
        """Return the file that a dataset file names. Raises UserError with the places tried."""
        folders = [self.beside, *([] if self.data is None else [self.data])]
        candidates = [folder / expand_home(name) for folder in folders]
        for candidate in candidates:
            try:
                if candidate.is_file():
                    return candidate
            except OSError:  # a name too long, or a folder we may not enter
                continue
        tried = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
        hint = "; set D2M_DATA to the folder with the data" if self.data is None else ""
        raise UserError(f"no data file {tried}{hint}")


def read_samples(described: AnyDatasetFile, folders: DataFolders) -> Samples:
    """Read all samples of the file or files that a dataset file describes. Raises UserError."""
    match described:
        case DigitsFile():
            return _read_digits()
        case IdxFile(inputs_path=inputs_path, labels_path=labels_path):
            return _read_idx_pair(folders.find(inputs_path), folders.find(labels_path))
        case Cifar10File(paths=paths, members=members):
            return _read_cifar([folders.find(path) for path in paths], members, CIFAR_10)
        case Cifar100File(paths=paths, members=members, labels=labels):
            found_paths = [folders.find(path) for path in paths]
            return _read_cifar(found_paths, members, CIFAR_100[labels])
        case NpzFile(path=path, task=task):
            return _read_npz(folders.find(path), task)
        case CsvFile(path=path):
            found = folders.find(path)
            return parse_table(found, read_file(found, archives.MAX_DATA_BYTES), described)
        case ParquetFile(path=path):
            found = folders.find(path)
            check_size(found, archives.MAX_DATA_BYTES)
            return read_parquet(found, described)


def _read_digits() -> Samples:
    """Read the data file of scikit-learn, not the package: importing it costs 1.3 s and 100 MB."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("the digits dataset comes with scikit-learn: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    except OSError as exc:
        raise UserError(f"{path}: this scikit-learn has no digits where they should be") from exc
    pixels = table[:, :-1] * 255 // _DIGITS_LARGEST
    return Samples(inputs=pixels.astype(np.uint8).reshape(-1, 1, 8, 8), labels=table[:, -1])


def _read_idx_pair(inputs_path: Path, labels_path: Path) -> Samples:
    inputs = _parse_idx(inputs_path, read_file(inputs_path, archives.MAX_DATA_BYTES))
    labels = _parse_idx(labels_path, read_file(labels_path, archives.MAX_DATA_BYTES))
    if inputs.ndim == 3:  # grey images carry no channel axis
        inputs = inputs[:, np.newaxis]
    return _build_samples(inputs, labels, inputs_path, labels_path)


def _parse_idx(path: Path, data: bytes) -> UInt8Array:
    if len(data) < 4 or data[:3] != bytes([0, 0, _IDX_UBYTE]) or not 1 <= data[3] <= 4:
        raise UserError(f"{path}: not an IDX file of bytes with 1 to 4 dimensions")
    offset = 4 + 4 * data[3]
    if len(data) < offset:
        raise UserError(f"{path}: the IDX header is cut off")
    shape = struct.unpack(f">{data[3]}I", data[4:offset])
    if len(data) - offset != prod(shape):
        raise UserError(f"{path}: holds {len(data) - offset} bytes of data, shape is {shape}")
    return np.frombuffer(data, dtype=np.uint8, offset=offset).reshape(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cifar:
    """How one version of CIFAR is laid out: label bytes, then the pixels of three colours."""

    name: str
    label_bytes: int
    label_position: int
    classes: int
    training_members: tuple[str, ...]


CIFAR_10: Final = _Cifar(
    name="CIFAR-10",
    label_bytes=1,
    label_position=0,
    classes=10,
    training_members=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
)
CIFAR_100: Final = {
    labels: _Cifar(
        name="CIFAR-100",
        label_bytes=2,
        label_position=position,
        classes=classes,
        training_members=("train.bin",),
    )
    for labels, position, classes in (("coarse", 0, 20), ("fine", 1, 100))
}


def _read_cifar(paths: list[Path], members: list[str] | None, kind: _Cifar) -> Samples:
    inputs: list[UInt8Array] = []
    labels: list[UInt8Array] = []
    remaining = archives.MAX_DATA_BYTES
    for path in paths:
        data = read_file(path, remaining)
        remaining -= len(data)
        for place, records in _list_batches(path, data, members, kind):
            own = _parse_cifar(place, records, kind)
            labels.append(own[:, kind.label_position])
            inputs.append(own[:, kind.label_bytes :].reshape(-1, *_CIFAR_SHAPE))
    return _build_samples(np.concatenate(inputs), np.concatenate(labels), paths[0], paths[0])


def _list_batches(
    path: Path, data: bytes, members: list[str] | None, kind: _Cifar
) -> list[tuple[str, bytes]]:
    """Return the batches of a file, each with where it is from: itself, or those of its archive."""
    start, magic = _TAR_MAGIC
    if data[start : start + len(magic)] == magic:
        names = kind.training_members if members is None else members
        return read_tar(path, data, names)
    if members is not None:
        raise UserError(f"{path}: is no tar archive; remove members")
    return [(str(path), data)]


def _parse_cifar(place: str, data: bytes, kind: _Cifar) -> UInt8Array:
    record_bytes = kind.label_bytes + _CIFAR_PIXELS
    if not data or len(data) % record_bytes:
        raise UserError(f"{place}: not a row of {kind.name} records, {record_bytes} bytes each")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, record_bytes)
    if records[:, kind.label_position].max() >= kind.classes:
        raise UserError(f"{place}: a {kind.name} record has a label above {kind.classes - 1}")
    return records


_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # encrypted
    EOFError,
    OSError,
    ValueError,
)


def _read_npz(path: Path, task: Task) -> Samples:
    check_size(path, archives.MAX_DATA_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            inputs = _parse_npy(path, "inputs", _read_member(archive, "inputs.npy"))
            labels = _parse_npy(path, "labels", _read_member(archive, "labels.npy"))
    except KeyError as exc:
        raise UserError(f"{path}: needs the arrays 'inputs' and 'labels'") from exc
    except _ZIP_ERRORS as exc:
        raise UserError(f"{path}: damaged .npz file: {exc}") from exc
    native = inputs.dtype.newbyteorder("=")
    if native not in DTYPES.values():
        raise UserError(
            f"{path}: 'inputs' must be uint8 (0..255), int16 (8 fractional bits) or uint16 "
            f"(tokens), not {inputs.dtype}"
        )
    return _build_samples(inputs.astype(native), labels, path, path, task)


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > archives.MAX_DATA_BYTES:
        raise ValueError(
            f"{name} unpacks to {info.file_size} bytes, at most {archives.MAX_DATA_BYTES}"
        )
    with archive.open(info) as member:  # reads no further than file_size
        return member.read()


_NPY_HEADER: Final = re.compile(
    rb"\{'descr': '([|<>][iu][1248])', 'fortran_order': False, "
    rb"'shape': \((\d{1,10}(?:, ?\d{1,10}){0,3}),?\), ?\} *\n"
)


def _parse_npy(path: Path, name: str, data: bytes) -> npt.NDArray[np.integer]:
    """Parse a .npy file of integers without evaluating its header as Python."""
    stream = io.BytesIO(data)
    if stream.read(8) not in (b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00"):
        raise UserError(f"{path}: {name!r} is not a NumPy array")
    length_bytes = 2 if data[6] == 1 else 4
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    header = _NPY_HEADER.fullmatch(data, start, end)
    if header is None:
        raise UserError(f"{path}: {name!r} must be a C-ordered array of integers, 1 to 4 axes")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[2].split(b","))
    if len(data) - end != prod(shape) * dtype.itemsize:
        raise UserError(f"{path}: {name!r} does not hold as many bytes as its shape {shape} says")
    return np.frombuffer(data, dtype=dtype, offset=end).reshape(shape)


def _build_samples(
    inputs: SampleArray,
    labels: npt.NDArray[np.integer],
    inputs_path: Path,
    labels_path: Path,
    task: Task = "classification",
) -> Samples:
    if inputs.ndim < 2 or inputs.ndim == 3:
        raise UserError(
            f"{inputs_path}: inputs must be (n, features) or (n, channels, height, width), "
            f"not {inputs.shape}"
        )
    if labels.shape != inputs.shape[:1]:
        raise UserError(f"{labels_path}: labels of shape {labels.shape} for {len(inputs)} samples")
    if not 1 <= len(inputs) <= MAX_SAMPLES or not prod(inputs.shape[1:]):
        raise UserError(f"{inputs_path}: give 1 to {MAX_SAMPLES} samples, not {inputs.shape}")
    if task == "classification" and not 0 <= labels.min() <= labels.max() <= MAX_LABEL:
        raise UserError(f"{labels_path}: labels must be class numbers from 0 to {MAX_LABEL}")
    if not -MAX_TARGET_Q16 <= labels.min() <= labels.max() <= MAX_TARGET_Q16:
        raise UserError(
            f"{labels_path}: targets must be 32-bit integers; they have 16 fractional bits"
        )
    return Samples(inputs=inputs, labels=labels.astype(np.int64))
