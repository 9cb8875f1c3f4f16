"""Parquet tables to samples, in batches; every flaw is one UserError that names column and row.

The file is read in a process of its own: pyarrow is 50 MB of native code that parses what may be
hostile. The process has a limit of memory and time, and takes both along when it ends.
"""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.training.child import build_command, build_environment
from d2m_node.training.dataset_file import (
    MAX_COLUMNS,
    MAX_SAMPLES,
    Column,
    LabelColumn,
    ParquetFile,
    Task,
)
from d2m_node.training.pipe import decode_samples, encode_samples
from d2m_node.training.tables import MAX_LABEL, MAX_VALUES, list_names
from protocol.samples import MAX_TARGET_Q16, TABULAR_BITS, TARGET_BITS

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY_BYTES: Final = 4 << 30
"""Of address space, of which pyarrow reserves far more than it uses."""
CPU_SECONDS: Final = 600

_BATCH_ROWS: Final = 1 << 14
_THRIFT_BYTES: Final = 16 << 20
_THRIFT_ITEMS: Final = 1 << 20
_SAMPLES: Final = b"S"
_FLAW: Final = b"E"

Float64Array = npt.NDArray[np.float64]


def read_parquet(
    path: Path, described: ParquetFile, *, memory_bytes: int = MEMORY_BYTES
) -> Samples:
    """Read a table in a process of its own, of so much memory. Raises UserError."""
    request = msgspec.msgpack.encode((str(path), described, memory_bytes))
    done = subprocess.run(  # noqa: S603 - our own module
        build_command("d2m_node.training.parquet"),
        input=request,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=build_environment(),
        check=False,
    )
    if done.returncode == 0 and done.stdout[:1] == _SAMPLES:
        return decode_samples(done.stdout[1:])
    if done.returncode == 0 and done.stdout[:1] == _FLAW:
        raise UserError(done.stdout[1:].decode())
    raise UserError(
        f"{path}: the Parquet reader {_explain_end(done.returncode)}; the file is damaged, or too "
        "large: write it anew with smaller row groups"
    )


def _explain_end(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else "ran out of memory"


def main() -> None:
    """Read the table that standard input names, and write samples or a flaw."""
    path, described, memory_bytes = msgspec.msgpack.decode(
        sys.stdin.buffer.read(), type=tuple[str, ParquetFile, int]
    )
    # Parsing must not take the machine down with it.
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        answer = _SAMPLES + encode_samples(parse_parquet(Path(path), described))
    except UserError as error:
        answer = _FLAW + str(error).encode(errors="replace")
    sys.stdout.buffer.write(answer)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which columns of a file become what."""

    path: Path
    label: LabelColumn
    features: Sequence[Column]
    described: ParquetFile


def parse_parquet(path: Path, described: ParquetFile) -> Samples:
    """Read a table in this process; inputs (n, features) int16. Raises UserError."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(
            path,
            pre_buffer=False,
            thrift_string_size_limit=_THRIFT_BYTES,
            thrift_container_size_limit=_THRIFT_ITEMS,
        ) as file:
            plan = _make_plan(path, file.schema_arrow, described)
            rows = file.metadata.num_rows
            if not 1 <= rows <= MAX_SAMPLES:
                raise UserError(f"{path}: {rows} rows; give 1 to {MAX_SAMPLES}")
            if rows * len(plan.features) > MAX_VALUES:
                raise UserError(f"{path}: more than {MAX_VALUES} values; use fewer columns or rows")
            names = [plan.label.column, *(feature.column for feature in plan.features)]
            batches = file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)
            return _collect(plan, batches, rows)
    except MemoryError as exc:
        raise UserError(f"{path}: takes too much memory; write smaller row groups") from exc
    except (pa.ArrowException, OSError, ValueError, KeyError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise UserError(f"{path}: no Parquet file that can be read: {reason}") from exc


def _make_plan(path: Path, schema: "pa.Schema", described: ParquetFile) -> _Plan:
    names = list(schema.names)
    if len(set(names)) != len(names):
        raise UserError(f"{path}: two columns have one name")
    if len(names) > MAX_COLUMNS:
        raise UserError(f"{path}: {len(names)} columns, at most {MAX_COLUMNS}")
    label = described.label
    features = described.features
    if features is None:
        features = [Column(column=name) for name in names if name != label.column]
    for column in (label, *features):
        if column.column not in names:
            raise UserError(f"{path}: no column {column.column!r} among {list_names(names)}")
    if not features or label.column in {feature.column for feature in features}:
        raise UserError(f"{path}: give features other than the label's column")
    for feature in features:
        _check_feature_type(path, feature.column, schema.field(feature.column).type)
    _check_label_type(path, label, schema.field(label.column).type)
    return _Plan(path, label, features, described)


def _check_feature_type(path: Path, name: str, kind: "pa.DataType") -> None:
    plain = _strip_dictionary(kind)
    if _is_number(plain):
        return
    fix = "nested columns are not read" if _is_nested(plain) else "a feature must be numbers"
    raise UserError(f"{path}: column {name!r} is {str(kind)[:80]}; {fix}; leave it out of features")


def _check_label_type(path: Path, label: LabelColumn, kind: "pa.DataType") -> None:
    plain = _strip_dictionary(kind)
    is_right = _is_number(plain) if label.classes is None else _is_text(plain)
    if is_right:
        return
    if label.classes is not None:
        fix = "label.classes goes with a column of text; remove it"
    elif _is_text(plain):
        fix = "name its classes, in the order of their numbers, in label.classes"
    else:
        fix = "a label must be a number, or text with label.classes"
    raise UserError(f"{path}: column {label.column!r} is {str(kind)[:80]}; {fix}")


def _strip_dictionary(kind: "pa.DataType") -> "pa.DataType":
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )


def _is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_nested(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_nested(kind))


def _collect(plan: _Plan, batches: Iterator["pa.RecordBatch"], rows: int) -> Samples:
    inputs = np.empty((rows, len(plan.features)), dtype=np.int16)
    labels = np.empty(rows, dtype=np.int64)
    done = 0
    for batch in batches:
        end = done + batch.num_rows
        if end > rows:
            break
        for position, feature in enumerate(plan.features):
            values = _read_numbers(plan, batch, feature, done)
            inputs[done:end, position] = _to_features(values)
        labels[done:end] = _read_labels(plan, batch, done)
        done = end
    if done != rows:
        raise UserError(f"{plan.path}: holds other rows than the {rows} that its footer says")
    return Samples(inputs=inputs, labels=labels)


def _read_numbers(
    plan: _Plan, batch: "pa.RecordBatch", column: Column, first_row: int
) -> Float64Array:
    """Return (value - offset) / divisor of one column of a batch."""
    import pyarrow as pa

    array = _read_column(plan, batch, column, first_row)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    numbers: Float64Array = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        values = (numbers - column.offset) / column.divisor
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        raise UserError(
            f"{plan.path}, row {first_row + row + 1}: {column.column} is {numbers[row]}, no number"
        )
    return values


def _read_labels(plan: _Plan, batch: "pa.RecordBatch", first_row: int) -> npt.NDArray[np.int64]:
    import pyarrow as pa
    from pyarrow import compute

    label = plan.label
    if label.classes is None:
        values = _read_numbers(plan, batch, label, first_row)
        row, complaint = _find_bad_label(values, plan.described.task)
        if complaint:
            place = f"{plan.path}, row {first_row + row + 1}: {label.column}"
            raise UserError(f"{place} is {values[row]:g}{complaint}")
        return _to_labels(values, plan.described.task)
    texts = _read_column(plan, batch, label, first_row).cast(pa.string())
    found = compute.index_in(texts, value_set=pa.array(label.classes, pa.string()))
    if found.null_count:
        row = found.is_null().to_numpy(zero_copy_only=False).argmax()
        text = texts[int(row)].as_py()
        raise UserError(
            f"{plan.path}, row {first_row + row + 1}: {label.column} is {text[:80]!r}, none of "
            "label.classes"
        )
    numbers: npt.NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return numbers


def _read_column(
    plan: _Plan, batch: "pa.RecordBatch", column: Column, first_row: int
) -> "pa.Array":
    """Return a column without its dictionary. Raises UserError if a value is missing."""
    import pyarrow as pa

    array = batch.column(batch.schema.get_field_index(column.column))
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        row = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise UserError(
            f"{plan.path}, row {first_row + row + 1}: {column.column} is missing; fill the gap or "
            "leave the row out"
        )
    return array


def _to_features(values: Float64Array) -> npt.NDArray[np.int16]:
    """Round to 8 fractional bits, ties to even; clip what 16 bits do not hold."""
    limits = np.iinfo(np.int16)
    with np.errstate(over="ignore"):
        return np.rint(np.clip(values * (1 << TABULAR_BITS), limits.min, limits.max)).astype(
            np.int16
        )


def _to_labels(values: Float64Array, task: Task) -> npt.NDArray[np.int64]:
    """Turn checked numbers into classes, or into targets with 16 fractional bits."""
    scaled = values if task == "classification" else values * (1 << TARGET_BITS)
    return np.rint(scaled).astype(np.int64)


def _find_bad_label(values: Float64Array, task: Task) -> tuple[int, str]:
    """Return the position of the first number that is no label, and why; (0, "") if all are."""
    if task == "classification":
        is_bad = (values != np.rint(values)) | (values < 0) | (values > MAX_LABEL)
        complaint = f", no class from 0 to {MAX_LABEL}"
    else:
        with np.errstate(over="ignore"):
            is_bad = np.abs(values * (1 << TARGET_BITS)) > MAX_TARGET_Q16
        complaint = "; scale targets to within +-32767"
    position = int(np.argmax(is_bad))
    return (position, complaint) if is_bad[position] else (0, "")


if __name__ == "__main__":
    main()
