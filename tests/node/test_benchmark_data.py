"""The benchmark data: checked byte for byte, fetched from a server on this machine."""

import hashlib
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from d2m_node import cli
from d2m_node.benchmark_data import files as published
from d2m_node.benchmark_data.fetch import FETCHED, HERE, Fetched, fetch_files
from d2m_node.benchmark_data.files import DATASETS, DataFile, Download
from d2m_node.benchmark_data.verify import find_flaw
from d2m_node.training.dataset_file import Cifar10File, IdxFile, read_dataset_file
from tests.support.file_server import FileServer, open_file_server

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "datasets"
CONTENT = bytes(range(256)) * 40
BATCH = b"\x03" + b"pixels" * 900


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def describe(*homes: str, content: bytes = CONTENT, name: str = "images.gz") -> DataFile:
    return DataFile(
        dataset="mnist",
        path=f"mnist/{name}",
        size_bytes=len(content),
        sha256=sha256(content),
        download=Download(name=name, homes=homes, size_bytes=len(content), sha256=sha256(content)),
    )


@pytest.fixture
def server() -> Iterator[FileServer]:
    with open_file_server() as server:
        server.files["/images.gz"] = CONTENT
        yield server


def fetch(files: list[DataFile], folder: Path) -> list[str]:
    """Return what is told of each file."""
    told: list[Fetched] = []
    fetch_files(files, folder, on_start=lambda _: lambda _: None, on_done=told.append)
    assert {one.file for one in told} == set(files)
    assert all(one.is_good == (one.state in (HERE, FETCHED)) for one in told)
    return [one.state for one in told]


# --- verify -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (CONTENT, None),
        (None, "is missing"),
        (CONTENT[:-1], f"has {len(CONTENT) - 1} of its {len(CONTENT)} bytes"),
        (CONTENT + b"x", f"is longer than its {len(CONTENT)} bytes"),
        (b"x" + CONTENT[1:], "has another checksum than the published file"),
    ],
)
def test_a_file_is_right_byte_for_byte(
    tmp_path: Path, content: bytes | None, flaw: str | None
) -> None:
    file = describe()
    (tmp_path / "mnist").mkdir()
    if content is not None:
        (tmp_path / file.path).write_bytes(content)
    assert find_flaw(file, tmp_path) == flaw


PACKED = replace(describe(), member="images")


@pytest.mark.parametrize(
    ("stored", "flaw"),
    [
        (lzma.compress(CONTENT, preset=0), None),
        (lzma.compress(CONTENT, preset=9), None),
        (lzma.compress(CONTENT)[:-20], "is a damaged archive: it is cut off"),
        (lzma.compress(CONTENT) + b"more", "is a damaged archive: something follows its end"),
        (CONTENT, "is a damaged archive: "),
        (lzma.compress(bytes(1 << 25)), f"is longer than its {len(CONTENT)} bytes"),
        (lzma.compress(CONTENT[:9]), f"has 9 of its {len(CONTENT)} bytes"),
        (b"", "is a damaged archive: it is cut off"),
    ],
    ids=["weak", "strong", "cut", "longer", "plain", "bomb", "short", "empty"],
)
def test_of_a_packed_file_the_content_counts(
    tmp_path: Path, stored: bytes, flaw: str | None
) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / PACKED.path).write_bytes(stored)
    found = find_flaw(PACKED, tmp_path)
    assert found == flaw if flaw is None else (found or "").startswith(flaw)


def test_a_folder_in_the_place_of_a_file_is_a_flaw(tmp_path: Path) -> None:
    (tmp_path / describe().path).mkdir(parents=True)
    assert find_flaw(describe(), tmp_path) == "cannot be read: Is a directory"


def test_the_files_are_those_that_the_dataset_files_name() -> None:
    for dataset, listed in DATASETS.items():
        described = read_dataset_file(CONFIGS / f"{dataset}.toml")
        if isinstance(described, IdxFile):
            named = {described.inputs_path, described.labels_path}
        else:
            assert isinstance(described, Cifar10File)
            named = set(described.paths)
        assert named <= {file.path for file in listed}


def test_every_file_has_a_checksum_and_a_public_home() -> None:
    for file in [file for listed in DATASETS.values() for file in listed]:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert re.fullmatch("[0-9a-f]{64}", file.download.sha256)
        assert file.download.homes
        assert all(home.endswith(file.download.name) for home in file.download.homes)


@pytest.mark.skipif("D2M_DATA" not in os.environ, reason="D2M_DATA names no folder with the data")
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_data_of_this_machine_are_the_published_ones(dataset: str) -> None:
    folder = Path(os.environ["D2M_DATA"])
    assert {find_flaw(file, folder) for file in DATASETS[dataset]} == {None}


# --- fetch ------------------------------------------------------------------------------------


def test_a_missing_file_is_fetched_and_checked(tmp_path: Path, server: FileServer) -> None:
    file = describe(server.url("/images.gz"))
    assert fetch([file], tmp_path) == [FETCHED]
    assert (tmp_path / file.path).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == ["images.gz"]


def test_a_file_that_is_there_is_not_asked_for(tmp_path: Path, server: FileServer) -> None:
    file = describe(server.url("/images.gz"))
    fetch([file], tmp_path)
    assert fetch([file], tmp_path) == [HERE]
    assert len(server.asked) == 1


def test_a_damaged_file_is_replaced(tmp_path: Path, server: FileServer) -> None:
    file = describe(server.url("/images.gz"))
    (tmp_path / "mnist").mkdir()
    (tmp_path / file.path).write_bytes(b"damaged")
    assert fetch([file], tmp_path) == [FETCHED]
    assert find_flaw(file, tmp_path) is None


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(
    tmp_path: Path, server: FileServer
) -> None:
    file = describe(server.url("/images.gz"))
    server.cut_after = 4000
    (told,) = fetch([file], tmp_path)
    assert "peer closed connection" in told
    assert not (tmp_path / file.path).exists()
    server.cut_after = None
    assert fetch([file], tmp_path) == [FETCHED]
    assert server.asked[-1] == ("/images.gz", "bytes=4000-")
    assert find_flaw(file, tmp_path) is None


def test_a_home_that_knows_no_ranges_sends_all_again(tmp_path: Path, server: FileServer) -> None:
    file = describe(server.url("/images.gz"))
    server.cut_after = 4000
    fetch([file], tmp_path)
    server.cut_after, server.ignores_ranges = None, True
    assert fetch([file], tmp_path) == [FETCHED]


def test_a_home_that_ends_before_what_is_here_is_asked_anew(
    tmp_path: Path, server: FileServer
) -> None:
    file = describe(server.url("/images.gz"))
    server.cut_after = 4000
    fetch([file], tmp_path)
    server.cut_after, server.files["/images.gz"] = None, CONTENT[:100]
    assert "it ends before what is here" in fetch([file], tmp_path)[0]
    server.files["/images.gz"] = CONTENT
    assert fetch([file], tmp_path) == [FETCHED]


def test_another_range_than_was_asked_for_is_not_taken(tmp_path: Path, server: FileServer) -> None:
    file = describe(server.url("/images.gz"))
    server.cut_after = 4000
    fetch([file], tmp_path)
    server.cut_after, server.shift = None, 7
    assert "it sent another part than was asked for" in fetch([file], tmp_path)[0]


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + bytes(1 << 23)])
def test_what_is_not_the_published_file_is_refused_and_removed(
    tmp_path: Path, server: FileServer, content: bytes
) -> None:
    server.files["/images.gz"] = content
    (told,) = fetch([describe(server.url("/images.gz"))], tmp_path)
    assert "it is not the published file: size or checksum differ" in told
    assert list((tmp_path / "mnist").iterdir()) == []


def test_a_file_that_is_too_short_is_told_as_such(tmp_path: Path, server: FileServer) -> None:
    server.files["/images.gz"] = CONTENT[:50]
    (told,) = fetch([describe(server.url("/images.gz"))], tmp_path)
    assert f"it ended after 50 of {len(CONTENT)} bytes" in told


def test_the_next_home_is_asked_if_one_fails(tmp_path: Path, server: FileServer) -> None:
    server.files["/wrong"] = bytes(len(CONTENT))
    homes = [server.url("/gone"), "http://127.0.0.1:1/x", server.url("/wrong")]
    assert fetch([describe(*homes, server.url("/images.gz"))], tmp_path) == [FETCHED]


def test_all_homes_that_failed_are_named_in_one_line(tmp_path: Path, server: FileServer) -> None:
    homes = [server.url("/gone"), "http://127.0.0.1:1/x"]
    (told,) = fetch([describe(*homes)], tmp_path)
    assert all(home in told for home in homes)
    assert "404" in told
    assert "\n" not in told


def test_one_failure_does_not_hold_up_the_rest(tmp_path: Path, server: FileServer) -> None:
    files = [
        describe(server.url("/gone"), name="labels.gz"),
        describe(server.url("/images.gz")),
    ]
    told = fetch(files, tmp_path)
    assert "404" in told[0]
    assert told[1] == FETCHED


# --- an archive -------------------------------------------------------------------------------


def make_archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"folder/{name}.bin")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def describe_members(archive: bytes, home: str, *names: str) -> list[DataFile]:
    download = Download(
        name="all.tar.gz", homes=(home,), size_bytes=len(archive), sha256=sha256(archive)
    )
    return [
        DataFile(
            dataset="cifar-10",
            path=f"cifar-10/{name}.bin.xz",
            size_bytes=len(BATCH),
            sha256=sha256(BATCH),
            download=download,
            member=f"{name}.bin",
        )
        for name in names
    ]


def test_an_archive_is_taken_apart_into_packed_files(tmp_path: Path, server: FileServer) -> None:
    archive = make_archive(one=BATCH, two=BATCH, readme=b"text")
    server.files["/all.tar.gz"] = archive
    files = describe_members(archive, server.url("/all.tar.gz"), "one", "two")
    assert fetch(files, tmp_path) == [FETCHED, FETCHED]
    assert len(server.asked) == 1
    assert [find_flaw(file, tmp_path) for file in files] == [None, None]
    names = sorted(path.name for path in (tmp_path / "cifar-10").iterdir())
    assert names == ["one.bin.xz", "two.bin.xz"]


def test_a_member_that_is_not_what_was_published_is_refused(
    tmp_path: Path, server: FileServer
) -> None:
    archive = make_archive(one=BATCH[:-1] + b"x")
    server.files["/all.tar.gz"] = archive
    files = describe_members(archive, server.url("/all.tar.gz"), "one")
    assert fetch(files, tmp_path) == ["one.bin of the archive has another checksum"]


def test_a_member_that_is_not_there_is_named(tmp_path: Path, server: FileServer) -> None:
    archive = make_archive(one=BATCH)
    server.files["/all.tar.gz"] = archive
    files = describe_members(archive, server.url("/all.tar.gz"), "one", "two")
    assert fetch(files, tmp_path) == ["the archive lacks two.bin"] * 2


# --- the commands -----------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, server: FileServer) -> DataFile:
    """The data set mnist has one small file, and the others have none."""
    file = describe(server.url("/images.gz"))
    for name in list(DATASETS):
        monkeypatch.setitem(published.DATASETS, name, (file,) if name == "mnist" else ())
    return file


def test_verify_prints_a_line_per_file_and_ends_with_one_if_one_is_bad(
    small: DataFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_command(["data", "verify", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "bad  mnist/images.gz: is missing\n"
    assert cli.run_command(["data", "fetch", str(tmp_path)]) == 0
    assert "ok   mnist/images.gz: fetched\n" in capsys.readouterr().out
    assert cli.run_command(["data", "verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "ok   mnist/images.gz: here\n"


def test_fetch_ends_with_one_if_a_file_could_not_be_had(
    small: DataFile, server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files.clear()
    assert cli.run_command(["data", "fetch", "--json", str(tmp_path)]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["path"], told["good"]) == ("mnist/images.gz", False)
    assert "404" in told["state"]


def test_a_folder_that_cannot_be_written_is_one_line(
    small: DataFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mnist").write_bytes(b"a file in the way")
    assert cli.run_command(["data", "fetch", str(tmp_path)]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_the_folder_is_that_of_the_environment_if_none_is_given(
    small: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2M_DATA", str(tmp_path))
    assert cli.run_command(["data", "fetch"]) == 0
    assert (tmp_path / small.path).exists()


def test_an_unknown_data_set_is_a_wrong_command_line(tmp_path: Path) -> None:
    assert cli.run_command(["data", "verify", str(tmp_path), "--dataset", "imagenet"]) == 2
