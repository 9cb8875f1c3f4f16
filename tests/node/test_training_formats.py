import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2m_node.errors import UserError
from d2m_node.training import archives
from d2m_node.training.datasets import load_samples


def write_dataset(folder: Path, text: str) -> Path:
    path = folder / "dataset.toml"
    path.write_text(text)
    return path


def digits_file(folder: Path, tables: str = "") -> Path:
    return write_dataset(folder, f'format = "digits"\ntags = ["digits"]\n{tables}')


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_file(folder: Path, *, inputs: bytes, labels: bytes) -> Path:
    (folder / "inputs").write_bytes(inputs)
    (folder / "labels").write_bytes(labels)
    return write_dataset(
        folder,
        'format = "idx"\ntags = ["x"]\ninputs_path = "inputs"\nlabels_path = "labels"\n',
    )


def cifar_file(folder: Path, *batches: bytes) -> Path:
    for number, batch in enumerate(batches):
        (folder / f"batch{number}").write_bytes(batch)
    names = [f"batch{number}" for number in range(len(batches))]
    return write_dataset(folder, f'format = "cifar-10"\ntags = ["x"]\npaths = {names}\n')


def npz_file(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return write_dataset(folder, 'format = "npz"\ntags = ["x"]\npath = "data.npz"\n')


IMAGES = np.arange(3 * 4 * 5).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1])


def test_digits_are_those_of_scikit_learn_with_full_range(tmp_path: Path) -> None:
    # Imported here, because it takes more than a second.
    from sklearn.datasets import load_digits

    samples = load_samples(digits_file(tmp_path))
    expected = load_digits()
    assert samples.inputs.shape == (1797, 1, 8, 8)
    assert samples.inputs.dtype == np.uint8
    assert samples.labels.dtype == np.int64
    assert np.array_equal(samples.inputs[:, 0], expected.images.astype(int) * 255 // 16)
    assert np.array_equal(samples.labels, expected.target)
    assert samples.inputs.max() == 255


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_idx_files_are_read_plain_or_packed(tmp_path: Path, pack) -> None:
    samples = load_samples(
        idx_file(tmp_path, inputs=pack(idx_bytes(IMAGES)), labels=pack(idx_bytes(LABELS)))
    )
    assert samples.inputs.shape == (3, 1, 4, 5)
    assert np.array_equal(samples.inputs[:, 0], IMAGES)
    assert samples.labels.tolist() == [2, 0, 1]


def test_idx_rows_of_features_keep_their_shape(tmp_path: Path) -> None:
    rows = IMAGES.reshape(3, 20)
    path = idx_file(tmp_path, inputs=idx_bytes(rows), labels=idx_bytes(LABELS))
    assert load_samples(path).inputs.shape == (3, 20)


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x0d\x03" + bytes(12), "not an IDX file of bytes"),
        (b"\0\0\x08\x05" + bytes(20), "1 to 4 dimensions"),
        (idx_bytes(IMAGES)[:10], "header is cut off"),
        (idx_bytes(IMAGES)[:-1], "holds 59 bytes of data"),
        (idx_bytes(IMAGES) + b"x", "holds 61 bytes of data"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "holds 0 bytes of data"),
        (idx_bytes(IMAGES[:2]), "labels of shape"),
        (idx_bytes(IMAGES[:0]), "labels of shape"),
        (idx_bytes(np.arange(3)), "inputs must be"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-5], "damaged archive"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0) + b"x", "damaged archive"),
        (lzma.compress(idx_bytes(IMAGES))[:-5], "damaged archive"),
        (b"\x1f\x8b" + bytes(30), "damaged archive"),
    ],
)
def test_a_hostile_idx_file_is_one_clear_error(
    tmp_path: Path, inputs: bytes, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(idx_file(tmp_path, inputs=inputs, labels=idx_bytes(LABELS)))


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    path = idx_file(tmp_path, inputs=idx_bytes(IMAGES[:0]), labels=idx_bytes(LABELS[:0]))
    with pytest.raises(UserError, match="give 1 to 1000000 samples"):
        load_samples(path)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_an_archive_that_unpacks_too_far_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack
) -> None:
    monkeypatch.setattr(archives, "MAX_DATA_BYTES", 1000)
    bomb = pack(bytes(100_000))
    assert len(bomb) < 1000
    with pytest.raises(UserError, match="unpacks to more than"):
        load_samples(idx_file(tmp_path, inputs=bomb, labels=idx_bytes(LABELS)))


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_DATA_BYTES", 10)
    path = idx_file(tmp_path, inputs=idx_bytes(IMAGES), labels=idx_bytes(LABELS))
    with pytest.raises(UserError, match="76 bytes; a dataset has at most 10"):
        load_samples(path)


def cifar_batch(label: int, pixel: int) -> bytes:
    return bytes([label]) + bytes([pixel]) * 1024 + bytes(2048)


def test_cifar_batches_are_joined_in_order(tmp_path: Path) -> None:
    second = lzma.compress(cifar_batch(9, 1) + cifar_batch(0, 2))
    samples = load_samples(cifar_file(tmp_path, cifar_batch(3, 7), second))
    assert samples.inputs.shape == (3, 3, 32, 32)
    assert samples.labels.tolist() == [3, 9, 0]
    assert samples.inputs[:, 0, 31, 31].tolist() == [7, 1, 2]
    assert samples.inputs[:, 1:].max() == 0


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (b"", "not a row of CIFAR-10 records"),
        (bytes(3072), "3073"),
        (cifar_batch(10, 0), "above 9"),
    ],
)
def test_a_hostile_cifar_batch_is_one_clear_error(
    tmp_path: Path, batch: bytes, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(cifar_file(tmp_path, cifar_batch(0, 0), batch))


def test_cifar_batches_share_one_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_DATA_BYTES", 2 * 3073)
    load_samples(cifar_file(tmp_path, cifar_batch(0, 0), cifar_batch(0, 0)))
    with pytest.raises(UserError, match=r"batch2: .* at most 6146"):
        load_samples(cifar_file(tmp_path, *[cifar_batch(0, 0)] * 3))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, ">i8"])
def test_npz_labels_of_any_integer_type_are_read(tmp_path: Path, dtype) -> None:
    labels = LABELS.astype(dtype)
    samples = load_samples(
        npz_file(tmp_path, inputs=IMAGES.astype(np.uint8)[:, None], labels=labels)
    )
    assert samples.inputs.shape == (3, 1, 4, 5)
    assert samples.labels.tolist() == [2, 0, 1]
    assert samples.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"labels": LABELS}, "needs the arrays 'inputs' and 'labels'"),
        ({"inputs": IMAGES.astype(float), "labels": LABELS}, "'inputs' must be a C-ordered array"),
        ({"inputs": IMAGES, "labels": LABELS}, r"must be uint8 .*, not int64"),
        ({"inputs": IMAGES.astype(np.int8), "labels": LABELS}, r"must be uint8 .*, not int8"),
        ({"inputs": np.array([{}], dtype=object), "labels": LABELS}, "array of integers"),
        (
            {"inputs": np.zeros((3, 2), np.uint8), "labels": LABELS - 1},
            "class numbers from 0 to 1023",
        ),
        ({"inputs": np.zeros((3, 0), np.uint8), "labels": LABELS}, "give 1 to"),
        ({"inputs": np.zeros((3, 2, 2), np.uint8), "labels": LABELS}, "inputs must be"),
        ({"inputs": np.zeros((3, 2), np.uint8), "labels": LABELS[:, None]}, "labels of shape"),
    ],
)
def test_a_wrong_npz_file_is_one_clear_error(tmp_path: Path, arrays, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(npz_file(tmp_path, **arrays))


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", ">u2"])
def test_npz_inputs_of_two_bytes_are_read_in_the_hosts_order(tmp_path: Path, dtype: str) -> None:
    inputs = np.array([[1, 256], [3, 4], [5, 6]]).astype(dtype)
    samples = load_samples(npz_file(tmp_path, inputs=inputs, labels=LABELS))
    assert samples.inputs.tolist() == inputs.tolist()
    assert samples.inputs.dtype == np.dtype(dtype[1:])


def test_npz_targets_of_a_regression_may_be_any_32_bit_integers(tmp_path: Path) -> None:
    inputs, targets = np.zeros((2, 3), np.int16), np.array([-70_000, (1 << 31) - 1])
    path = npz_file(tmp_path, inputs=inputs, labels=targets)
    with pytest.raises(UserError, match="class numbers"):
        load_samples(path)
    path.write_text(path.read_text() + 'task = "regression"\n')
    assert load_samples(path).labels.tolist() == targets.tolist()
    np.savez(tmp_path / "data.npz", inputs=inputs, labels=targets + 1)
    with pytest.raises(UserError, match="targets must be 32-bit integers"):
        load_samples(path)


def test_an_npz_array_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    path = npz_file(tmp_path, labels=LABELS)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999, 1), }".ljust(117)
    member = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("inputs.npy", member)
    with pytest.raises(UserError, match="'inputs' does not hold as many bytes"):
        load_samples(path)


def test_an_npz_member_that_unpacks_too_far_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(
        tmp_path / "data.npz", inputs=np.zeros((3, 100_000), np.uint8), labels=LABELS
    )
    path = write_dataset(tmp_path, 'format = "npz"\ntags = ["x"]\npath = "data.npz"\n')
    monkeypatch.setattr(archives, "MAX_DATA_BYTES", 10_000)
    with pytest.raises(UserError, match=r"inputs\.npy unpacks to"):
        load_samples(path)


def test_a_file_that_is_no_archive_is_refused_as_npz(tmp_path: Path) -> None:
    path = npz_file(tmp_path, labels=LABELS)
    (tmp_path / "data.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"damaged \.npz"):
        load_samples(path)


@pytest.mark.parametrize("kind", ["idx", "npz"])
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_load_or_give_a_user_error_only(
    kind: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    if kind == "idx":
        path = idx_file(folder, inputs=idx_bytes(IMAGES), labels=idx_bytes(LABELS))
        victim = folder / "inputs"
    else:
        path = npz_file(folder, inputs=IMAGES.astype(np.uint8)[:, None], labels=LABELS)
        victim = folder / "data.npz"
    damaged = bytearray(victim.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    victim.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    message = ""
    try:
        load_samples(path)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


def test_a_home_of_nobody_is_one_clear_error(tmp_path: Path) -> None:
    text = 'format = "cifar-10"\ntags = ["x"]\npaths = ["~nosuchuser/batch.bin"]\n'
    with pytest.raises(UserError, match=r"^~nosuchuser/batch\.bin: "):
        load_samples(write_dataset(tmp_path, text))


# --- the archives that CIFAR is published in ----------------------------------------------------


def tar_bytes(members: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


BATCHES = {
    f"cifar-10-batches-bin/data_batch_{number}.bin": cifar_batch(number, 1)
    for number in (5, 3, 1, 4, 2)
} | {"cifar-10-batches-bin/test_batch.bin": cifar_batch(0, 2), "cifar-10/readme.html": b"<html>"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_the_training_set_is_read_from_the_published_archive(tmp_path: Path, pack) -> None:
    samples = load_samples(cifar_file(tmp_path, pack(tar_bytes(BATCHES))))
    assert samples.labels.tolist() == [1, 2, 3, 4, 5]


def test_other_files_of_an_archive_are_read_by_name(tmp_path: Path) -> None:
    path = cifar_file(tmp_path, tar_bytes(BATCHES))
    path.write_text(path.read_text() + 'members = ["test_batch.bin", "data_batch_4.bin"]\n')
    assert load_samples(path).labels.tolist() == [0, 4]


def test_cifar_100_has_two_labels_per_image(tmp_path: Path) -> None:
    record = bytes([19, 99]) + bytes(3072)
    path = cifar_file(tmp_path, tar_bytes({"cifar-100-binary/train.bin": record * 2}))
    path.write_text(path.read_text().replace("cifar-10", "cifar-100"))
    assert load_samples(path).labels.tolist() == [99, 99]
    path.write_text(path.read_text() + 'labels = "coarse"\n')
    assert load_samples(path).labels.tolist() == [19, 19]
    (tmp_path / "batch0").write_bytes(bytes([20, 99]) + bytes(3072))
    with pytest.raises(UserError, match="a CIFAR-100 record has a label above 19"):
        load_samples(path)


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (tar_bytes({"test_batch.bin": b""}), "holds no file 'data_batch_1.bin'; name others in"),
        (tar_bytes(BATCHES)[:4000], "damaged tar archive"),
        (tar_bytes(BATCHES, kind=tarfile.SYMTYPE), "holds no file"),
        (
            tar_bytes(BATCHES | {"x/data_batch_2.bin": b"short"}),
            r"batch0: data_batch_2\.bin: not a row of CIFAR-10 records",
        ),
        (tar_bytes({f"{n}": b"" for n in range(1025)}), "an archive of more than 1024 files"),
    ],
)
def test_a_hostile_archive_is_one_clear_error(
    tmp_path: Path, archive: bytes, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        load_samples(cifar_file(tmp_path, archive))


def test_a_sparse_file_of_an_archive_is_not_unfolded(tmp_path: Path) -> None:
    """Two blocks that say: a terabyte of zeros."""
    member = tarfile.TarInfo("data_batch_1.bin")
    member.pax_headers = {
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.name": "data_batch_1.bin",
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member)
    with pytest.raises(UserError, match=r"holds no file 'data_batch_1\.bin'"):
        load_samples(cifar_file(tmp_path, stream.getvalue()))


def test_members_belong_to_an_archive(tmp_path: Path) -> None:
    path = cifar_file(tmp_path, cifar_batch(0, 0))
    path.write_text(path.read_text() + 'members = ["test_batch.bin"]\n')
    with pytest.raises(UserError, match="batch0: is no tar archive; remove members"):
        load_samples(path)
