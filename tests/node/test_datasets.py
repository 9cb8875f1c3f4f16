import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from d2m_node.errors import UserError
from d2m_node.training.datasets import LocalDatasets, load_samples

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "datasets"

needs_data = pytest.mark.skipif(
    "D2M_DATA" not in os.environ, reason="D2M_DATA does not name a folder with the benchmark data"
)


def write_dataset(folder: Path, text: str) -> Path:
    path = folder / "dataset.toml"
    path.write_text(text)
    return path


def digits_file(folder: Path, tables: str = "") -> Path:
    return write_dataset(folder, f'format = "digits"\ntags = ["digits"]\n{tables}')


def npz_file(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return write_dataset(folder, 'format = "npz"\ntags = ["x"]\npath = "data.npz"\n')


# --- the description ---------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_the_closest_known_one(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, 'format = "digits"\ntag = ["digits"]\n')
    with pytest.raises(UserError, match=r"dataset\.toml: unknown key 'tag'; did you mean 'tags'\?"):
        load_samples(path)


def test_an_unknown_key_of_a_table_is_named_with_the_table(tmp_path: Path) -> None:
    path = digits_file(tmp_path, '[split]\npart = "train"\nheldout_count = 1\nseed = 1\n')
    with pytest.raises(UserError, match=r"'split\.heldout_count'; did you mean 'held_out_count'"):
        load_samples(path)


def test_an_unknown_key_like_no_other_lists_what_is_known(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, 'format = "digits"\ntags = ["digits"]\nzzz = 1\n')
    with pytest.raises(UserError, match=r"'zzz'; known: tags, split, partition, format"):
        load_samples(path)


def test_a_key_of_another_format_is_unknown(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, 'format = "digits"\ntags = ["digits"]\npath = "x.npz"\n')
    with pytest.raises(UserError, match="unknown key 'path'"):
        load_samples(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "format must be one of cifar-10, cifar-100, csv, digits, idx, npz, parquet"),
        ("format = 3", "format must be one of"),
        ('format = "digits"', "missing required field `tags`"),
        ('format = "digits"\ntags = []', "tags: expected `array` of length >= 1"),
        ('format = "digits"\ntags = ["Not A Tag"]', r"tags\[0\]: expected `str` matching"),
        ('format = "digits"\ntags = ["x"]\nsplit = 3', "split: expected `object"),
        ("format = ", "no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        ("# " + "x" * (1 << 16), "longer than 65536 bytes"),
    ],
)
def test_a_wrong_description_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as failure:
        load_samples(write_dataset(tmp_path, text))
    assert str(failure.value).startswith(str(tmp_path / "dataset.toml"))
    assert "\n" not in str(failure.value)


def test_a_missing_description_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.toml: no such file"):
        load_samples(tmp_path / "nowhere.toml")


def test_a_description_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_bytes(b'format = "\xff"')
    with pytest.raises(UserError, match="no TOML"):
        load_samples(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
async def test_the_example_files_declare_sorted_tags(path: Path) -> None:
    tags = await LocalDatasets().load_tags(str(path))
    assert path.stem.removesuffix("-validation") in tags
    assert list(tags) == sorted(tags)


async def test_tags_are_returned_ascending_and_once(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, 'format = "digits"\ntags = ["b", "a", "b"]\n')
    assert await LocalDatasets().load_tags(str(path)) == ("a", "b")


async def test_the_port_loads_samples_and_passes_errors_on(tmp_path: Path) -> None:
    samples = await LocalDatasets().load_samples(str(digits_file(tmp_path)))
    assert len(samples.labels) == 1797
    with pytest.raises(UserError, match="no such file"):
        await LocalDatasets().load_samples(str(tmp_path / "nowhere.toml"))


def test_loading_data_imports_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from d2m_node.training.datasets import load_samples\n"
        "from d2m_node.training.runner import ProcessTrainer\n"
        f"load_samples(Path({str(digits_file(tmp_path))!r})); ProcessTrainer()\n"
        "assert not {'torch', 'sklearn', 'scipy'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONFIGS.parents[1])


# --- where data files are looked for -----------------------------------------------------------


def test_a_data_file_beside_the_description_comes_before_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    npz_file(tmp_path / "data", inputs=np.zeros((1, 2), np.uint8), labels=np.array([0]))
    path = npz_file(tmp_path, inputs=np.ones((1, 2), np.uint8), labels=np.array([0]))
    assert load_samples(path, tmp_path / "data").inputs[0, 0] == 1


def test_a_data_file_is_found_in_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    npz_file(tmp_path / "data", inputs=np.ones((1, 2), np.uint8), labels=np.array([0]))
    path = write_dataset(tmp_path, 'format = "npz"\ntags = ["x"]\npath = "data.npz"\n')
    assert load_samples(path, tmp_path / "data").inputs[0, 0] == 1


@pytest.mark.parametrize("name", ["data.npz", "x" * 300])
def test_a_missing_data_file_names_the_places_and_the_variable(tmp_path: Path, name: str) -> None:
    path = write_dataset(tmp_path, f'format = "npz"\ntags = ["x"]\npath = "{name}"\n')
    with pytest.raises(UserError, match=f"no data file {tmp_path}/{name}; set D2M_DATA"):
        load_samples(path)
    with pytest.raises(UserError, match=f"no data file {tmp_path}/{name} or {tmp_path}/data"):
        load_samples(path, tmp_path / "data")


# --- the benchmark files -----------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "first_labels"),
    [
        ("mnist", (60_000, 1, 28, 28), [5, 0, 4, 1, 9]),
        ("fashion-mnist", (60_000, 1, 28, 28), [9, 0, 0, 3, 0]),
        ("cifar-10", (50_000, 3, 32, 32), [6, 9, 9, 4, 1]),
    ],
)
def test_the_benchmark_files_are_read_whole(
    name: str, shape: tuple[int, ...], first_labels: list[int]
) -> None:
    samples = load_samples(CONFIGS / f"{name}.toml", Path(os.environ["D2M_DATA"]))
    assert samples.inputs.shape == shape
    assert samples.labels[:5].tolist() == first_labels
    assert samples.inputs.max() == 255
    assert np.bincount(samples.labels).min() >= 5_000
