"""`dataset.toml`: which data file to read, under which tags, and which part of it.

    format = "idx"      # "digits", "idx", "cifar-10", "cifar-100", "npz", "csv" or "parquet"
    tags = ["images", "mnist"]
    inputs_path = "mnist/train-images-idx3-ubyte.gz"
    labels_path = "mnist/train-labels-idx1-ubyte.gz"

    [split]                               # optional: keep some samples apart
    part = "train"                        # or "held-out"
    held_out_count = 400
    seed = 1

    [partition]                           # optional: one of several label-skewed parts
    alpha_milli = 500                     # Dirichlet's alpha in thousandths
    parts = 6
    index = 0
    seed = 1

A table of numbers names its columns:

    format = "csv"                        # or "parquet"
    tags = ["houses"]
    path = "houses.csv"                   # the first line holds the names of the columns
    task = "regression"                   # or "classification", the default
    label = { column = "price", offset = 300, divisor = 100 }

    [[features]]                          # optional: all other columns, as they are
    column = "area"
    offset = 120
    divisor = 50

A label may be text, if its classes are named in the order of their numbers:

    label = { column = "species", classes = ["setosa", "versicolor", "virginica"] }

What is read is (value - offset) / divisor. All sellers of a tag and its buyers must scale alike;
values near 1 train best, and squared errors are then comparable with accuracies.

Where each path is looked for, see `formats.DataFolders`.
"""

import difflib
import re
import tomllib
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from d2m_node.errors import UserError
from protocol.model import MAX_OUTPUTS
from protocol.request import Tag

MAX_DESCRIPTION_BYTES: Final = 64 * 1024
MAX_PARTS: Final = 10_000
MAX_FILES: Final = 64
MAX_COLUMNS: Final = 1 << 12
MAX_SAMPLES: Final = 1_000_000

Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
"""Of a column or a class: one line, so that an error about it is one, too."""
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Task = Literal["classification", "regression"]
FilePath = Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f]+$")]


class Split(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which side of a random cut: all files with equal count and seed cut at the same place."""

    part: Literal["train", "held-out"]
    held_out_count: Annotated[int, Meta(ge=1, le=1_000_000)]
    seed: Seed


class Partition(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which of ``parts`` disjoint parts, cut with Dirichlet label skew."""

    alpha_milli: Annotated[int, Meta(ge=1, le=1_000_000)]
    parts: Annotated[int, Meta(ge=1, le=MAX_PARTS)]
    index: Annotated[int, Meta(ge=0, lt=MAX_PARTS)]
    seed: Seed


class DatasetFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every format shares; ``format`` is the tag of the union."""

    tags: Annotated[list[Tag], Meta(min_length=1, max_length=16)]
    split: Split | None = None
    partition: Partition | None = None


class DigitsFile(DatasetFile, frozen=True, tag_field="format", tag="digits"):
    """Scikit-learn's 1797 digits of 8 x 8 pixels; nothing to download."""


class IdxFile(DatasetFile, frozen=True, tag_field="format", tag="idx", kw_only=True):
    """The format of MNIST, plain or gzipped."""

    inputs_path: FilePath
    labels_path: FilePath


class CifarFile(DatasetFile, frozen=True, kw_only=True):
    """The binary versions of CIFAR, each file plain or compressed with xz or gzip.

    A file may also be the archive that is published, a tar; ``members`` says which of its files
    are read, by their last names and in that order. Without it: those of the training set.
    """

    paths: Annotated[list[FilePath], Meta(min_length=1, max_length=MAX_FILES)]
    members: Annotated[list[FilePath], Meta(min_length=1, max_length=MAX_FILES)] | None = None


class Cifar10File(CifarFile, frozen=True, tag_field="format", tag="cifar-10", kw_only=True):
    """CIFAR-10: ten classes."""


class Cifar100File(CifarFile, frozen=True, tag_field="format", tag="cifar-100", kw_only=True):
    """CIFAR-100: a hundred fine classes, in twenty coarse ones."""

    labels: Literal["fine", "coarse"] = "fine"


class NpzFile(DatasetFile, frozen=True, tag_field="format", tag="npz", kw_only=True):
    """NumPy arrays ``inputs`` and ``labels``, both integers.

    The type of the inputs says what they are: uint8 pixels, int16 numbers with 8 fractional bits,
    uint16 tokens. Labels are classes, in a regression targets with 16 fractional bits.
    """

    path: FilePath
    task: Task = "classification"


class Column(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A column of a table, read as (value - offset) / divisor."""

    column: Name
    offset: float = 0.0
    divisor: Annotated[float, Meta(gt=0)] = 1.0


class LabelColumn(Column, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The column with the labels: numbers, or text that names classes."""

    classes: Annotated[list[Name], Meta(min_length=1, max_length=MAX_OUTPUTS)] | None = None
    """Names of the classes 0, 1, ...: all sellers of a tag and its buyers must list them alike."""


class TableFile(DatasetFile, frozen=True, kw_only=True):
    """A table with a column of labels and columns of numbers."""

    path: FilePath
    label: LabelColumn
    features: Annotated[list[Column], Meta(min_length=1, max_length=MAX_COLUMNS)] | None = None
    task: Task = "classification"


class CsvFile(TableFile, frozen=True, tag_field="format", tag="csv", kw_only=True):
    """Comma-separated numbers below a line of names."""


class ParquetFile(TableFile, frozen=True, tag_field="format", tag="parquet", kw_only=True):
    """A Parquet file of plain columns: no lists, no structs, nothing missing."""


AnyDatasetFile = DigitsFile | IdxFile | Cifar10File | Cifar100File | NpzFile | CsvFile | ParquetFile

_FORMATS: Final = {str(struct.__struct_config__.tag): struct for struct in get_args(AnyDatasetFile)}


def read_dataset_file(path: Path) -> AnyDatasetFile:
    """Read and check a `dataset.toml`.

    Raises
    ------
    UserError
        In one line: the file, the key, and what it should be.
    """
    table = _read_toml(path)
    struct = _FORMATS.get(str(table.get("format")))
    if struct is None:
        raise UserError(f"{path}: format must be one of {', '.join(sorted(_FORMATS))}")
    _check_keys(path, table, struct, prefix="")
    try:
        described: AnyDatasetFile = msgspec.convert(table, struct)
    except msgspec.ValidationError as exc:
        raise UserError(f"{path}: {_explain(exc)}") from exc
    if isinstance(described, TableFile):
        _check_columns(path, described)
    partition = described.partition
    if partition is not None and partition.index >= partition.parts:
        raise UserError(f"{path}: partition.index must be below partition.parts")
    return described


def _check_columns(path: Path, described: TableFile) -> None:
    """Refuse numbers that one cannot compute with, and classes that are not told apart."""
    columns: dict[str, Column] = {"label": described.label}
    columns |= {f"features[{i}]": column for i, column in enumerate(described.features or ())}
    for key, column in columns.items():
        for name in ("offset", "divisor"):
            if not isfinite(getattr(column, name)):
                raise UserError(f"{path}: {key}.{name}: give a finite number")
    classes = described.label.classes
    if classes is None:
        return
    if len(set(classes)) != len(classes):
        raise UserError(f"{path}: label.classes: two classes have one name")
    if described.task == "regression":
        raise UserError(f"{path}: label.classes: a regression has none; remove it")
    if (described.label.offset, described.label.divisor) != (0, 1):
        raise UserError(f"{path}: label.offset, label.divisor: classes are not scaled; remove them")


def _read_toml(path: Path) -> dict[str, object]:
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        with path.open("rb") as file:
            data = file.read(MAX_DESCRIPTION_BYTES + 1)
    except OSError as exc:
        raise UserError(f"{path}: cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise UserError(f"{path}: longer than {MAX_DESCRIPTION_BYTES} bytes, no dataset file")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as exc:  # bad UTF-8 and bad TOML are ValueErrors
        raise UserError(f"{path}: no TOML: {exc}") from exc


def _check_keys(path: Path, table: dict[str, object], struct: type[Struct], prefix: str) -> None:
    """Name the first unknown key and the known one that looks most like it."""
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    known = [*fields, *([] if struct.__struct_config__.tag is None else ["format"])]
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"{path}: unknown key {prefix + key!r}; {hint}")
        nested = _find_struct(fields.get(key))
        if nested is not None and isinstance(value, dict):
            _check_keys(path, value, nested, prefix=f"{prefix}{key}.")


def _find_struct(annotation: object) -> type[Struct] | None:
    """Return the table type of a field like ``Split`` or ``Split | None``."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Struct):
            return option
    return None


def _explain(error: msgspec.ValidationError) -> str:
    """Turn "Expected `int` - at `$.split.seed`" into "split.seed: expected `int`"."""
    message, _, place = str(error).partition(" - at `$")
    message = message[:1].lower() + message[1:]
    key = re.sub(r"^\.", "", place.removesuffix("`"))
    return f"{key}: {message}" if key else message
