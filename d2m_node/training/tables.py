"""Comma-separated numbers to samples; every flaw is one UserError that names the line."""

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Final

import numpy as np

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.training.dataset_file import (
    MAX_COLUMNS,
    MAX_SAMPLES,
    Column,
    CsvFile,
    LabelColumn,
)
from protocol.model import MAX_OUTPUTS
from protocol.samples import MAX_TARGET_Q16, TABULAR_BITS, TARGET_BITS

MAX_LABEL: Final = MAX_OUTPUTS - 1
MAX_VALUES: Final = 1 << 28
"""Of one table: two bytes each."""

_MAX_FEATURE: Final = (1 << 15) - 1


@dataclass(frozen=True, slots=True)
class _Line:
    """The fields of one line of the file, and where it ends."""

    fields: Sequence[str]
    place: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one column of a line."""

    column: Column
    position: int

    def read(self, line: _Line) -> float:
        """Return (value - offset) / divisor."""
        text = line.fields[self.position]
        try:
            value = (float(text) - self.column.offset) / self.column.divisor
        except ValueError:
            value = float("nan")
        if not isfinite(value):
            raise UserError(f"{line.place}: {self.column.column} is {text[:80]!r}, no number")
        return value


def parse_table(path: Path, data: bytes, described: CsvFile) -> Samples:
    """Parse a table; inputs (n, features) int16, values beyond what that holds clipped.

    Raises UserError that names the line.
    """
    lines = _iter_lines(path, data)
    header = next(lines, None)
    if header is None:
        raise UserError(f"{path}: is empty; the first line must name the columns")
    label, features = _find_columns(header, described)
    values, labels = array("h"), array("q")
    for line in lines:
        if len(line.fields) != len(header.fields):
            raise UserError(
                f"{line.place}: {len(line.fields)} fields below {len(header.fields)} names"
            )
        values.extend(_to_feature(reader.read(line)) for reader in features)
        labels.append(_read_label(label, described.label, line, described))
        if len(values) > MAX_VALUES:
            raise UserError(f"{path}: more than {MAX_VALUES} values; use fewer columns or rows")
        if len(labels) > MAX_SAMPLES:
            raise UserError(f"{path}: more than {MAX_SAMPLES} rows; use fewer")
    if not labels:
        raise UserError(f"{path}: no samples below the names of the columns")
    return Samples(
        inputs=np.array(values, dtype=np.int16).reshape(len(labels), len(features)),
        labels=np.array(labels, dtype=np.int64),
    )


def _iter_lines(path: Path, data: bytes) -> Iterator[_Line]:
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for fields in rows:
            if fields:  # a blank line has none
                yield _Line(fields, f"{path}, line {rows.line_num}")
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: is not UTF-8") from exc
    except csv.Error as exc:
        raise UserError(f"{path}, line {rows.line_num}: {exc}") from exc


def _find_columns(header: _Line, described: CsvFile) -> tuple[_Reader, list[_Reader]]:
    names = list(header.fields)
    if len(set(names)) != len(names):
        raise UserError(f"{header.place}: two columns have one name")
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{header.place}: {len(names)} columns, at most {MAX_COLUMNS}")

    def find(column: Column) -> _Reader:
        if column.column not in names:
            raise UserError(
                f"{header.place}: no column {column.column!r} among {list_names(names)}"
            )
        return _Reader(column, names.index(column.column))

    label = find(described.label)
    columns = described.features
    if columns is None:
        columns = [Column(column=name) for name in names if name != described.label.column]
    features = [find(column) for column in columns]
    if not features or label.position in {reader.position for reader in features}:
        raise UserError(f"{header.place}: give features other than the label's column")
    return label, features


def list_names(names: Sequence[str]) -> str:
    """List what a file calls its columns, in one line of moderate length."""
    return ", ".join(repr(name[:40]) for name in names[:8]) + (", ..." if len(names) > 8 else "")


def _read_label(reader: _Reader, column: LabelColumn, line: _Line, described: CsvFile) -> int:
    if column.classes is None:
        return _to_label(reader.read(line), line, described)
    text = line.fields[reader.position]
    try:
        return column.classes.index(text)
    except ValueError as exc:
        raise UserError(
            f"{line.place}: {column.column} is {text[:80]!r}, none of label.classes"
        ) from exc


def _to_feature(value: float) -> int:
    """Round to 8 fractional bits, ties to even."""
    scaled = value * (1 << TABULAR_BITS)
    return round(max(-_MAX_FEATURE - 1, min(scaled, _MAX_FEATURE)))


def _to_label(value: float, line: _Line, described: CsvFile) -> int:
    name = described.label.column
    if described.task == "classification":
        if value != round(value) or not 0 <= value <= MAX_LABEL:
            raise UserError(f"{line.place}: {name} is {value:g}, no class from 0 to {MAX_LABEL}")
        return round(value)
    scaled = value * (1 << TARGET_BITS)
    if abs(scaled) > MAX_TARGET_Q16:
        raise UserError(f"{line.place}: {name} is {value:g}; scale targets to within +-32767")
    return round(scaled)
