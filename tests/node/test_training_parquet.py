"""Parquet tables: the same samples as the same table in CSV, and one line for each flaw."""

import decimal
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from pyarrow import parquet as pq

from d2m_node.errors import UserError
from d2m_node.training import parquet
from d2m_node.training.dataset_file import Column, LabelColumn, ParquetFile
from d2m_node.training.datasets import load_samples
from d2m_node.training.parquet import parse_parquet, read_parquet

CLASSES = ParquetFile(tags=["x"], path="t.parquet", label=LabelColumn(column="kind"))
SPECIES = ParquetFile(
    tags=["x"],
    path="t.parquet",
    label=LabelColumn(column="kind", classes=["setosa", "virginica"]),
)
NUMBERS = ParquetFile(
    tags=["x"], path="t.parquet", label=LabelColumn(column="kind"), task="regression"
)


def write(folder: Path, columns: dict[str, object], **options: object) -> Path:
    path = folder / "t.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


def dataset(folder: Path, tables: str = 'label = { column = "kind" }\n') -> Path:
    path = folder / "dataset.toml"
    path.write_text(f'format = "parquet"\ntags = ["x"]\npath = "t.parquet"\n{tables}')
    return path


def test_a_table_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.0, 0.25], "kind": [0, 2], "b": [-0.5, 3.0]})
    samples = load_samples(dataset(tmp_path))
    assert samples.inputs.tolist() == [[256, -128], [64, 768]]
    assert samples.inputs.dtype == np.int16
    assert samples.labels.tolist() == [0, 2]
    assert samples.labels.dtype == np.int64


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.uint64(),
        pa.float16(),
        pa.float32(),
        pa.float64(),
        pa.decimal128(9, 2),
        pa.decimal256(40, 2),
        pa.dictionary(pa.int8(), pa.int64()),
    ],
    ids=str,
)
def test_numbers_of_every_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    values = [decimal.Decimal(3), decimal.Decimal(7)] if pa.types.is_decimal(kind) else [3, 7]
    if kind == pa.float16():
        values = [np.float16(value) for value in values]
    array = pa.array(values, plain)
    array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array
    samples = parse_parquet(write(tmp_path, {"a": array, "kind": array}), CLASSES)
    assert samples.inputs.tolist() == [[768], [1792]]
    assert samples.labels.tolist() == [3, 7]


def test_truth_values_are_zero_and_one(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": [True, False], "kind": [False, True]})
    samples = parse_parquet(path, CLASSES)
    assert (samples.inputs.tolist(), samples.labels.tolist()) == ([[256], [0]], [0, 1])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_labels_of_text_are_numbered_as_the_file_lists_their_classes(
    tmp_path: Path, kind: pa.DataType, is_dictionary: bool
) -> None:
    if is_dictionary and kind == pa.string_view():
        kind = pa.string()
    texts = pa.array(["virginica", "setosa", "virginica"], kind)
    texts = texts.dictionary_encode() if is_dictionary else texts
    path = write(tmp_path, {"a": [1, 2, 3], "kind": texts})
    assert parse_parquet(path, SPECIES).labels.tolist() == [1, 0, 1]


def test_columns_are_taken_in_the_order_asked_for_and_scaled(tmp_path: Path) -> None:
    tables = """
label = { column = "kind", offset = 1 }
[[features]]
column = "b"
offset = 10
divisor = 4
[[features]]
column = "a"
[[features]]
column = "a"
divisor = 2
"""
    write(tmp_path, {"a": [1, 3], "kind": [1, 3], "b": [12, 6], "unused": ["x", "y"]})
    samples = load_samples(dataset(tmp_path, tables))
    assert samples.inputs.tolist() == [[128, 256, 128], [-256, 768, 384]]
    assert samples.labels.tolist() == [0, 2]


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-300, 300),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=30,
    ),
    offset=st.floats(-5, 5),
    divisor=st.floats(0.1, 9),
)
def test_a_table_gives_the_same_samples_as_parquet_and_as_csv(
    rows: list[tuple[float, float, int]],
    offset: float,
    divisor: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("both", numbered=True)
    a, b, kind = zip(*rows, strict=True)
    table = pa.table({"a": a, "b": b, "kind": kind})
    pq.write_table(table, folder / "t.parquet", row_group_size=7)
    arrow_csv.write_csv(table, folder / "t.csv")
    tables = f'label = {{ column = "kind" }}\n[[features]]\ncolumn = "a"\noffset = {offset!r}\n'
    tables += f'divisor = {divisor!r}\n[[features]]\ncolumn = "b"\n'
    path = dataset(folder, tables)
    described = ParquetFile(
        tags=["x"],
        path="t.parquet",
        label=LabelColumn(column="kind"),
        features=[Column(column="a", offset=offset, divisor=divisor), Column(column="b")],
    )
    as_parquet = parse_parquet(folder / "t.parquet", described)
    path.write_text(path.read_text().replace("parquet", "csv"))
    as_csv = load_samples(path)
    assert np.array_equal(as_parquet.inputs, as_csv.inputs)
    assert np.array_equal(as_parquet.labels, as_csv.labels)


def test_tables_of_many_batches_and_row_groups_keep_their_order(tmp_path: Path) -> None:
    count = 40_000
    path = write(
        tmp_path,
        {"a": np.arange(count) % 128, "kind": np.arange(count) % 10},
        row_group_size=9_999,
        compression="zstd",
    )
    samples = parse_parquet(path, CLASSES)
    assert np.array_equal(samples.inputs[:, 0], np.arange(count) % 128 * 256)
    assert np.array_equal(samples.labels, np.arange(count) % 10)


@pytest.mark.parametrize(
    ("columns", "described", "complaint"),
    [
        ({"a": [1]}, CLASSES, r"no column 'kind' among 'a'$"),
        ({"kind": [1]}, CLASSES, "give features other than the label's column"),
        ({"a": ["x"], "kind": [1]}, CLASSES, r"column 'a' is string; a feature must be numbers"),
        ({"a": [[1]], "kind": [1]}, CLASSES, r"column 'a' is list<.*>; nested columns are not"),
        ({"a": [{"b": 1}], "kind": [1]}, CLASSES, r"column 'a' is struct<.*>; nested columns"),
        ({"a": [date(2026, 1, 1)], "kind": [1]}, CLASSES, "column 'a' is date32"),
        ({"a": [1], "kind": [[1]]}, CLASSES, r"column 'kind' is list<.*>; a label must be"),
        ({"a": [1], "kind": ["x"]}, CLASSES, r"'kind' is string; name its classes, .* in label"),
        ({"a": [1], "kind": [1]}, SPECIES, r"'kind' is int64; label\.classes goes with a column"),
        ({"a": [1], "kind": ["rose"]}, SPECIES, r"row 1: kind is 'rose', none of label\.classes"),
        ({"a": [1, None], "kind": [1, 2]}, CLASSES, r"t\.parquet, row 2: a is missing; fill"),
        ({"a": [1, 2], "kind": [None, 2]}, CLASSES, r"t\.parquet, row 1: kind is missing"),
        ({"a": [1, 2], "kind": ["setosa", None]}, SPECIES, "row 2: kind is missing"),
        ({"a": [1.0, float("nan")], "kind": [1, 2]}, CLASSES, "row 2: a is nan, no number"),
        ({"a": [float("inf")], "kind": [1]}, CLASSES, "row 1: a is inf, no number"),
        ({"a": [1, 2], "kind": [1, -1]}, CLASSES, "row 2: kind is -1, no class from 0 to 1023"),
        ({"a": [1], "kind": [0.5]}, CLASSES, r"row 1: kind is 0\.5, no class"),
        ({"a": [1], "kind": [1024]}, CLASSES, "row 1: kind is 1024, no class"),
        ({"a": [1], "kind": [1e300]}, NUMBERS, "kind is 1e.300; scale targets to within"),
        ({"a": pa.array([], pa.int64()), "kind": pa.array([], pa.int64())}, CLASSES, "0 rows"),
    ],
)
def test_a_wrong_table_is_one_line_that_names_column_and_row(
    tmp_path: Path, columns: dict[str, object], described: ParquetFile, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        parse_parquet(write(tmp_path, columns), described)
    assert "\n" not in str(raised.value)


def test_a_flaw_found_in_the_process_is_the_same_line(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1, None], "kind": [1, 2]})
    with pytest.raises(UserError, match=r"^.*t\.parquet, row 2: a is missing"):
        load_samples(dataset(tmp_path))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "a", "kind"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="two columns have one name"):
        parse_parquet(tmp_path / "t.parquet", CLASSES)


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [
        ("MAX_SAMPLES", "3 rows; give 1 to 2"),
        ("MAX_VALUES", "more than 2 values"),
        ("MAX_COLUMNS", "3 columns, at most 2"),
    ],
)
def test_tables_are_bounded_before_their_rows_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, complaint: str
) -> None:
    path = write(tmp_path, {"a": [1, 2, 3], "b": [1, 2, 3], "kind": [1, 2, 3]})
    monkeypatch.setattr(parquet, limit, 2)
    with pytest.raises(UserError, match=complaint):
        parse_parquet(path, CLASSES)


def test_a_reader_that_the_system_kills_does_not_take_the_node_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, {"a": [1], "kind": [1]})
    monkeypatch.setattr(
        parquet,
        "build_command",
        lambda _: ["sh", "-c", "cat > /dev/null; kill -9 $$"],
    )
    with pytest.raises(UserError, match="the Parquet reader was ended by SIGKILL; the file is"):
        read_parquet(path, CLASSES)


def test_a_page_that_unpacks_to_more_than_the_memory_is_one_line(tmp_path: Path) -> None:
    """A text of 256 MB, in a file of a few kilobytes."""
    text = pa.array(["x" * (1 << 28)])
    path = write(
        tmp_path,
        {"a": [1], "kind": text},
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
    )
    assert path.stat().st_size < 1 << 18
    with pytest.raises(UserError, match=r"^.*t\.parquet: (takes too much memory|.* too large)"):
        read_parquet(path, SPECIES, memory_bytes=1 << 29)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100, b"x" * 1000])
def test_what_is_no_parquet_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(UserError, match="no Parquet file that can be read") as raised:
        load_samples(dataset(tmp_path))
    assert "\n" not in str(raised.value)


def test_the_node_does_not_import_pyarrow_for_a_table(tmp_path: Path) -> None:
    import subprocess
    import sys

    write(tmp_path, {"a": [1], "kind": [1]})
    code = (
        "import sys; from pathlib import Path\n"
        "from d2m_node.training.datasets import load_samples\n"
        f"load_samples(Path({str(dataset(tmp_path))!r}))\n"
        "assert not {'torch', 'pyarrow'} & sys.modules.keys()\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
