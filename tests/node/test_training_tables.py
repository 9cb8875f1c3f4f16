import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2m_node.errors import UserError
from d2m_node.training import tables
from d2m_node.training.dataset_file import CsvFile, LabelColumn
from d2m_node.training.datasets import load_samples
from d2m_node.training.tables import parse_table

PATH = Path("table.csv")
CLASSES = CsvFile(tags=["x"], path="table.csv", label=LabelColumn(column="kind"))
NUMBERS = CsvFile(tags=["x"], path="table.csv", label=LabelColumn(column="kind"), task="regression")


def dataset(folder: Path, data: bytes, tables: str = 'label = { column = "kind" }\n') -> Path:
    (folder / "table.csv").write_bytes(data)
    path = folder / "dataset.toml"
    path.write_text(f'format = "csv"\ntags = ["x"]\npath = "table.csv"\n{tables}')
    return path


def test_every_column_but_the_label_is_a_feature_with_eight_fractional_bits(
    tmp_path: Path,
) -> None:
    samples = load_samples(dataset(tmp_path, b"a,kind,b\n1,0,-0.5\n0.25,2,3e0\n"))
    assert samples.inputs.tolist() == [[256, -128], [64, 768]]
    assert samples.inputs.dtype == np.int16
    assert samples.labels.tolist() == [0, 2]
    assert samples.labels.dtype == np.int64


def test_columns_are_taken_in_the_order_asked_for_and_scaled(tmp_path: Path) -> None:
    tables = """
label = { column = "kind", offset = 1 }
[[features]]
column = "b"
offset = 10
divisor = 4
[[features]]
column = "a"
"""
    samples = load_samples(dataset(tmp_path, b"a,kind,b,unused\n1,1,12,x\n2,3,6,y\n", tables))
    assert samples.inputs.tolist() == [[128, 256], [-256, 512]]
    assert samples.labels.tolist() == [0, 2]


def test_targets_have_sixteen_fractional_bits() -> None:
    samples = parse_table(PATH, b"kind,a\n-1.5,0\n32767,0\n", NUMBERS)
    assert samples.labels.tolist() == [-98304, 32767 << 16]


def test_features_beyond_sixteen_bits_are_clipped_and_rounded_to_even() -> None:
    data = b"kind,a\n0,1e300\n0,-1e300\n0,200\n0,0.001953125\n0,0.005859375\n"
    samples = parse_table(PATH, data, CLASSES)
    assert samples.inputs[:, 0].tolist() == [32767, -32768, 32767, 0, 2]


def test_a_packed_table_with_quotes_a_mark_and_blank_lines_is_read(tmp_path: Path) -> None:
    text = '\ufeff"a, or b",kind\r\n"1",0\r\n\r\n2,1\r\n'
    samples = load_samples(dataset(tmp_path, gzip.compress(text.encode())))
    assert samples.inputs.tolist() == [[256], [512]]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is empty; the first line must name the columns"),
        (b"a,kind\n", "no samples below"),
        (b"a,b\n1,2\n", "line 1: no column 'kind' among 'a', 'b'"),
        (b"kind\n1\n", "line 1: give features other than the label's column"),
        (b"a,a,kind\n1,2,0\n", "line 1: two columns have one name"),
        (b"a,kind\n1,0\n2\n", "line 3: 1 fields below 2 names"),
        (b"a,kind\n1,0,3\n", "line 2: 3 fields below 2 names"),
        (b"a,kind\nred,0\n", "line 2: a is 'red', no number"),
        (b"a,kind\n,0\n", "line 2: a is '', no number"),
        (b"a,kind\nnan,0\n", "line 2: a is 'nan', no number"),
        (b"a,kind\n1,0\ninf,0\n", "line 3: a is 'inf', no number"),
        (b"a,kind\n1,0.5\n", "line 2: kind is 0.5, no class from 0 to 1023"),
        (b"a,kind\n1,-1\n", "line 2: kind is -1, no class"),
        (b"a,kind\n1,1024\n", "line 2: kind is 1024, no class"),
        (b"a,kind\n1,1e300\n", r"line 2: kind is 1e\+300, no class"),
        (b'a,kind\n"1"x,0\n', "line 2: "),
        (b'a,kind\n"1,0\n', "line 2: "),
        (b"a,kind\n\xff,0\n", "is not UTF-8"),
        (b",".join(b"%d" % i for i in range(4097)) + b"\n", "4097 columns, at most 4096"),
    ],
)
def test_a_wrong_table_is_one_clear_line(data: bytes, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as failure:
        parse_table(PATH, data, CLASSES)
    assert str(failure.value).startswith("table.csv")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("target", ["32768", "-32768", "1e308"])
def test_a_target_that_does_not_fit_is_named_with_its_line(target: str) -> None:
    with pytest.raises(UserError, match=r"line 2: kind is .*; scale targets"):
        parse_table(PATH, f"kind,a\n{target},0\n".encode(), NUMBERS)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ("", "missing required field `label`"),
        ("label = 3", "label: expected `object`"),
        ('label = { colum = "kind" }', "unknown key 'label.colum'; did you mean 'column'"),
        ('label = { column = "kind", divisor = 0 }', "label.divisor: expected `float` > 0"),
        ('label = { column = "kind", divisor = inf }', r"toml: label\.divisor: give a finite"),
        ('label = { column = "kind", divisor = nan }', r"label\.divisor: "),
        ('label = { column = "kind", offset = nan }', r"label\.offset: give a finite number"),
        ('label = { column = "kind", offset = -inf }', r"label\.offset: give a finite number"),
        (
            'label = { column = "kind" }\nfeatures = [{ column = "b" }, '
            '{ column = "a", divisor = 1e999 }]',
            r"features\[1\]\.divisor: give a finite number",
        ),
        ('label = { column = "kind" }\ntask = "ranking"', "task: invalid enum value"),
        ('label = { column = "kind" }\nfeatures = []', "features: expected `array` of length"),
        ('label = { column = "kind" }\n[[features]]\nname = "a"', "features"),
    ],
)
def test_a_wrong_description_is_one_clear_line(tmp_path: Path, tables: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(dataset(tmp_path, b"a,kind\n1,0\n", tables))


def test_a_label_cannot_be_a_feature_too(tmp_path: Path) -> None:
    tables = 'label = { column = "kind" }\n[[features]]\ncolumn = "kind"\n'
    with pytest.raises(UserError, match="give features other than the label's column"):
        load_samples(dataset(tmp_path, b"a,kind\n1,0\n", tables))


def test_a_table_too_large_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_VALUES", 5)
    parse_table(PATH, b"a,kind\n" + b"1,0\n" * 5, CLASSES)
    with pytest.raises(UserError, match="more than 5 values"):
        parse_table(PATH, b"a,kind\n" + b"1,0\n" * 6, CLASSES)


@given(st.binary(max_size=60))
def test_any_bytes_load_or_give_a_user_error_only(data: bytes) -> None:
    message = ""
    try:
        parse_table(PATH, b"a,kind\n1,0\n" + data, CLASSES)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


def test_labels_of_text_are_numbered_as_their_classes_are_listed(tmp_path: Path) -> None:
    tables = 'label = { column = "kind", classes = ["no", "yes"] }\n'
    samples = load_samples(dataset(tmp_path, b"a,kind\n1,yes\n2,no\n3,yes\n", tables))
    assert samples.labels.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match=r"line 2: kind is 'Yes', none of label\.classes"):
        load_samples(dataset(tmp_path, b"a,kind\n1,Yes\n", tables))


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ('label = { column = "k", classes = ["x", "x"] }', "label.classes: two classes have"),
        ('label = { column = "k", classes = [] }', "label.classes: expected `array` of length"),
        ('label = { column = "k", classes = ["x"], offset = 1 }', "classes are not scaled"),
        (
            'label = { column = "k", classes = ["x"] }\ntask = "regression"',
            "label.classes: a regression has none",
        ),
        ('label = { column = "k\\nl" }', "label.column: expected `str` matching"),
    ],
)
def test_classes_that_cannot_be_are_named(tmp_path: Path, tables: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(dataset(tmp_path, b"a,k\n1,x\n", tables))


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_SAMPLES", 2)
    with pytest.raises(UserError, match="more than 2 rows"):
        parse_table(PATH, b"kind,a\n1,0\n1,0\n1,0\n", CLASSES)
